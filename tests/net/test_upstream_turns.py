"""One connection, turn by turn: who is told what, who has given up, and what is still unsent."""

from __future__ import annotations

import asyncio

import pytest
from upstream_cases import TWO
from upstream_kit import CHUNKED, OK, Wire, taken

from lava_proxy.core.errors import LavaError
from lava_proxy.net.http1.answer import HIGH_WATER_BYTES, NEVER_S
from lava_proxy.net.http1.connection import READ_MAX_BYTES


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
    before = answer.at_end
    assert await answer.read() == b"hi"
    assert (before, answer.at_end) == (False, True)
    assert await answer.read() == b""


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
