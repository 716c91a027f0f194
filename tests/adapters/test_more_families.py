"""Recordings of Cohere, Bedrock, Ollama, speech, transcription and predictions: whole and split."""

from __future__ import annotations

import base64
import json
import random
from decimal import Decimal
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st
from provider_recordings import FOLDER, recordings

from lava_adapters import NO_USAGE, Ask, Quirks
from lava_adapters.awsframe import encode
from lava_adapters.contract import Framing, Usage
from lava_adapters.families import BUILTIN
from lava_proxy.wire.event import Framer
from lava_proxy.wire.eventstream import EventStreamFramer, FrameError
from lava_proxy.wire.tap import Tap

KINDS = {
    ("cohere", "chat-v1"): ("cohere", "chat"),
    ("cohere", "chat-v2"): ("cohere", "chat"),
    ("cohere", "generate-v1"): ("cohere", "generate"),
    ("cohere", "embed"): ("cohere", "embed"),
    ("cohere", "rerank"): ("cohere", "rerank"),
    ("aws-bedrock", "converse"): ("bedrock", "converse"),
    ("aws-bedrock", "invoke"): ("bedrock", "invoke"),
    ("aws-bedrock", "count-tokens"): ("bedrock", "free"),
    ("aws-bedrock", "rerank"): ("bedrock", "invoke"),
    ("ollama", "ollama-chat"): ("ollama", "chat"),
    ("ollama", "ollama-generate"): ("ollama", "generate"),
    ("deepgram", "listen"): ("media", "transcription"),
    ("deepgram", "speak"): ("media", "speech"),
    ("mistral", "speech"): ("media", "speech"),
    ("openai", "transcriptions"): ("media", "transcription"),
    ("elevenlabs", "transcriptions"): ("media", "transcription"),
    ("replicate", "predictions"): ("predictions", "prediction"),
    ("openai", "images"): ("media", "images"),
    ("hyperbolic", "images"): ("media", "images"),
    ("openai", "moderations"): ("opaque", "free"),
}
TYPES = {
    "json": "application/json",
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "aws-eventstream": "application/vnd.amazon.eventstream",
    "binary": "audio/mpeg",
    "jsonl-chunks": "application/vnd.amazon.eventstream",
}
NAMES = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
    "input_audio_tokens", "total_reported", "search_units",
)  # fmt: skip


def _index() -> list[dict[str, Any]]:
    index = FOLDER / "index.jsonl"
    lines = index.read_text("utf-8").splitlines() if index.is_file() else []
    return [json.loads(line) for line in lines]


def _rows() -> list[Any]:
    found = [
        pytest.param(row, id=row["file"])
        for row in _index()
        if (row["provider"], row["api"]) in KINDS and row["framing"] in TYPES
    ]
    return found or [pytest.param(None, marks=pytest.mark.skip(f"no recordings at {FOLDER}"))]


def test_every_row_of_the_index_is_run() -> None:
    """Here or in test_recordings.py, by the reader of its format."""
    index = {row["file"] for row in _index()}
    here = {each.id for each in _rows() if each.id}
    assert {each.id for each in recordings()} | here == index


def _wire(row: dict[str, Any]) -> bytes:
    """The body as it came; bare chunks (of Bedrock: ``{"contentBlockDelta": {...}}``) get their
    frames back."""
    raw = (FOLDER / row["file"]).read_bytes()
    if row["framing"] != "jsonl-chunks":
        return raw
    events = [json.loads(line).popitem() for line in raw.splitlines() if line.strip()]
    return b"".join(
        encode({":message-type": "event", ":event-type": name}, json.dumps(payload).encode())
        for name, payload in events
    )


def _run(row: dict[str, Any], size: int | None) -> Tap:
    family, kind = KINDS[row["provider"], row["api"]]
    adapter = BUILTIN[family](Quirks(), kind)
    request = {"model": "m", "stream": row["stream"]}
    path = row["request"].get("url_path") or "/model/m/invoke"
    ask = adapter.ask("POST", path, "", "application/json", json.dumps(request).encode())
    tap = Tap(adapter.framing(ask, TYPES[row["framing"]]), adapter.reader(ask))
    tap.reader.headers(row["status"], row["request"].get("headers") or {})
    body, out, at = _wire(row), b"", 0
    chance = random.Random(4)
    while at < len(body):
        step = size or chance.choice((1, 3, 200, 4000))
        out += b"".join(event.raw for event in tap.feed(body[at : at + step]))
        at += step
    out += b"".join(event.raw for event in tap.finish())
    assert out == body
    assert not tap.faulty
    return tap


@pytest.mark.parametrize("row", _rows())
def test_usage_whole_and_split(row: dict[str, Any]) -> None:
    expected = row["expected"] or {}
    sizes = [10**9, None] + ([1] if row["framing"] != "binary" else [])
    for size in sizes:
        reader = _run(row, size).reader
        usage = reader.usage()
        for name in NAMES:
            assert (getattr(usage, name) or 0) == expected.get(name, 0), name
        assert (usage.input_characters or 0) == expected.get("characters", 0)
        ms = (usage.input_ms or 0) + (usage.output_ms or 0)
        assert abs(ms - Decimal(str(expected.get("seconds", 0))) * 1000) < 1
        if expected:
            assert reader.final
            assert reader.ended


def _frames() -> list[bytes]:
    """The frames of some event streams, by botocore's own reading."""
    return [
        encode({":message-type": "event", ":event-type": "e"}, b'{"a":%d}' % number)
        for number in range(3)
    ]


def test_frames_read_as_botocore_reads_them() -> None:
    data = b"".join(_frames())
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    theirs = [(m.headers[":event-type"], m.payload) for m in buffer]
    ours = [(event.name, event.data) for event in EventStreamFramer().feed(data)]
    assert ours == theirs


@given(st.integers(0, 10**6))
def test_a_flipped_bit_is_noticed(at: int) -> None:
    data = bytearray(_frames()[0])
    data[at % len(data)] ^= 1 << (at % 8)
    framer = EventStreamFramer()
    try:
        events = framer.feed(bytes(data))
    except FrameError:
        return
    assert not events


def test_a_broken_frame_passes_unread() -> None:
    data = b"".join(_frames())[:-1] + b"\0" + b"rest"
    tap = Tap(Framing.EVENT_STREAM, BUILTIN["bedrock"](Quirks(), "converse").reader(Ask()))
    out = b"".join(event.raw for event in (*tap.feed(data), *tap.feed(b"x"), *tap.finish()))
    assert out == data + b"x"
    assert tap.faulty


def test_a_hostile_stream_is_linear() -> None:
    framer: Framer = EventStreamFramer()
    big = encode({":message-type": "event", ":event-type": "e"}, b"x" * 2**24)
    out = sum(
        len(event.raw)
        for at in range(0, len(big), 4096)
        for event in framer.feed(big[at : at + 4096])
    )
    assert out == len(big)
    assert not framer.mid_event


def test_the_bedrock_cut_is_an_exception_frame() -> None:
    cut = BUILTIN["bedrock"](Quirks(), "converse").cut(Framing.EVENT_STREAM, "no credit", {}, 3)
    buffer = EventStreamBuffer()
    buffer.add_data(cut)
    told = next(iter(buffer)).to_response_dict()
    assert told["headers"][":exception-type"] == "validationException"
    assert json.loads(told["body"])["message"] == "budget_exhausted: no credit"


def test_bedrock_headers_win_over_a_body_that_a_guardrail_rewrote() -> None:
    reader = BUILTIN["bedrock"](Quirks(), "invoke").reader(Ask(model="m"))
    stated = {"input": "30", "output": "51"}
    reader.headers(200, {f"x-amzn-bedrock-{k}-token-count": v for k, v in stated.items()})
    reader.event("", b'{"usage": {"inputTokens": 30}}')
    assert (reader.usage().input_tokens, reader.usage().output_tokens) == (30, 51)


def test_errors_in_streams() -> None:
    for family, name, data in (
        ("bedrock", "exception:throttlingException", b'{"message":"slow"}'),
        ("ollama", "", b'{"error":"x"}'),
        ("cohere", "message-end", b'{"type":"message-end","delta":{"finish_reason":"ERROR"}}'),
    ):
        reader = BUILTIN[family](Quirks(), "").reader(Ask(stream=True))
        reader.event(name, data)
        assert reader.failed, family


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(
        ("usage", "delta", "message", "content", "text", "bytes", "metadata", "duration", "type",
         "billed_units", "results", "data", "toolUse", "input", "output", "start", "choices")),
        inner, max_size=4), max_leaves=12))  # fmt: skip
@pytest.mark.parametrize("family", ["bedrock", "cohere", "media", "ollama"])
def test_no_shape_makes_a_reader_raise(family: str, value: object) -> None:
    inner = base64.b64encode(json.dumps(value).encode()).decode()
    for kind in ("", "images", "embed", "rerank"):
        for ask in (Ask(), Ask(stream=True)):
            reader = BUILTIN[family](Quirks(), kind).reader(ask)
            for body in (value, {"bytes": inner}, {"meta": value, "delta": value}):
                reader.event("", json.dumps(body).encode())
            assert isinstance(reader.usage(), Usage)
    assert Usage() == NO_USAGE
