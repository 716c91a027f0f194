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
from lava_adapters.families.openai_chat_reader import ChatReader
from lava_adapters.fold import Fold
from lava_proxy.wire.tap import Tap

ASK = Ask(stream=True)
READERS: dict[str, Callable[[Ask], Fold]] = {
    "chat": ChatReader,
    "thinking": ChatReader,
    "messages": MessagesReader,
    "cohere": CohereReader,
}
STATE = ("deltas", "delta_bytes", "tool_calls", "text", "ended", "failed", "final", "surplus")


def chat(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "c", "model": "m", "choices": [choice], **more}
    return b"data: %s\n\n" % json.dumps(chunk, ensure_ascii=False).encode()


def messages(text: str, **more: Any) -> bytes:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}, **more}
    event["delta"] = {"type": "text_delta", "text": text}
    return b"event: content_block_delta\ndata: %s\n\n" % json.dumps(event).encode()


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


MAKERS = {"chat": chat, "thinking": thinking, "messages": messages, "cohere": cohere}
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
texts = st.one_of(
    st.sampled_from(
        ["", " word", "m", "c", "content", "text_delta", 'say "hi"', "a\\b", "\n", "é"]
    ),
    st.text(max_size=8),
)


def state(tap: Tap) -> dict[str, object]:
    shown = {name: getattr(tap.reader, name) for name in STATE}
    return {**shown, "usage": tap.reader.usage(), "events": tap.events, "counted": tap.counted}


@pytest.mark.parametrize("family", READERS)
@given(data=st.data())
def test_it_changes_what_parsing_would_have_changed(family: str, data: st.DataObject) -> None:
    made = st.builds(MAKERS[family], texts)
    pieces = data.draw(st.lists(st.one_of(made, st.sampled_from(ODD[family])), max_size=25))
    short = Tap(Framing.SSE, READERS[family](ASK), count=len)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "FRAMES_MAX", 0)
        long = Tap(Framing.SSE, READERS[family](ASK), count=len)
        expected = []
        for piece in pieces:
            raw = b"".join(event.raw for event in long.feed(piece))
            expected.append((raw, state(long)))
    for piece, wanted in zip(pieces, expected, strict=True):
        raw = b"".join(event.raw for event in short.feed(piece))
        assert (raw, state(short)) == wanted


@pytest.mark.parametrize("family", READERS)
def test_most_events_take_it(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    whole = Fold.event

    def event(self: Fold, name: str, data: bytes) -> None:
        parsed.append(data)
        whole(self, name, data)

    monkeypatch.setattr(Fold, "event", event)
    tap = Tap(Framing.SSE, READERS[family](ASK))
    for number in range(50):
        tap.feed(MAKERS[family](f" word{number}"))
    assert len(parsed) <= 3
    assert tap.reader.deltas == 50


def test_a_frame_of_its_own_in_every_event_is_not_looked_for_for_ever() -> None:
    """OpenAI may put random padding in each."""
    tap = Tap(Framing.SSE, ChatReader(ASK))
    for number in range(50):
        tap.feed(chat(" word", obfuscation=f"pad{number}"))
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
