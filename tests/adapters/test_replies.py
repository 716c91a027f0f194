"""The exact bytes of cuts and refusals."""

from __future__ import annotations

import json

import pytest

from lava_adapters import Ask, Framing, Quirks
from lava_adapters.families import BUILTIN

SSE = Framing.SSE
M = "budget_exhausted: out of credit"


def cut(family: str, framing: Framing = SSE, events: int = 3, **quirks: bool) -> bytes:
    facts = {"request_id": "req_1", "code": "ignored"}
    return BUILTIN[family](Quirks(**quirks), "").cut(framing, "out of credit", facts, events)


CHAT = (
    b'data: {"error":{"message":"budget_exhausted: out of credit","type":"insufficient_quota",'
    b'"param":null,"code":"budget_exhausted","request_id":"req_1"}}\n\n'
)


def test_chat() -> None:
    assert cut("openai_chat") == CHAT
    assert cut("openai_chat", named_errors=True) == b"event: error\n" + CHAT
    assert cut("openai_chat", Framing.JSON) == b""


def test_responses() -> None:
    assert cut("openai_responses") == (
        b'event: error\ndata: {"type":"error","code":"budget_exhausted",'
        b'"message":"budget_exhausted: out of credit","param":null,"sequence_number":3,'
        b'"error":{"message":"budget_exhausted: out of credit","type":"insufficient_quota",'
        b'"code":"budget_exhausted","request_id":"req_1"}}\n\n'
    )


def test_anthropic() -> None:
    assert cut("anthropic_messages") == (
        b'event: error\ndata: {"type":"error","error":{"type":"billing_error",'
        b'"message":"budget_exhausted: out of credit","code":"budget_exhausted",'
        b'"request_id":"req_1"}}\n\n'
    )


GEMINI = (
    b'{"error":{"code":402,"message":"budget_exhausted: out of credit",'
    b'"status":"RESOURCE_EXHAUSTED","details":[{"reason":"budget_exhausted"}],'
    b'"request_id":"req_1"}}'
)


def test_gemini() -> None:
    assert cut("gemini") == b"data: " + GEMINI + b"\r\n\r\n"
    assert cut("gemini", Framing.JSON_ARRAY) == b",\r\n" + GEMINI + b"\r\n]"
    assert cut("gemini", Framing.JSON_ARRAY, 0) == b"[" + GEMINI + b"\r\n]"
    assert cut("gemini", Framing.JSON) == b""


@pytest.mark.parametrize("family", ["opaque", "openai_embeddings"])
def test_elsewhere_only_closing_helps(family: str) -> None:
    assert cut(family) == b""


def test_the_prefix_is_not_doubled() -> None:
    made = BUILTIN["openai_chat"](Quirks(), "chat").cut(SSE, M, {}, 0)
    assert json.loads(made[6:])["error"]["message"] == M


def test_refusals_are_in_the_dialect() -> None:
    def refuse(family: str, status: int, ask: Ask | None = None) -> object:
        made = BUILTIN[family](Quirks(), "")
        return json.loads(made.refusal(ask, status, "insufficient_credit", "m", {"required": "1"}))

    openai = {"message": "m", "type": "insufficient_quota", "param": None}
    openai |= {"code": "insufficient_credit", "required": "1"}
    assert refuse("openai_chat", 402) == refuse("opaque", 402) == {"error": openai}
    anthropic = {"type": "billing_error", "message": "m", "code": "insufficient_credit"}
    wanted = {"type": "error", "error": anthropic | {"required": "1"}}
    assert refuse("anthropic_messages", 402) == wanted
    gemini = {"code": 402, "message": "m", "status": "RESOURCE_EXHAUSTED", "required": "1"}
    gemini |= {"details": [{"reason": "insufficient_credit"}]}
    assert refuse("gemini", 402) == {"error": gemini}
    assert refuse("gemini", 402, Ask(as_array=True)) == [{"error": gemini}]
