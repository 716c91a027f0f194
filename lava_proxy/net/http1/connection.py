"""One connection to a provider: a request out, an answer in, no tasks.

An exchange goes: `begin` writes the request and gives a future of the answer's head; pieces of the
body go into the `Answer` as they arrive; when its message is complete the connection returns to its
pool. Everything irregular ends the connection, never only the exchange: cancelled, timed out,
malformed, cut short, answered before the request was sent whole; bytes after the end of an answer,
or while no request is open.

A request's body is handed over in steps while the socket takes it, and let go when it is out; or it
follows in pieces (`begin_upload`), each when there is room, and time counts against the provider
only while there is none. A read is bounded by a buffer that all connections share (a protocol of
the other kind gets up to 256 KB at a time): what is above `HIGH_WATER_BYTES` is no more than that.
"""

from __future__ import annotations

import asyncio
import select
from typing import Protocol, cast

from lava_proxy.core.errors import LavaError
from lava_proxy.core.readbuffer import read_buffer
from lava_proxy.net.http1.answer import NEVER_S, Answer
from lava_proxy.net.http1.reply import Reply

READ_MAX_BYTES = 32 * 1024
STEP_BYTES = 64 * 1024
JOINED_MAX_BYTES = 64 * 1024
"""Up to here head and body are one write; larger bodies are not copied."""

_STALE = select.POLLIN | getattr(select, "POLLRDHUP", 0)

CLOSED_EARLY = "the provider closed the connection before it answered"


class House(Protocol):
    """What a connection tells its pool."""

    def released(self, connection: Connection) -> None: ...

    def dropped(self, connection: Connection) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """The client's side of one connection; at most one exchange at a time."""

    __slots__ = (
        "_buffer",
        "_busy",
        "_first_byte_s",
        "_house",
        "_more",
        "_readable",
        "_reading_paused",
        "_reply",
        "_rest",
        "_room",
        "_transport",
        "_unsent",
        "_waiter",
        "_writing_paused",
        "deadline_s",
        "gone",
        "idle_since_s",
        "is_open",
        "loop",
    )

    def __init__(
        self, house: House, loop: asyncio.AbstractEventLoop, *, first_byte_s: float, idle_s: float
    ) -> None:
        self.loop = loop
        self.deadline_s = NEVER_S
        """When the provider is late, by the loop's clock; the pool's sweep looks at it."""
        self.idle_since_s = 0.0
        self.is_open = False
        """Not closed, as far as the loop knows."""
        self.gone = loop.create_future()
        """Done when the socket is closed."""
        self._house = house
        self._first_byte_s = first_byte_s
        self._buffer = read_buffer()[:READ_MAX_BYTES]
        self._reply = Reply(self, idle_s)
        self._readable = select.poll()
        self._busy = False
        self._waiter: asyncio.Future[Answer] | None = None
        self._rest: memoryview | None = None
        self._more = False
        """More of the request's body follows, from the caller."""
        self._room: asyncio.Future[None] | None = None
        self._unsent = False
        self._writing_paused = False
        self._reading_paused = False

    # The pool's and the caller's side.

    @property
    def usable(self) -> bool:
        """Open, and nothing has come since the last answer: no byte, no end (asked of the kernel,
        which may know more than the loop)."""
        return self.is_open and not self._readable.poll(0)

    def begin(self, head: bytes, body: bytes, *, head_only: bool) -> asyncio.Future[Answer]:
        """Write a request; the future gives the answer's head or raises `LavaError`. Whoever stops
        waiting for it calls `abandon`."""
        self._reply.start(head_only=head_only)
        self._busy = True
        self._unsent = False
        waiter: asyncio.Future[Answer] = self.loop.create_future()
        self._waiter = waiter
        self.deadline_s = self.loop.time() + self._first_byte_s
        if len(body) <= JOINED_MAX_BYTES:
            self._transport.write(head + body if body else head)
        else:
            self._transport.write(head)
            self._rest = memoryview(body)
            self._push()
        return waiter

    def begin_upload(self, head: bytes) -> asyncio.Future[Answer]:
        """The same for a request whose body follows: `more` gives its pieces."""
        waiter = self.begin(head, b"", head_only=False)
        self._more = True
        self.deadline_s = NEVER_S
        return waiter

    def more(self, parts: list[bytes], *, last: bool) -> None:
        """Write a piece of the request's body, with `last` the last one. Not after the answer's
        head has come."""
        self._transport.writelines(parts)
        if last:
            self._more = False
            self.deadline_s = self.loop.time() + self._first_byte_s

    async def room(self) -> None:
        """Wait until the socket takes more of an upload, or the exchange has gone on or ended."""
        if not self._writing_paused or not self._more:
            return
        self.deadline_s = self.loop.time() + self._first_byte_s
        self._room = self.loop.create_future()
        try:
            await self._room
        finally:
            self._room = None
            if self._more:
                self.deadline_s = NEVER_S

    def abandon(self, waiter: asyncio.Future[Answer]) -> None:
        """End the exchange that `begin` gave this future for, and no other one."""
        if waiter is self._waiter:
            self.abort()
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().close()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self.is_open = self._busy = self._more = False
        self._waiter = self._rest = None
        self._make_room()
        self.deadline_s = NEVER_S
        self._house.dropped(self)
        self._transport.abort()

    def resume(self) -> None:
        """The reader has taken what there was."""
        if self._reading_paused and self.is_open:
            self._reading_paused = False
            self._transport.resume_reading()

    def expire(self) -> None:
        """The provider is late."""
        self._fail(LavaError("upstream_timeout"), "idle")

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), _STALE)
        self.is_open = True

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._busy:
            self.abort()
            return
        reply = self._reply
        reply.feed(self._buffer[:nbytes])
        answer = reply.answer
        if answer is not None and self._waiter is not None and not self._answered(answer):
            return
        if answer is not None and reply.complete:
            self._end(answer)
        elif reply.broken:
            self._fail(LavaError("upstream_protocol_error"), "protocol")
        elif answer is not None and answer.arrived():
            self._reading_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        answer = self._reply.answer
        if self._busy and answer is not None and not answer.delimited:
            self._end(answer)
        else:
            self._fail(LavaError("upstream_unreachable", CLOSED_EARLY), "truncated")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.eof_received()
        else:
            self._fail(LavaError("upstream_unreachable", CLOSED_EARLY), "truncated")
        if not self.gone.done():
            self.gone.set_result(None)
        self._reply.release()
        del self._reply

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._make_room()
        if self._rest is not None:
            self._push()

    # Inside.

    def _answered(self, answer: Answer) -> bool:
        """The head is here: give it to whoever waits. False when nobody does any more."""
        waiter, self._waiter = self._waiter, None
        self.deadline_s = NEVER_S
        if self._rest is not None or self._more:
            self._rest, self._more = None, False  # the provider has read enough to answer
            self._unsent = True
            self._make_room()
        if waiter is None or waiter.done():
            answer.close()  # cancelled in this very turn
            return False
        waiter.set_result(answer)
        return True

    def _end(self, answer: Answer) -> None:
        """All of the answer is here."""
        self._busy = False
        self.deadline_s = NEVER_S
        answer.finished()
        sent = not self._unsent and not self._transport.get_write_buffer_size()
        if self._reply.keep and sent:
            self.resume()
            self._house.released(self)
        else:
            self.abort()

    def _fail(self, error: LavaError, reason: str) -> None:
        """Tell whoever waits, and close."""
        waiter, answer = self._waiter, self._reply.answer
        busy = self._busy
        self.abort()
        if waiter is not None:
            if not waiter.done():
                waiter.set_exception(error)
        elif busy and answer is not None:
            answer.broke_off(reason)

    def _make_room(self) -> None:
        """Let the caller of an upload go on, to write or to see what has come of it."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _push(self) -> None:
        """Hand over the next steps of the request's body, until the socket is full."""
        while (rest := self._rest) is not None and not self._writing_paused:
            self._rest = rest[STEP_BYTES:] if len(rest) > STEP_BYTES else None
            self._transport.write(rest[:STEP_BYTES])
        self.deadline_s = self.loop.time() + self._first_byte_s
