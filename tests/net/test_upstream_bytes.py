"""What bytes of an answer mean: framings, endings, limits; the same however they are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upstream_cases import BAD, CASES, TWO
from upstream_kit import CHUNKED, OK, Wire

from lava_proxy.net.http1.reply import (
    BETWEEN_MAX_BYTES,
    HEAD_MAX_BYTES,
    HEADERS_MAX_COUNT,
    INTERIM_MAX_COUNT,
)
from lava_proxy.wire import headers


@pytest.mark.parametrize("name", CASES)
async def test_what_bytes_mean(name: str) -> None:
    data, ending, meant = CASES[name]
    assert Wire().play([data], ending=ending) == meant


TOO_MUCH = {"more than the answer", "a second answer", "a body on 204"}
"""What comes later is seen later: test_bytes_that_nobody_asked_for."""


@pytest.mark.parametrize("name", [name for name in CASES if name not in TOO_MUCH])
async def test_cut_at_every_place(name: str) -> None:
    data, ending, meant = CASES[name]
    assert Wire().play([bytes([byte]) for byte in data], ending=ending) == meant
    for place in range(1, len(data)):
        assert Wire().play([data[:place], data[place:]], ending=ending) == meant, place


@pytest.mark.parametrize("name", ["chunked", "trailers are dropped", "interim answers"])
async def test_cut_at_every_two_places(name: str) -> None:
    data, ending, meant = CASES[name]
    for one, two in itertools.combinations(range(1, len(data)), 2):
        assert Wire().play([data[:one], data[one:two], data[two:]], ending=ending) == meant


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=200), max_size=12),
    extension=st.sampled_from([b"", b";a", b';a="b"', b"  "]),
    cuts=st.lists(st.integers(0, 3000), max_size=30),
    lost=st.integers(0, 40),
)
async def test_any_body_in_any_cut(
    chunks: list[bytes], extension: bytes, cuts: list[int], lost: int
) -> None:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks) + b"0\r\n\r\n"
    data = CHUNKED + body
    data = data[: len(data) - min(lost, len(body))]
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    seen = Wire().play([data[a:b] for a, b in itertools.pairwise(places)], ending="eof")
    assert seen == Wire().play([data], ending="eof")
    assert seen.end == ("truncated" if lost else "end")
    assert b"".join(chunks).startswith(seen.body)
    assert lost or seen.body == b"".join(chunks)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(CASES)),
    place=st.integers(0, 400),
    noise=st.binary(max_size=6),
    cut=st.integers(0, 400),
)
async def test_damaged_bytes_mean_the_same_in_two_pieces(
    name: str, place: int, noise: bytes, cut: int
) -> None:
    """Whatever it is: no crash, and no dependence on how it was cut (but for what follows a whole
    answer, which only counts when it is there in time)."""
    data, ending, _ = CASES[name]
    data = data[:place] + noise + data[place + len(noise) :]
    whole = Wire().play([data], ending=ending)
    parts = Wire().play([data[:cut], data[cut:]], ending=ending)
    parts.reusable = whole.reusable = False
    assert parts == whole


@pytest.mark.parametrize(
    ("head", "reusable"),
    [(OK + TWO[:-2], False), (CHUNKED, False), (OK + b"\r\n", False)],
)
async def test_the_answer_to_head_ends_with_its_head(head: bytes, reusable: bool) -> None:
    seen = Wire().play([head], head_only=True)
    assert (seen.status, seen.body, seen.end, seen.delimited) == (200, b"", "end", True)
    assert seen.reusable is reusable


@pytest.mark.parametrize("later", [b"H", b"\r\n", b"HTTP/1.1 408 Timeout\r\n\r\n"])
async def test_bytes_that_nobody_asked_for(later: bytes) -> None:
    wire = Wire()
    assert wire.play([OK + TWO]).reusable
    wire.feed(later)
    assert wire.line.is_aborted()
    assert wire.house.dropped_total == 1


# Limits.


def _lines(total_bytes: int, each_bytes: int = 1024) -> bytes:
    line = b"x: " + b"y" * (each_bytes - 5) + b"\r\n"
    return line * (total_bytes // each_bytes)


@pytest.mark.parametrize("step", [1 << 20, 1000])
@pytest.mark.parametrize(
    ("head", "passes"),
    [
        (_lines(HEAD_MAX_BYTES - 2048), True),
        (_lines(HEAD_MAX_BYTES + 2048), False),
        (b"x: y\r\n" * (HEADERS_MAX_COUNT - 1), True),
        (b"x: y\r\n" * (HEADERS_MAX_COUNT + 1), False),
        (b"x: " + b"y" * (2 * HEAD_MAX_BYTES) + b"\r\n", False),
        (b"y" * (2 * HEAD_MAX_BYTES), False),
    ],
)
async def test_heads_are_bounded(head: bytes, passes: bool, step: int) -> None:
    data = OK + head + TWO
    seen = Wire().play([data[at : at + step] for at in range(0, len(data), step)])
    assert seen.end == ("end" if passes else "upstream_protocol_error")


@pytest.mark.parametrize("step", [1 << 20, 1000])
async def test_interim_answers_are_bounded(step: int) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    for count, end in ((INTERIM_MAX_COUNT, "end"), (INTERIM_MAX_COUNT + 1, BAD.end)):
        data = interim * count + OK + TWO
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        assert Wire().play(pieces).end == end


@pytest.mark.parametrize(
    "endless",
    [
        b"x: y\r\n" * 10_000,
        b"x: " + b"y" * 2 * BETWEEN_MAX_BYTES,
        b"y" * 2 * BETWEEN_MAX_BYTES,
    ],
)
async def test_trailers_are_bounded(endless: bytes) -> None:
    wire = Wire()
    seen = wire.play([CHUNKED + b"2\r\nhi\r\n0\r\n", endless])
    assert (seen.body, seen.end) == (b"hi", "protocol")
    assert wire.line.is_aborted()


async def test_chunk_extensions_are_bounded() -> None:
    seen = Wire().play([CHUNKED + b"2\r\nhi\r\n2;", b"x" * 3 * BETWEEN_MAX_BYTES])
    assert (seen.body, seen.end) == (b"hi", "protocol")
    patient = CHUNKED + (b"1;" + b"x" * 1000 + b"\r\ny\r\n") * 200 + b"0\r\n\r\n"
    assert Wire().play([patient]).end == "end"


def test_the_limits_are_those_of_the_house() -> None:
    ours = (HEAD_MAX_BYTES, HEADERS_MAX_COUNT)
    assert ours == (headers.HEADERS_MAX_BYTES, headers.HEADERS_MAX_COUNT)
