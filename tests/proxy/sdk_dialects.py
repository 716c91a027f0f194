"""What the simulated provider does not speak itself: Cohere's chat and Bedrock, as scripts.

The control word of `net.simulated.plan` stands in the model; the answers follow the recordings."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator

from lava_adapters.awsframe import encode
from lava_proxy.net.simulated import Piece, Script, SimRequest
from lava_proxy.net.simulated.text import WORDS, words

_CONTROL = re.compile(r"sim-(\d+)-\d+(?:-in(\d+))?(?:-fail(\d+))?")
_FRAMES = (("content-type", "application/vnd.amazon.eventstream"),)


def _wish(text: str) -> tuple[int, int, int]:
    """(tokens, input, status of a failure)"""
    found = _CONTROL.search(text)
    assert found is not None, text
    return int(found[1]), int(found[2] or 7), int(found[3] or 0)


def cohere_chat(request: SimRequest) -> Script:
    asked = json.loads(request.body)
    tokens, given, fail = _wish(asked["model"])
    if fail:
        return Script.json({"id": "e", "message": "simulated failure"}, status=fail)
    units = {"input_tokens": given, "output_tokens": tokens}
    usage = {"billed_units": units, "tokens": {"input_tokens": given + 500, "output_tokens": 99}}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": [{"type": "text", "text": words(tokens)}]}
        whole = {"id": "c", "finish_reason": "COMPLETE", "message": message, "usage": usage}
        return Script.json(whole)

    def pieces() -> Iterator[Piece]:
        yield _event({"type": "message-start", "id": "c", "delta": {"message": {"role": "a"}}})
        for number in range(tokens):
            content = {"message": {"content": {"text": WORDS[number % 8]}}}
            yield _event({"type": "content-delta", "index": 0, "delta": content})
        end = {"finish_reason": "COMPLETE", "usage": usage}
        yield _event({"type": "message-end", "id": "c", "delta": end})
        yield Piece(b"data: [DONE]\n\n")

    return Script(pieces())


def _event(body: dict[str, object]) -> Piece:
    return Piece(f"event: {body['type']}\ndata: {json.dumps(body)}\n\n".encode())


def converse(request: SimRequest) -> Script:
    tokens, given, fail = _wish(request.path)
    if fail:
        return _refused(fail)
    usage = {"inputTokens": given, "outputTokens": tokens, "totalTokens": given + tokens}
    end = {"usage": usage, "metrics": {"latencyMs": 5}}
    if not request.path.endswith("-stream"):
        message = {"role": "assistant", "content": [{"text": words(tokens)}]}
        return Script.json({"output": {"message": message}, "stopReason": "end_turn", **end})

    def pieces() -> Iterator[Piece]:
        yield _frame("messageStart", {"role": "assistant"})
        for number in range(tokens):
            delta = {"delta": {"text": WORDS[number % 8]}, "contentBlockIndex": 0}
            yield _frame("contentBlockDelta", delta)
        yield _frame("messageStop", {"stopReason": "end_turn"})
        yield _frame("metadata", end)

    return Script(pieces(), headers=_FRAMES)


def invoke(request: SimRequest) -> Script:
    """A model of Meta's: its own words, the counts in headers or the last piece."""
    tokens, given, fail = _wish(request.path)
    if fail:
        return _refused(fail)
    if not request.path.endswith("-stream"):
        body = {"generation": words(tokens), "prompt_token_count": given}
        return Script.json(body | {"generation_token_count": tokens})

    def pieces() -> Iterator[Piece]:
        for number in range(tokens):
            yield _chunk({"generation": WORDS[number % 8]})
        counts = {"inputTokenCount": given, "outputTokenCount": tokens}
        yield _chunk({"generation": "", "amazon-bedrock-invocationMetrics": counts})

    return Script(pieces(), headers=_FRAMES)


def _refused(status: int) -> Script:
    headers = (("content-type", "application/json"), ("x-amzn-errortype", "ValidationException"))
    return Script.plain(b'{"message":"simulated failure"}', status=status, headers=headers)


def _frame(name: str, body: dict[str, object]) -> Piece:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return Piece(encode(headers, json.dumps(body).encode()))


def _chunk(body: dict[str, object]) -> Piece:
    return _frame("chunk", {"bytes": base64.b64encode(json.dumps(body).encode()).decode()})


SCRIPTS: dict[str, tuple[tuple[str, ...], Callable[[SimRequest], Script]]] = {
    "cohere chat": (("/v2/chat",), cohere_chat),
    "boto3 converse": (("/model/{model}/converse", "/model/{model}/converse-stream"), converse),
    "boto3 invoke": (
        ("/model/{model}/invoke", "/model/{model}/invoke-with-response-stream"),
        invoke,
    ),
}
"""The paths that a script answers, and the script, by SDK and API."""
