"""One connection to a provider: a request out, httptools over what comes back, no tasks.

An exchange goes: `begin` writes the request and gives a future of the answer's head; pieces of the
body go into the `Answer` as they arrive; when its message is complete the connection returns to its
pool. Everything irregular ends the connection, never only the exchange:

* cancelled, timed out, malformed, cut short, answered before the request was sent whole;
* bytes after the end of an answer, or while no request is open: they would be read as the answer
  to somebody else's request;
* a message that only the end of the connection delimits, HEAD, ``Connection: close``, HTTP/1.0
  without keep-alive.

httptools (llhttp) is strict about framing: both lengths, two lengths, folded lines, bare CR or LF,
control characters. What it does not bound is bounded here: bytes and lines of the head, interim
answers, and whatever is not body after the head (chunk extensions, trailers).

A request body is handed over in steps while the socket takes it, and let go when it is out.
"""

from __future__ import annotations

import asyncio
import select
from typing import Protocol, cast

import httptools

from lava_proxy.core.errors import LavaError
from lava_proxy.net.http1.answer import NEVER_S, Answer

HEAD_MAX_BYTES = 64 * 1024
HEADERS_MAX_COUNT = 256
INTERIM_MAX_COUNT = 100
BETWEEN_MAX_BYTES = 64 * 1024
"""Bytes without any body in them, after the head: chunk extensions and trailers."""
READ_MAX_BYTES = 32 * 1024
"""One read of the socket: with `HIGH_WATER_BYTES` it bounds what a stream holds in memory."""
STEP_BYTES = 64 * 1024
JOINED_MAX_BYTES = 64 * 1024
"""Up to here head and body are one write; larger bodies are not copied."""

_LINE_BYTES = len(": \r\n")
_NO_BODY = frozenset({204, 304})
_STATUS_MAX = 599
_STALE = select.POLLIN | getattr(select, "POLLRDHUP", 0)

CLOSED_EARLY = "the provider closed the connection before it answered"


class House(Protocol):
    """What a connection tells its pool."""

    def released(self, connection: Connection) -> None: ...

    def dropped(self, connection: Connection) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """The client's side of one connection; at most one exchange at a time."""

    def __init__(
        self, house: House, loop: asyncio.AbstractEventLoop, *, first_byte_s: float, idle_s: float
    ) -> None:
        self.loop = loop
        self.deadline_s = NEVER_S
        """When the provider is late, by the loop's clock; the pool's sweep looks at it."""
        self.idle_since_s = 0.0
        self.gone = loop.create_future()
        """Done when the socket is closed."""
        self._house = house
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._buffer = memoryview(bytearray(READ_MAX_BYTES))
        self._parser = httptools.HttpResponseParser(self)
        # Some servers pad the size of a chunk with spaces; what it means is beyond doubt.
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        self._readable = select.poll()
        self._writing_paused = False
        self._waiter: asyncio.Future[Answer] | None = None
        self._answer: Answer | None = None
        self._rest: memoryview | None = None
        self._open = False
        self._start(head_only=False)

    def _start(self, *, head_only: bool) -> None:
        """Ready for the next answer."""
        self._head_only = head_only
        self._head_bytes = 0
        self._interims = 0
        self._trailers = 0
        self._between_bytes = 0
        self._has_body = False
        self._complete = False
        self._keep = False
        self._clear_head()

    def _clear_head(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._content_type = ""
        self._delimited = False
        self._chunked = False

    # The pool's and the caller's side.

    @property
    def is_open(self) -> bool:
        """Not closed, as far as the loop knows."""
        return self._open

    @property
    def usable(self) -> bool:
        """Open, and nothing has come since the last answer: no byte, no end (asked of the kernel,
        which may know more than the loop)."""
        return self._open and not self._readable.poll(0)

    def begin(self, head: bytes, body: bytes, *, head_only: bool) -> asyncio.Future[Answer]:
        """Write a request; the future gives the answer's head or raises `LavaError`. Whoever stops
        waiting for it calls `abandon`."""
        self._start(head_only=head_only)
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

    def abandon(self, waiter: asyncio.Future[Answer]) -> None:
        """End the exchange that `begin` gave this future for, and no other one."""
        if waiter.done() and not waiter.cancelled():
            if waiter.exception() is None:
                waiter.result().close()
        elif waiter is self._waiter:
            self.abort()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._drop()
        self._transport.abort()

    def resume(self) -> None:
        """The reader has taken what there was."""
        if self._open:
            self._transport.resume_reading()

    def expire(self) -> None:
        """The provider is late."""
        self._fail("upstream_timeout", "idle")

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), _STALE)
        self._open = True

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._answer is None and self._waiter is None:
            self.abort()  # nobody asked
            return
        malformed = False
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except httptools.HttpParserError:
            malformed, self._keep = True, False
        answer = self._answer
        if answer is None:
            self._head_bytes += nbytes
            if malformed or self._head_bytes > HEAD_MAX_BYTES:
                self._fail("upstream_protocol_error", "protocol")
        elif self._complete:
            self._end(answer)
        else:
            self._advance(answer, nbytes)
            if malformed or self._between_bytes > BETWEEN_MAX_BYTES:
                self._fail("upstream_protocol_error", "protocol")

    def eof_received(self) -> None:
        answer = self._answer
        if answer is not None and not self._delimited:
            self._keep = False
            self._end(answer)
        else:
            self._fail("upstream_unreachable", "truncated")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.eof_received()
        else:
            self._fail("upstream_unreachable", "truncated")
        if not self.gone.done():
            self.gone.set_result(None)
        del self._parser  # it holds our methods

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._rest is not None:
            self._push()

    # The parser's side. An exception here ends the parse: the message is malformed.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is not None:
            self._trailers += 1
            if self._trailers > HEADERS_MAX_COUNT:
                raise ValueError("too many trailers")
            return
        name = name.lower()
        value = value.rstrip(b" \t")
        self._headers.append((name, value))
        if name == b"content-type":
            self._content_type = self._content_type or value.decode("latin-1")
        elif name == b"content-length":
            self._delimited = True
        elif name == b"transfer-encoding":
            if self._chunked or value.lower() != b"chunked":
                raise ValueError("a coding that nobody asked for")
            self._chunked = self._delimited = True

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self._headers
        if len(headers) > HEADERS_MAX_COUNT or self._is_long():
            raise ValueError("too long a head")
        if not 200 <= status <= _STATUS_MAX:
            self._interim(status)
            return
        if self._head_only or status in _NO_BODY:
            self._delimited = True
        self._answer = Answer(
            self,
            status,
            headers,
            content_type=self._content_type,
            delimited=self._delimited,
            idle_s=self._idle_s,
        )
        self._keep = self._may_keep()
        self._complete = self._head_only
        self._rest = None  # an answer before all is sent: the provider has read enough
        self.deadline_s = NEVER_S

    def on_body(self, piece: bytes) -> None:
        answer = self._answer
        if answer is None or self._complete:
            raise ValueError("a body where none belongs")
        self._has_body = True
        answer.put(piece)

    def on_message_complete(self) -> None:
        self._complete = self._answer is not None

    # Inside.

    def _is_long(self) -> bool:
        if self._head_bytes <= HEAD_MAX_BYTES - READ_MAX_BYTES:
            return False
        lengths = [len(name) + len(value) + _LINE_BYTES for name, value in self._headers]
        return sum(lengths) > HEAD_MAX_BYTES

    def _interim(self, status: int) -> None:
        self._interims += 1
        switching = status == 101
        if not 100 <= status < 200 or switching or self._interims > INTERIM_MAX_COUNT:
            raise ValueError("an answer that nobody asked for")
        self._clear_head()

    def _may_keep(self) -> bool:
        """Whether another request may follow this one."""
        if self._head_only or self._rest is not None or not self._parser.should_keep_alive():
            return False
        return not self._chunked or self._parser.get_http_version() == "1.1"

    def _hand_over(self, answer: Answer) -> bool:
        """Give the head to whoever waits for it; False when nobody does any more."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return True
        if waiter.done():
            return False
        waiter.set_result(answer)
        return True

    def _advance(self, answer: Answer, nbytes: int) -> None:
        """Some of the answer is here, and more will come."""
        self._between_bytes = 0 if self._has_body else self._between_bytes + nbytes
        self._has_body = False
        if not self._hand_over(answer):
            self.abort()
        elif answer.arrived():
            self._transport.pause_reading()

    def _end(self, answer: Answer) -> None:
        """All of the answer is here."""
        self._answer = None
        self.deadline_s = NEVER_S
        self._hand_over(answer)
        answer.finished()
        if self._keep and not self._transport.get_write_buffer_size():
            self._house.released(self)
        else:
            self.abort()

    def _fail(self, code: str, reason: str) -> None:
        """Tell whoever waits, and close."""
        waiter, answer = self._waiter, self._answer
        self.abort()
        if waiter is not None:
            if not waiter.done():
                closed = CLOSED_EARLY if code == "upstream_unreachable" else None
                waiter.set_exception(LavaError(code, closed))
        elif answer is not None:
            answer.broke_off(reason)

    def _drop(self) -> None:
        self._open = False
        self._waiter = self._answer = self._rest = None
        self.deadline_s = NEVER_S
        self._house.dropped(self)

    def _push(self) -> None:
        """Hand over the next steps of the request's body, until the socket is full."""
        while (rest := self._rest) is not None and not self._writing_paused:
            self._rest = rest[STEP_BYTES:] if len(rest) > STEP_BYTES else None
            self._transport.write(rest[:STEP_BYTES])
        self.deadline_s = self.loop.time() + self._first_byte_s
