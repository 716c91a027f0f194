"""Server-sent events: the WHATWG rules, any split, bounded memory, bytes out = bytes in."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.wire.event import Event, Limits
from lava_proxy.wire.sse import SseFramer

Said = list[tuple[str, bytes]]
SMALL = Limits(hold_bytes=40, parse_bytes=200, head_bytes=20, tail_bytes=30)


def feed(pieces: list[bytes], limits: Limits | None = None) -> list[Event]:
    """All events; the bytes that came out are those that went in."""
    framer = SseFramer() if limits is None else SseFramer(limits)
    events = [event for piece in pieces for event in framer.feed(piece)]
    out = b"".join(event.raw for event in events)
    assert out + framer.pending == b"".join(pieces)
    events += framer.finish()
    assert b"".join(event.raw for event in events) == b"".join(pieces)
    assert framer.pending == b""
    return events


def said(events: list[Event]) -> Said:
    return [(event.name, event.data) for event in events if event.data]


def splits(body: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and in two at every place."""
    ways = [[body], [body[i : i + 1] for i in range(len(body))]]
    return ways + [[body[:i], body[i:]] for i in range(1, len(body))]


CASES: list[tuple[bytes, Said]] = [
    (b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
    (b"data: a\r\rdata: b\r\r", [("", b"a"), ("", b"b")]),
    (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [("", b"a"), ("", b"b"), ("", b"c")]),
    (b"data:a\n\ndata:  b\n\n", [("", b"a"), ("", b" b")]),
    (b"data: a\ndata: b\ndata\ndata: c\n\n", [("", b"a\nb\n\nc")]),
    (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [("", b"a")]),
    (b"event: ping\ndata: {}\n\nevent:done\ndata:{}\n\n", [("ping", b"{}"), ("done", b"{}")]),
    (b": comment\n\n:\n\ndata: a\n\n: x\n", [("", b"a")]),
    (b": comment\ndata: a\nid: 7\nretry: 10\n: more\n\n", [("", b"a")]),
    (b"data: a\n\ndata: b", [("", b"a"), ("", b"b")]),
    (b"data: a\n\ndata: b\n", [("", b"a"), ("", b"b")]),
    (b"data: a\n\n\n\n\r\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
    (b"data: [DONE]\n\ndata: more\n\ntrailing", [("", b"[DONE]"), ("", b"more")]),
    (b'error: {"code":500}\n\n', [("error", b'{"code":500}')]),
    (b"event: a\nevent: b\ndata: x\n\nevent: c\n\n", [("b", b"x")]),
    (b"data: \xff\xfe\xf0\x9f\n\n", [("", b"\xff\xfe\xf0\x9f")]),
    (b"event: n\r\ndata: 1\r\n\r\n: c\r\n\r\ndata: 2\r\n\r\n", [("n", b"1"), ("", b"2")]),
    (b"data: a\rdata: b\n\n", [("", b"a\nb")]),
    (b"data: a\ndata: b\r\n\r\n", [("", b"a\nb")]),
    (b"data: a\rdata: b\r\n\r\n", [("", b"a\nb")]),
    (b"data: a\n\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
    (b"data: a\r\n\r\n\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
    (b"data: \r\n\r\ndata: b\r\n\r\n", [("", b"b")]),
    (b"", []),
    (b"\n", []),
]


@pytest.mark.parametrize(("body", "expected"), CASES)
def test_every_split_says_the_same(body: bytes, expected: Said) -> None:
    for pieces in splits(body):
        assert said(feed(pieces)) == expected


def test_comments_go_out_at_once() -> None:
    framer = SseFramer()
    assert [e.raw for e in framer.feed(b": ping - 2026\n")] == [b": ping - 2026\n"]
    assert framer.feed(b": half a comm") == []
    assert [e.raw for e in framer.feed(b"ent\r\ndata: x")] == [b": half a comment\r\n"]
    assert not framer.mid_event


def test_an_event_goes_out_with_its_last_byte() -> None:
    body = b"event: e\r\ndata: x\r\n\r"
    framer = SseFramer()
    assert all(framer.feed(body[i : i + 1]) == [] for i in range(len(body) - 1))
    assert said(framer.feed(body[-1:])) == [("e", b"x")]


def test_a_long_tail_is_let_go_torn_and_still_parsed() -> None:
    framer = SseFramer(SMALL)
    payload = b"x" * 100
    assert framer.feed(b"data: " + payload[:30]) == []
    (first,) = framer.feed(payload[30:60])
    assert first == Event(b"data: " + payload[:60], "", b"", True)
    assert framer.mid_event
    (second,) = framer.feed(payload[60:])
    assert second.raw == payload[60:]
    last, after = framer.feed(b"\n\ndata: y\n\n")
    assert last == Event(b"\n\n", "", payload, True)
    assert after == Event(b"data: y\n\n", "", b"y", False)
    assert not framer.mid_event


def test_beyond_the_parse_cap_head_and_tail_are_kept() -> None:
    body = b"data: HEAD" + b"-" * 500 + b"TAIL\n\ndata: next\n\n"
    ways = [said(feed(pieces, SMALL)) for pieces in splits(body)]
    assert ways[0][1] == ("", b"next")
    head_and_tail = ways[0][0][1]
    assert head_and_tail.startswith(b"HEAD")
    assert head_and_tail.endswith(b"TAIL")
    assert len(head_and_tail) <= SMALL.head_bytes + SMALL.tail_bytes
    assert all(way == ways[0] for way in ways)


def test_linear_and_bounded_whatever_the_split() -> None:
    def seconds(size: int) -> float:
        framer, data = SseFramer(), b"data: " + b"a" * size
        begun = time.process_time()
        for i in range(len(data)):
            framer.feed(data[i : i + 1])
        return time.process_time() - begun

    assert seconds(800_000) < 16 * max(seconds(100_000), 0.02)
    framer, piece = SseFramer(), b"a" * 65_536
    framer.feed(b"data: ")
    tracemalloc.start()
    for _ in range(256):
        framer.feed(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 1024 * 1024


def test_a_long_comment_in_single_bytes_is_linear() -> None:
    framer = SseFramer()
    begun = time.process_time()
    for _ in range(60_000):
        framer.feed(b":")
    assert time.process_time() - begun < 2


LINES = st.sampled_from(
    [b"data: {}", b"data:x", b"data", b"event: e", b": c", b"id: 1", b"", b"\xff", b"error: e"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(
    st.lists(st.tuples(LINES, ENDS), max_size=12),
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
)
def test_random_streams_and_splits(lines: list[tuple[bytes, bytes]], sizes: list[int]) -> None:
    body = b"".join(line + end for line, end in lines)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(body[at : at + size])
        at += size
    pieces.append(body[at:])
    assert said(feed(pieces)) == said(feed([body]))


@given(st.binary(max_size=300), st.integers(1, 7))
def test_any_bytes_pass_through(body: bytes, size: int) -> None:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    feed(pieces, SMALL)
