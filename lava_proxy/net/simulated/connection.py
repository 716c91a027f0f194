"""One connection of the simulated provider: httptools in, scripted pieces out, no tasks.

Pieces are due at absolute times, so that a slow turn of the loop does not stretch a stream; what is
overdue goes out in one write. Everything due within half a millisecond counts as due: uvloop's
timers and clock are whole milliseconds, and a shorter timer would spin.

Writing stops while the reader is slow, and no more than `TURN_BYTES_MAX` is handed over in one turn
of the loop, so that memory stays flat on both sides. A request that arrives before the answer to
the one before it has ended resets the connection: nobody should pipeline.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from lava_proxy.net.simulated.script import STAMP, Ending, Piece, Script, SimRequest

TURN_BYTES_MAX = 256 * 1024
DUE_SLACK_S = 0.0005
_LINGER_NONE = struct.pack("ii", 1, 0)
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class House(Protocol):
    """What a connection needs of the provider."""

    recording: bool

    def opened(self, connection: Connection) -> int: ...

    def lost(self, connection: Connection) -> None: ...

    def accept(self, request: SimRequest) -> Script: ...

    def changed(self) -> None: ...

    def phase_s(self, script: Script) -> float: ...


class Connection(asyncio.Protocol):
    """The server's side of one client connection."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._number = 0
        self._paused = False
        self._timer: asyncio.Handle | None = None
        self._request: SimRequest | None = None
        self._script = Script()
        self._pieces: Iterator[Piece] = iter(())
        self._next: Piece | None = None
        self._due_s = 0.0
        self._phase_s = 0.0
        self._chunked = False
        self._head_out = b""
        self._keep = True
        self._begin()

    def _begin(self) -> None:
        self._raw = b""
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    # The transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._number = self._house.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        request = self._request
        if request is not None and not request.ended:
            request.closed_early_at = time.monotonic()
        self._request = None
        self._house.lost(self)
        self._house.changed()

    def data_received(self, data: bytes) -> None:
        if self._house.recording and b"\r\n\r\n" not in self._raw:
            self._raw += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._request is not None:
                self._reset()
                return
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            self._transport.close()

    def pause_writing(self) -> None:
        self._paused = True
        self._stop_timer()

    def resume_writing(self) -> None:
        self._paused = False
        if self._request is not None and self._timer is None:
            self._advance()

    def abort(self) -> None:
        """Close at once, without sending what is left."""
        self._stop_timer()
        self._transport.abort()

    # The parser calls these.

    def on_message_begin(self) -> None:
        if self._request is not None:
            raise ValueError("a request before the end of the answer to the one before it")

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        request = SimRequest(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            body=bytes(self._body),
            head=self._raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if self._raw else b"",
            connection=self._number,
            received_at=time.monotonic(),
        )
        self._keep = self._parser.should_keep_alive()
        self._begin()
        self._request = request
        self._play(request, self._house.accept(request))
        self._house.changed()

    # The answer.

    def _play(self, request: SimRequest, script: Script) -> None:
        request.status = script.status
        self._script = script
        self._chunked = self._is_chunked(script)
        self._head_out = b"" if script.raw else self._head(script)
        self._pieces = iter(script.pieces if request.method != "HEAD" else ())
        self._next = next(self._pieces, None)
        self._due_s = self._loop.time() + (self._next.delay_s if self._next else 0.0)
        self._phase_s = self._house.phase_s(script)
        self._advance()

    def _is_chunked(self, script: Script) -> bool:
        if script.raw or script.ends is Ending.CLOSED or script.status in (204, 304):
            return False
        return not any(name == "content-length" for name, _ in script.headers)

    def _head(self, script: Script) -> bytes:
        lines = [f"HTTP/1.1 {script.status} {_REASONS.get(script.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in script.headers]
        if self._chunked:
            lines.append("transfer-encoding: chunked")
        if not self._keep or script.ends is Ending.CLOSED:
            lines.append("connection: close")
        return "\r\n".join((*lines, "", "")).encode("latin-1")

    def _advance(self) -> None:
        """Send what is due, then wait for the next piece, for the reader, or for the end."""
        self._timer = None
        request = self._request
        if request is None:
            return
        out: list[bytes] = []
        out_bytes = 0
        horizon_s = self._loop.time() + DUE_SLACK_S
        while (piece := self._next) is not None and self._due_s <= horizon_s:
            if out_bytes > TURN_BYTES_MAX:
                self._send(out)
                if not self._paused:
                    self._timer = self._loop.call_soon(self._advance)
                return
            out.append(self._framed(request, piece))
            out_bytes += len(piece.data)
            self._step()
        if piece is not None:
            self._send(out, head=bool(out))
            if not self._paused:
                self._timer = self._loop.call_at(self._due_s, self._advance)
        elif self._script.ends is Ending.CLEAN and not self._script.end_delay_s:
            self._finish(out)
        else:
            self._send(out)
            if self._script.ends is not Ending.STALL:
                delay_s = max(self._script.end_delay_s, 0.001)
                self._timer = self._loop.call_later(delay_s, self._finish, [])

    def _step(self) -> None:
        """Take the next piece and say when it is due."""
        piece = self._next = next(self._pieces, None)
        if piece is not None:
            self._due_s += piece.delay_s
            if piece.delay_s and self._phase_s:
                self._due_s -= self._phase_s
                self._phase_s = 0.0

    def _framed(self, request: SimRequest, piece: Piece) -> bytes:
        data = piece.data
        request.sent_bytes += len(data)
        request.tokens_sent += piece.tokens
        if STAMP in data:
            data = data.replace(STAMP, b"%019d" % time.monotonic_ns())
        if self._chunked and data:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return data

    def _send(self, out: list[bytes], *, head: bool = True) -> None:
        if head and self._head_out:
            out.insert(0, self._head_out)
            self._head_out = b""
        data = b"".join(out)
        if data:
            self._transport.write(data)

    def _finish(self, out: list[bytes]) -> None:
        """Send what is left and end the answer the way the script says."""
        self._timer = None
        request, self._request = self._request, None
        if request is None:
            return
        clean = self._script.ends is Ending.CLEAN
        if clean and self._chunked and request.method != "HEAD":
            out.append(b"0\r\n\r\n")
        request.finished_at = time.monotonic()
        self._send(out)
        if self._script.ends is Ending.RESET:
            self._reset()
        elif not clean or not self._keep:
            self._transport.close()
        self._house.changed()

    def _reset(self) -> None:
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self._transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
