"""One request on a connection of the server, and its answer: the ASGI side of `cli/protocol.py`.

The head of an answer waits for what follows it in the same turn of the event loop, and goes out
with it as one write; alone it goes out at the turn's end.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

log = logging.getLogger("uvicorn.error")

Message = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

JOINED_MAX_BYTES = 64 * 1024
"""Larger pieces are not copied to frame them."""

_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in http.HTTPStatus
}
_WITHOUT_BODY = frozenset({204, 304})
_CONTROLS = bytes({*range(32), 127} - {9})
_NOT_IN_NAMES = bytes({*range(33), 127, *b'()<>@,;:\\[]={}"'})


class Connection(Protocol):
    """What a cycle needs of its connection."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    write_paused: bool

    def answered(self, cycle: Cycle) -> None: ...

    def resume(self) -> None: ...

    async def drain(self) -> None: ...


class Cycle:
    """One request and its answer."""

    __slots__ = (
        "_body", "_chunked", "_connection", "_event", "_flush", "_gone", "_head", "_left", "_news",
        "_scope", "_wants_continue", "complete", "keep_alive", "started", "whole",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, scope: Message, keep_alive: bool, wants_continue: bool
    ) -> None:
        self.keep_alive = keep_alive
        self.started = False
        """The answer has begun."""
        self.complete = False
        """The answer has ended."""
        self.whole = False
        """All of the request is here."""
        self._connection = connection
        self._scope = scope
        self._wants_continue = wants_continue
        self._gone = False
        self._body = b""
        self._news = False
        """There is something that `receive` has not told."""
        self._event: asyncio.Event | None = None
        self._head = b""
        self._flush: asyncio.Handle | None = None
        self._chunked = False
        self._left = 0
        """What is still to come of an answer that said how long it is."""

    # The connection's side.

    def take(self, body: bytes) -> int:
        """More of the request; answers how much of it nobody has asked for yet."""
        if self.complete:
            return 0
        self._body = self._body + body if self._body else body
        self._wake()
        return len(self._body)

    def take_last(self) -> None:
        """That was all of it."""
        self.whole = True
        self._wake()

    def leave(self) -> None:
        """The client is gone."""
        if not self.complete:
            self._gone = True
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._wake()

    async def run(self, app: App) -> None:
        """Answer the request."""
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:  # the server ends now: no error of the application's
            self._break_off()
        except BaseException as error:
            log.error("Exception in ASGI application\n", exc_info=error)
            self._break_off()
        else:
            if not self.complete and not self._gone:
                log.error("ASGI callable returned without completing response.")
                self._break_off()

    # The application's side.

    async def receive(self) -> Message:
        """The next of the request, or that the client is gone."""
        if self._wants_continue:
            self._wants_continue = False
            if not (self.started or self._connection.transport.is_closing()):
                self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not (self._news or self._gone or self.complete):
            self._connection.resume()
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
            self._event.clear()
        self._news = False
        if self._gone or self.complete:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        return {"type": "http.request", "body": body, "more_body": not self.whole}

    async def send(self, message: Message) -> None:
        """A part of the answer. Raises RuntimeError where it is not what may come next."""
        if self._connection.write_paused and not self._gone:
            await self._connection.drain()
        if self._gone:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.started and not self.complete:
            self._go_on(message.get("body", b""), last=not message.get("more_body", False))
        elif kind == "http.response.start" and not self.started:
            self._begin(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"Unexpected ASGI message '{kind}'.")

    def pass_on(self, piece: bytes) -> bool:
        """A piece of a stream, not the first and not the last, sent in this turn of the event loop
        and without a task. False where that cannot be: then it is for `send`."""
        connection = self._connection
        if not self._chunked or self._flush is not None or connection.write_paused or self.complete:
            return False
        if piece and not self._gone:  # an empty chunk would be the end
            connection.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return True

    # Inside.

    def _wake(self) -> None:
        self._news = True
        if self._event is not None:
            self._event.set()

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Make the head, and keep it for what follows."""
        head = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        names = []
        framed = closes = False
        for name, value in headers:
            if name == b"content-length" and not framed:
                self._left, framed = int(value), True
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self._left, self._chunked, framed = 0, True, True
            elif name == b"connection" and b"close" in map(bytes.strip, value.lower().split(b",")):
                self.keep_alive, closes = False, True
            names.append(name)
            head.append(b"%b: %b\r\n" % (name, value))
        if not self.keep_alive and not closes:
            head.append(b"connection: close\r\n")
        without_body = self._scope["method"] == "HEAD" or status in _WITHOUT_BODY
        if not framed and not without_body:
            self._chunked = True
            head.append(b"transfer-encoding: chunked\r\n")
        text = b"".join(head)
        _check(names, text, lines=len(head))
        if without_body:
            self._left, self._chunked = 0, False
        self.started = True
        self._head = text + b"\r\n"
        self._flush = self._connection.loop.call_soon(self._let_go)

    def _go_on(self, body: bytes, *, last: bool) -> None:
        """A piece of the body, framed."""
        if self._scope["method"] == "HEAD":
            self._write(b"")
        elif self._chunked:
            if len(body) > JOINED_MAX_BYTES:
                self._write(b"%x\r\n" % len(body))
                self._connection.transport.writelines((body, b"\r\n"))
                body = b""
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self._write(framed + b"0\r\n\r\n" if last else framed)
        else:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("Response content longer than Content-Length")
            self._write(body)
            if last and self._left:
                raise RuntimeError("Response content shorter than Content-Length")
        if last:
            self.complete = True
            self._wake()
            self._connection.answered(self)

    def _write(self, piece: bytes) -> None:
        """Send it, behind the head where that still waits."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
            if len(piece) > JOINED_MAX_BYTES:
                self._connection.transport.write(self._head)
            else:
                piece = self._head + piece
        if piece:
            self._connection.transport.write(piece)

    def _let_go(self) -> None:
        self._flush = None
        self._connection.transport.write(self._head)

    def _break_off(self) -> None:
        """The application has not answered, or not whole: the client must see it."""
        if self._gone or self.complete:
            return
        if self.started:
            self._write(b"")
        else:
            self.started = True
            self._connection.transport.write(plain_answer(500, b"Internal Server Error"))
        self._connection.transport.close()


def plain_answer(status: int, why: bytes) -> bytes:
    """A whole answer, after which the connection is closed."""
    return b"%bcontent-type: text/plain; charset=utf-8\r\n%b%b" % (
        _STATUS_LINES[status],
        b"content-length: %d\r\nconnection: close\r\n\r\n" % len(why),
        why,
    )


def _check(names: list[bytes], head: bytes, *, lines: int) -> None:
    """A head is as many lines as it was given. Each ends with two control characters, the only
    ones that it may have."""
    if len(head.translate(None, _CONTROLS)) != len(head) - 2 * lines:
        raise RuntimeError("Invalid HTTP header value.")
    joined = b"".join(names)
    if len(joined.translate(None, _NOT_IN_NAMES)) != len(joined):
        raise RuntimeError("Invalid HTTP header name.")
