"""The short way for events that are like the last one but for their text: what it skips is exactly
what would have had no effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_adapters import Ask, Framing, fold
from lava_adapters.families.anthropic_reader import MessagesReader
from lava_adapters.families.cohere import CohereReader
from lava_adapters.families.ollama import OllamaReader
from lava_adapters.families.openai_chat_reader import ChatReader
from lava_adapters.families.openai_responses_reader import ResponsesReader
from lava_adapters.fold import Fold
from lava_proxy.wire.tap import Tap

ASK = Ask(stream=True)
READERS: dict[str, Callable[[Ask], Fold]] = {
    "chat": ChatReader,
    "thinking": ChatReader,
    "messages": MessagesReader,
    "cohere": CohereReader,
    "responses": ResponsesReader,
    "ollama": OllamaReader,
}
STATE = ("deltas", "delta_bytes", "tool_calls", "text", "ended", "failed", "final", "surplus")


def chat(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "c", "model": "m", "choices": [choice], **more}
    return b"data: %s\n\n" % json.dumps(chunk, ensure_ascii=False).encode()


def messages(text: str, padding: int = 0, **more: Any) -> bytes:
    event = {"type": "content_block_delta", "index": 0, **more}
    event["delta"] = {"type": "text_delta", "text": text}
    data = json.dumps(event)[:-1] + " " * padding + "}"
    return b"event: content_block_delta\ndata: %s\n\n" % data.encode()


def thinking(text: str, **more: Any) -> bytes:
    """As several providers stream reasoning: beside members that are null."""
    delta = {"role": "assistant", "content": None, "reasoning_content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    chunk = {"id": "c", "model": "m", "choices": [choice], "usage": None, **more}
    return b"data: %s\n\n" % json.dumps(chunk, ensure_ascii=False).encode()


def cohere(text: str, **more: Any) -> bytes:
    delta = {"message": {"content": {"text": text}}}
    event = {"type": "content-delta", "index": 0, "delta": delta, **more}
    return b"event: content-delta\ndata: %s\n\n" % json.dumps(event).encode()


def responses(text: str, **more: Any) -> bytes:
    event = {"type": "response.output_text.delta", "item_id": "i", "delta": text, **more}
    return b"event: response.output_text.delta\ndata: %s\n\n" % json.dumps(event).encode()


def ollama(text: str, **more: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps({"model": "m", "message": message, "done": False, **more}).encode() + b"\n"


MAKERS: dict[str, Callable[..., bytes]] = {
    "chat": chat,
    "thinking": thinking,
    "messages": messages,
    "cohere": cohere,
    "responses": responses,
    "ollama": ollama,
}
ODD: dict[str, list[bytes]] = {
    "chat": [
        b": keep-alive\n\n",
        b'data: {"id":"c","model":"m","choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7}}\n\n',
        b'data: {"error":{"message":"no"}}\n\n',
        b'data: {"id":"c","choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}\n\n',
        b"data: [DONE]\n\n",
        b"data: {torn",
        b"\n\n",
    ],
    "messages": [
        b'event: ping\ndata: {"type":"ping"}\n\n',
        b'data: {"type":"message_delta","usage":{"output_tokens":9}}\n\n',
        b'data: {"type":"message_stop"}\n\n',
        b"data: {torn",
        b"\n\n",
    ],
}
ODD["thinking"] = [
    *ODD["chat"],
    chat("x"),
    b'data: {"id":"c","choices":[{"delta":{"tool_calls":[{"function":{"name":"f"}}]}}]}\n\n',
]
ODD["cohere"] = [
    b'event: message-start\ndata: {"type":"message-start","id":"c"}\n\n',
    b'event: tool-call-start\ndata: {"type":"tool-call-start","delta":{"message":{"tool_calls":'
    b'{"function":{"name":"f"}}}}}\n\n',
    b'event: message-end\ndata: {"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":'
    b'{"billed_units":{"input_tokens":3,"output_tokens":7}}}}\n\n',
    b"data: {torn",
    b"\n\n",
]
ODD["responses"] = [
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n',
    b'data: {"type":"response.output_item.added","item":{"type":"function_call","name":"f"}}\n\n',
    b'data: {"type":"response.completed","response":{"id":"r","status":"completed","usage":'
    b'{"input_tokens":3,"output_tokens":7}}}\n\n',
    b"data: {torn",
    b"\n\n",
]
ODD["ollama"] = [
    b'{"model":"m","message":{"content":"x","tool_calls":[{"function":{}}]},"done":false}\n',
    b'{"model":"m","done":true,"prompt_eval_count":3,"eval_count":7}\n',
    b'{"error":"no"}\n',
    b"{torn",
    b"\n",
]
texts = st.one_of(
    st.sampled_from(
        ["", " word", "m", "c", "content", "text_delta", 'say "hi"', "a\\b", "\n", "é", '",', "1,"]
    ),
    st.text(max_size=8),
)
GAPS = {
    "created": st.one_of(st.integers(0, 2000), st.none()),
    "sequence_number": st.integers(0, 2000),
    "created_at": st.one_of(st.sampled_from(["2026-11-29T00:00:01Z", ""]), texts),
    "obfuscation": texts,
    "padding": st.integers(0, 3),
}
gaps = st.one_of(st.just({}), st.fixed_dictionaries({}, optional=GAPS), st.fixed_dictionaries(GAPS))


def tap_of(family: str, **more: Any) -> Tap:
    framing = Framing.NDJSON if family == "ollama" else Framing.SSE
    return Tap(framing, READERS[family](ASK), **more)


def state(tap: Tap) -> dict[str, object]:
    shown = {name: getattr(tap.reader, name) for name in STATE}
    return {**shown, "usage": tap.reader.usage(), "events": tap.events, "counted": tap.counted}


@pytest.mark.parametrize("family", READERS)
@given(data=st.data())
def test_it_changes_what_parsing_would_have_changed(family: str, data: st.DataObject) -> None:
    made = st.builds(lambda text, more: MAKERS[family](text, **more), texts, gaps)
    pieces = data.draw(st.lists(st.one_of(made, st.sampled_from(ODD[family])), max_size=25))
    short = tap_of(family, count=len)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "FRAMES_MAX", 0)
        long = tap_of(family, count=len)
        expected = []
        for piece in pieces:
            raw = b"".join(event.raw for event in long.feed(piece))
            expected.append((raw, state(long)))
    for piece, wanted in zip(pieces, expected, strict=True):
        raw = b"".join(event.raw for event in short.feed(piece))
        assert (raw, state(short)) == wanted


@pytest.mark.parametrize(
    "gaps",
    [
        {},
        {"created": 1_764_000_000},
        {"created_at": "2026-11-29T00:00:01.{}Z"},
        {"sequence_number": 7},
        {"sequence_number": 98, "obfuscation": "pad{}"},
        {"obfuscation": "{}", "created": 9},
    ],
    ids=",".join,
)
@pytest.mark.parametrize("family", READERS)
def test_most_events_take_it(
    family: str, gaps: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their text, and with a time, a number or padding that differs in each."""
    parsed = []
    whole = Fold.event

    def event(self: Fold, name: str, data: bytes) -> None:
        parsed.append(data)
        whole(self, name, data)

    monkeypatch.setattr(Fold, "event", event)
    if family == "messages":
        gaps = {**gaps, "padding": 1}  # spaces
    tap = tap_of(family)
    for number in range(50):
        more = {
            key: value.format(number) if isinstance(value, str) else value + number
            for key, value in gaps.items()
        }
        text = ("\n", 'a "b"', "caf\u00e9 \u4e2d", "\\")[number % 4] if number > 4 else "plain"
        tap.feed(MAKERS[family](f"{text} {number}", **more))
    assert len(parsed) <= 3
    assert tap.reader.deltas == 50
    assert tap.reader.delta_bytes == sum(
        len(text.encode())
        for number in range(50)
        for text in [
            (("\n", 'a "b"', "caf\u00e9 \u4e2d", "\\")[number % 4] if number > 4 else "plain")
            + f" {number}"
        ]
    )


def test_a_frame_of_its_own_in_every_event_is_not_looked_for_for_ever() -> None:
    tap = Tap(Framing.SSE, ChatReader(ASK))
    for number in range(50):
        tap.feed(chat(" word", note=f"differs{number}"))
    assert tap.reader._frames == fold.FRAMES_MAX
    assert tap.reader.deltas == 50


@pytest.mark.parametrize(
    "chunk",
    [
        chat("once", finish_note="once"),
        chat("\\u0061bc").replace(b"\\\\", b"\\").replace(b'"index"', b'"abc": 1, "index"'),
        chat("x", usage={"prompt_tokens": 1}),
        chat("x", error={"message": "no"}),
    ],
)
def test_no_frame_where_the_text_may_stand_elsewhere_or_more_is_said(chunk: bytes) -> None:
    tap = Tap(Framing.SSE, ChatReader(ASK))
    tap.feed(chat("first"))
    tap.feed(chunk)
    assert tap.reader.frame is None


def test_the_gate_holds_such_an_event_too() -> None:
    tap = Tap(Framing.SSE, ChatReader(ASK))
    tap.feed(chat("first"))
    tap.feed(chat("second"))
    tap.gate = lambda: False
    assert tap.feed(chat("third")) == []
    assert tap.held is not None
    assert b"".join(event.raw for event in tap.resume()) == chat("third")
