"""What bytes of an answer mean: framings, endings, limits; the same however they are cut."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upstream_kit import CHUNKED, OK, Outcome, Wire, taken

from lava_proxy.core.errors import LavaError
from lava_proxy.net.http1.answer import HIGH_WATER_BYTES, NEVER_S
from lava_proxy.net.http1.connection import READ_MAX_BYTES
from lava_proxy.net.http1.reply import (
    BETWEEN_MAX_BYTES,
    HEAD_MAX_BYTES,
    HEADERS_MAX_COUNT,
    INTERIM_MAX_COUNT,
)
from lava_proxy.wire import headers

TWO = b"content-length: 2\r\n\r\nhi"
LENGTH = (b"content-length", b"2")
TE = (b"transfer-encoding", b"chunked")
BAD = Outcome(end="upstream_protocol_error")

Case = tuple[bytes, str, Outcome]

CASES: dict[str, Case] = {
    "length": (OK + TWO, "", Outcome(200, [LENGTH], b"hi", "end", reusable=True)),
    "length, then the end": (OK + TWO, "eof", Outcome(200, [LENGTH], b"hi", "end", reusable=False)),
    "length 0": (
        OK + b"Content-Length: 0\r\n\r\n",
        "",
        Outcome(200, [(b"content-length", b"0")], b"", "end", reusable=True),
    ),
    "no reason": (
        b"HTTP/1.1 200\r\n" + TWO,
        "",
        Outcome(200, [LENGTH], b"hi", "end", reusable=True),
    ),
    "spaces around values": (
        OK + b"A: \t b c \t\r\nContent-Length:2  \r\n\r\nhi",
        "",
        Outcome(200, [(b"a", b"b c"), LENGTH], b"hi", "end", reusable=True),
    ),
    "names in any case, repeated, empty, high bytes": (
        OK + b"X-A: 1\r\nx-a:\r\nX-B: caf\xe9\r\n" + TWO,
        "",
        Outcome(
            200,
            [(b"x-a", b"1"), (b"x-a", b""), (b"x-b", b"caf\xe9"), LENGTH],
            b"hi",
            "end",
            reusable=True,
        ),
    ),
    "chunked": (
        CHUNKED + b"2\r\nhi\r\n3;x=y\r\n\r\n!\r\n0\r\n\r\n",
        "",
        Outcome(200, [TE], b"hi\r\n!", "end", reusable=True),
    ),
    "chunk sizes with leading zeros, spaces behind, any case": (
        OK + b"Transfer-Encoding: Chunked\r\n\r\n0002  \r\nhi\r\nA\r\n0123456789\r\n000\r\n\r\n",
        "",
        Outcome(200, [(TE[0], b"Chunked")], b"hi0123456789", "end", reusable=True),
    ),
    "trailers are dropped": (
        CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nConnection: close\r\n\r\n",
        "",
        Outcome(200, [TE], b"hi", "end", reusable=True),
    ),
    "the connection's end is the body's": (
        OK + b"a: b\r\n\r\nhi",
        "eof",
        Outcome(200, [(b"a", b"b")], b"hi", "end", delimited=False),
    ),
    "and its reset is not": (
        OK + b"a: b\r\n\r\nhi",
        "reset",
        Outcome(200, [(b"a", b"b")], b"hi", "truncated", delimited=False),
    ),
    "neither, yet": (OK + b"\r\nhi", "", Outcome(200, [], b"hi", "open", delimited=False)),
    "connection: close": (
        OK + b"Connection: close\r\n" + TWO,
        "",
        Outcome(200, [(b"connection", b"close"), LENGTH], b"hi", "end", reusable=False),
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + TWO, "", Outcome(200, [LENGTH], b"hi", "end")),
    "HTTP/1.0 with keep-alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + TWO,
        "",
        Outcome(200, [(b"connection", b"keep-alive"), LENGTH], b"hi", "end", reusable=True),
    ),
    "HTTP/1.0 with chunks": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "",
        Outcome(200, [(b"connection", b"keep-alive"), TE], b"", "end", reusable=False),
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "", Outcome(204, [], b"", "end", reusable=True)),
    "304 with a length": (
        b"HTTP/1.1 304 Not Modified\r\n" + TWO[:-2],
        "",
        Outcome(304, [LENGTH], b"", "end", reusable=True),
    ),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nContent-Type: x\r\nLink: y\r\n\r\n"
        + OK
        + TWO,
        "",
        Outcome(200, [LENGTH], b"hi", "end", reusable=True),
    ),
    "an upgrade that was only offered": (
        b"HTTP/1.1 426 Upgrade\r\nUpgrade: h2c\r\nConnection: upgrade\r\n" + TWO,
        "",
        Outcome(
            426,
            [(b"upgrade", b"h2c"), (b"connection", b"upgrade"), LENGTH],
            b"hi",
            "end",
            reusable=True,
        ),
    ),
    "more than the answer": (OK + TWO + b"H", "", Outcome(200, [LENGTH], b"hi", "end")),
    "a second answer": (
        OK + TWO + b"HTTP/1.1 500 No\r\ncontent-length: 1\r\n\r\nx",
        "",
        Outcome(200, [LENGTH], b"hi", "end"),
    ),
    "a body on 204": (
        b"HTTP/1.1 204 No\r\n" + TWO,
        "",
        Outcome(204, [LENGTH], b"", "end"),
    ),
    # Broken off.
    "nothing": (b"", "eof", Outcome(end="upstream_unreachable")),
    "half a head": (OK + b"a: b\r\n", "eof", Outcome(end="upstream_unreachable")),
    "reset in the head": (OK + b"a: b\r\n", "reset", Outcome(end="upstream_unreachable")),
    "only an interim answer": (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        "eof",
        Outcome(end="upstream_unreachable"),
    ),
    "short of its length": (
        OK + b"content-length: 3\r\n\r\nhi",
        "eof",
        Outcome(200, [(b"content-length", b"3")], b"hi", "truncated"),
    ),
    "no last chunk": (
        CHUNKED + b"2\r\nhi\r\n",
        "eof",
        Outcome(200, [TE], b"hi", "truncated"),
    ),
    "half a last chunk": (
        CHUNKED + b"2\r\nhi\r\n0\r\n",
        "eof",
        Outcome(200, [TE], b"hi", "truncated"),
    ),
    "half a chunk, reset": (CHUNKED + b"5\r\nhi", "reset", Outcome(200, [TE], b"hi", "truncated")),
    # Malformed.
    "not HTTP": (b"SSH-2.0-OpenSSH_9\r\n", "", BAD),
    "HTTP/0.9": (b"<html>hello</html>", "", BAD),
    "LF only": (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi", "", BAD),
    "folded": (OK + b"a: b\r\n c\r\n" + TWO, "", BAD),
    "folded coding": (OK + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "", BAD),
    "bare CR": (OK + b"a: b\rc\r\n" + TWO, "", BAD),
    "NUL": (OK + b"a: b\0c\r\n" + TWO, "", BAD),
    "space before the colon": (OK + b"content-length : 2\r\n\r\nhi", "", BAD),
    "no name": (OK + b": x\r\n" + TWO, "", BAD),
    "both framings": (OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n", "", BAD),
    "both, turned": (OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n", "", BAD),
    "two lengths": (OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi", "", BAD),
    "two equal lengths": (OK + b"content-length: 2\r\n" + TWO, "", BAD),
    "a list of lengths": (OK + b"content-length: 2, 2\r\n\r\nhi", "", BAD),
    "negative length": (OK + b"content-length: -2\r\n\r\nhi", "", BAD),
    "length over 64 bits": (OK + b"content-length: 99999999999999999999\r\n\r\n", "", BAD),
    "another coding": (OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "", BAD),
    "another coding, its own line": (
        OK + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "",
        BAD,
    ),
    "chunked twice": (
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "",
        BAD,
    ),
    "identity": (OK + b"transfer-encoding: identity\r\n\r\nhi", "", BAD),
    "switching protocols": (
        b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhi",
        "",
        BAD,
    ),
    "status 99": (b"HTTP/1.1 099 X\r\n" + TWO, "", BAD),
    "status 600": (b"HTTP/1.1 600 X\r\n" + TWO, "", BAD),
    "status of two digits": (b"HTTP/1.1 20 X\r\n" + TWO, "", BAD),
    "bad chunk size": (CHUNKED + b"2\r\nhi\r\nzz\r\n", "", Outcome(200, [TE], b"hi", "protocol")),
    "chunk size 0x": (CHUNKED + b"0x2\r\nhi\r\n", "", Outcome(200, [TE], b"", "protocol")),
    "chunk size over 64 bits": (
        CHUNKED + b"f" * 17 + b"\r\nhi",
        "",
        Outcome(200, [TE], b"", "protocol"),
    ),
    "more than the chunk": (CHUNKED + b"2\r\nhiX\r\n", "", Outcome(200, [TE], b"hi", "protocol")),
    "LF behind a chunk": (CHUNKED + b"2\r\nhi\n", "", Outcome(200, [TE], b"hi", "protocol")),
}


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


async def test_an_unread_answer_stops_the_socket() -> None:
    wire = Wire()
    waiter = wire.connection.begin(b"", b"", head_only=False)
    wire.feed(OK + b"content-length: 1000000\r\n\r\n")
    fed = 0
    while wire.line.is_reading():
        wire.feed(b"x" * READ_MAX_BYTES)
        fed += READ_MAX_BYTES
    assert HIGH_WATER_BYTES < fed <= HIGH_WATER_BYTES + READ_MAX_BYTES
    answer = waiter.result()
    assert len(await answer.read()) == fed
    assert wire.line.is_reading()
    answer.close()
    assert wire.line.is_aborted()


async def test_a_reader_is_woken_for_bytes_not_for_framing() -> None:
    wire = Wire()
    waiter = wire.connection.begin(b"", b"", head_only=False)
    wire.feed(CHUNKED)
    reading = waiter.result().read()
    reading.send(None)
    waiting = waiter.result()._waiter
    assert waiting is not None
    assert wire.connection.deadline_s < NEVER_S
    wire.feed(b"5\r\n")
    assert [waiting.done()] == [False]
    wire.feed(b"hel")
    assert [waiting.done()] == [True]
    assert wire.connection.deadline_s == NEVER_S
    reading.close()


async def test_content_type_is_the_first_one() -> None:
    wire = Wire()
    waiter = wire.connection.begin(b"", b"", head_only=False)
    wire.feed(OK + b"Content-Type: text/event-stream\r\ncontent-type: x\r\n" + TWO)
    assert waiter.result().content_type == "text/event-stream"


async def test_a_reader_is_told_of_the_end_together_with_the_last_piece() -> None:
    wire = Wire()
    waiter = wire.connection.begin(b"", b"", head_only=False)
    wire.feed(CHUNKED + b"2\r\nhi\r\n0\r\n\r\n")
    answer = waiter.result()
    assert not answer.at_end
    assert await answer.read() == b"hi"
    assert answer.at_end
    assert await answer.read() == b""


def test_the_limits_are_those_of_the_house() -> None:
    ours = (HEAD_MAX_BYTES, HEADERS_MAX_COUNT)
    assert ours == (headers.HEADERS_MAX_BYTES, headers.HEADERS_MAX_COUNT)


# Giving up, to the turn.


async def test_cancelled_in_the_turn_in_which_the_head_comes() -> None:
    wire = Wire()
    waiter = wire.connection.begin(b"", b"", head_only=False)
    waiter.cancel()
    wire.feed(CHUNKED + b"2\r\nhi\r\n")
    assert wire.line.is_aborted()
    wire.connection.abandon(waiter)
    assert wire.house.released_total == 0


@pytest.mark.parametrize("data", [OK + TWO, CHUNKED + b"2\r\nhi\r\n"])
async def test_cancelled_after_the_head_was_handed_over(data: bytes) -> None:
    """A whole answer leaves its connection fit for use; half of one does not."""
    wire = Wire()
    waiter = wire.connection.begin(b"", b"", head_only=False)
    wire.feed(data)
    wire.connection.abandon(waiter)
    whole = data.startswith(OK + TWO)
    assert (wire.house.released_total, wire.line.is_aborted()) == (int(whole), not whole)


async def test_giving_up_late_harms_nobody_else() -> None:
    """The first exchange is over, and the connection serves another one."""
    wire = Wire()
    first = wire.connection.begin(b"", b"", head_only=False)
    wire.feed(OK + TWO)
    second = wire.connection.begin(b"", b"", head_only=False)
    wire.connection.abandon(first)
    first.result().close()
    wire.feed(OK + TWO)
    assert not wire.line.is_aborted()
    assert await second.result().read() == b"hi"
    assert wire.house.released_total == 2


async def test_an_exchange_that_failed_can_be_given_up() -> None:
    wire = Wire()
    waiter = wire.connection.begin(b"", b"", head_only=False)
    wire.connection.expire()
    wire.connection.abandon(waiter)
    assert wire.house.dropped_total >= 1
    assert isinstance(waiter.exception(), LavaError)


async def test_a_paused_connection_reads_again_for_the_next_one() -> None:
    """A transport that delivers what it had read before it was paused must not leave it so."""
    wire = Wire()
    size = HIGH_WATER_BYTES + READ_MAX_BYTES
    waiter = wire.connection.begin(b"", b"", head_only=False)
    wire.feed(OK + b"content-length: %d\r\n\r\n" % size + b"x" * (size - 1))
    assert wire.line.calls[-1] == "pause"
    wire.feed(b"x")
    assert wire.line.calls[-1] == "resume"
    assert wire.house.released_total == 1
    assert len(await waiter.result().read()) == size


# A request larger than the socket takes at once.


async def test_a_large_body_waits_for_the_socket() -> None:
    wire = Wire()
    body = bytes(range(256)) * 1024
    wire.connection.pause_writing()
    wire.connection.begin(b"head ", body, head_only=False)
    assert wire.line.sent == b"head "
    wire.connection.deadline_s = 0.0
    wire.connection.resume_writing()
    assert wire.line.sent == b"head " + body
    assert wire.connection.deadline_s > asyncio.get_running_loop().time()


async def test_an_answer_ends_the_sending_of_its_request() -> None:
    wire = Wire()
    wire.connection.pause_writing()
    waiter = wire.connection.begin(b"head ", b"x" * 200_000, head_only=False)
    wire.feed(OK + b"content-length: 4\r\n\r\nhi")
    wire.connection.resume_writing()
    assert wire.line.sent == b"head "
    wire.feed(b"!!")
    assert taken(waiter.result()) == (b"hi!!", "end")
    assert wire.line.is_aborted()
    assert wire.house.released_total == 0


async def test_a_request_that_is_still_in_the_transport_ends_the_connection() -> None:
    wire = Wire()
    wire.connection.begin(b"head ", b"body", head_only=False)
    wire.line.unsent_bytes = 1
    wire.feed(OK + TWO)
    assert wire.line.is_aborted()
    assert wire.house.released_total == 0
