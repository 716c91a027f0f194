"""Sixteen hostile MiB through every framing: linear in the bytes, bounded in memory, nothing lost.

Time is compared with that of a quarter of the bytes, and the limit is far from what is measured: it
catches work that grows with the square, not a busy machine.
"""

from __future__ import annotations

import time
import tracemalloc

import pytest

from lava_adapters import Ask, Quirks
from lava_adapters.awsframe import encode
from lava_adapters.contract import Framing
from lava_adapters.families import BUILTIN
from lava_proxy.wire.tap import Tap

MIB = 2**20
WHOLE = 16 * MIB
READ = 64 * 1024
"""What one read of the socket brings."""
FAMILY = {
    Framing.SSE: "openai_chat",
    Framing.NDJSON: "ollama",
    Framing.JSON_ARRAY: "gemini",
    Framing.EVENT_STREAM: "bedrock",
    Framing.JSON: "openai_responses",
    Framing.OPAQUE: "opaque",
}
ENDLESS = [
    # One event that never ends, in the ways that searching might be slow.
    (Framing.SSE, b'data: {"a":"', b"x"),
    (Framing.SSE, b"data: ", b"\xe2\x82\xac"),
    (Framing.SSE, b": ", b"ping "),
    (Framing.SSE, b"data: {}", b"\n:"),
    (Framing.NDJSON, b'{"a":"', b"x"),
    (Framing.NDJSON, b"", b"\r"),
    (Framing.JSON_ARRAY, b'[{"a":"', b"x"),
    (Framing.JSON_ARRAY, b'[{"a":"', b"\\\\"),
    (Framing.JSON_ARRAY, b"", b" "),
    (Framing.EVENT_STREAM, b"", b"\0"),
    (Framing.EVENT_STREAM, encode({":event-type": "x"}, b"y" * WHOLE)[: -(2 * MIB)], b"\0"),
    (Framing.JSON, b'{"usage":', b"{"),
    (Framing.JSON, b'{"output":[', b'{"usage":{},"a":"'),
    (Framing.OPAQUE, b"", b"\0"),
]
MANY = [
    # As many events as there can be; fewer bytes, because each costs what an event costs.
    (Framing.SSE, b"", b"data: {}\n\n"),
    (Framing.SSE, b"", b"\n"),
    (Framing.SSE, b"", b"data:\r"),
    (Framing.NDJSON, b"", b"\n"),
    (Framing.JSON_ARRAY, b"[", b"{},"),
    (Framing.JSON_ARRAY, b"", b"["),
    (Framing.JSON_ARRAY, b"[", b'""'),
    (Framing.EVENT_STREAM, b"", encode({":event-type": "x"}, b"{}")),
]


def spent_s(framing: Framing, body: bytes) -> float:
    """CPU time for the whole, read by read."""
    started = time.process_time()
    tap = Tap(framing, BUILTIN[FAMILY[framing]](Quirks(), "").reader(Ask(model="m", stream=True)))
    out = 0
    for at in range(0, len(body), READ):
        out += sum(len(event.raw) for event in tap.feed(body[at : at + READ]))
    out += sum(len(event.raw) for event in tap.finish())
    tap.reader.usage()
    assert out == len(body)
    return time.process_time() - started


def check_linear(framing: Framing, body: bytes) -> None:
    spent_s(framing, body[: len(body) // 16])  # warm
    quarter = spent_s(framing, body[: len(body) // 4])
    assert spent_s(framing, body) < 4 * 4 * quarter + 0.5


def grown(head: bytes, grain: bytes, size: int) -> bytes:
    return (head + grain * (1 + (size - len(head)) // len(grain)))[:size]


@pytest.mark.parametrize(("framing", "head", "grain"), ENDLESS)
def test_an_event_without_an_end_is_linear(framing: Framing, head: bytes, grain: bytes) -> None:
    check_linear(framing, grown(head, grain, WHOLE))


@pytest.mark.parametrize(("framing", "head", "grain"), MANY)
def test_many_small_events_are_linear(framing: Framing, head: bytes, grain: bytes) -> None:
    check_linear(framing, grown(head, grain, MIB // 4))


@pytest.mark.parametrize("framing", [f for f in Framing if f is not Framing.OPAQUE])
def test_what_waits_is_bounded(framing: Framing) -> None:
    """Of an event that never ends only head and tail are kept."""
    head = next(head for f, head, _ in ENDLESS if f is framing)
    tap = Tap(framing, BUILTIN[FAMILY[framing]](Quirks(), "").reader(Ask(model="m", stream=True)))
    piece = b"x" * READ
    tracemalloc.start()
    try:
        tap.feed(head[:100])
        for _ in range(WHOLE // READ):
            tap.feed(piece)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5 * MIB
