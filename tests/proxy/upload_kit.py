"""Uploads for tests: a provider that keeps nothing, and a client that makes what it sends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway_kit import Gate, Payer
from raw_asgi import Raw

BOUNDARY = "xyz"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
HEARD = "/openai/v1/audio/transcriptions"
REPLY = b'{"text":"hello","usage":{"type":"duration","seconds":7}}'
PIECE = bytes(64 * 1024)
NEVER = 2**60


def field_of(name: str, value: str) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return f"{head}{value}\r\n".encode()


FILE = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.ogg"\r\n'
    "Content-Type: audio/ogg\r\n\r\n"
).encode()
END = f"--{BOUNDARY}--\r\n".encode()


def form(size: int, *, before: bytes = b"", behind: bytes = b"") -> list[bytes]:
    """A form with one file of `size` bytes, in pieces; `before` and `behind` are other parts."""
    whole, rest = divmod(size, len(PIECE))
    return [before + FILE, *[PIECE] * whole, PIECE[:rest] + b"\r\n" + behind + END]


@dataclass
class Got:
    """One request as the provider has it."""

    head: bytes = b""
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    tail: bytes = b""
    lost: bool = False
    frame: bytes = b""
    """Of a body in chunks: what is not a whole one."""
    ended: bool = False

    @property
    def stated(self) -> int:
        """How long its head says that it is; unknown of a body in chunks, until it has ended."""
        if self.chunked:
            return self.size if self.ended else NEVER
        _, _, rest = self.head.lower().partition(b"content-length: ")
        return int(rest.split(b"\r\n")[0])

    @property
    def chunked(self) -> bool:
        return b"\r\ntransfer-encoding: chunked" in self.head.lower()

    def take(self, data: bytes) -> None:
        """The next bytes of the body, out of their chunks."""
        if not self.chunked:
            self._add(data)
            return
        self.frame += data
        while not self.ended:
            line, found, rest = self.frame.partition(b"\r\n")
            size = int(line, 16) if found else NEVER
            if len(rest) < size + 2:
                return
            assert rest[size : size + 2] == b"\r\n"
            self.frame, self.ended = rest[size + 2 :], size == 0
            self._add(rest[:size])

    def _add(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)
        self.tail = (self.tail + data[-80:])[-80:]


class Sink(asyncio.BufferedProtocol):
    """Reads a request into nothing, and answers."""

    def __init__(self, provider: Provider) -> None:
        self._all = provider
        self._buffer = memoryview(bytearray(len(PIECE)))
        self.got: Got | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._all.sinks.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.got is not None:
            self.got.lost = True
        self._all.changed.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._buffer[:nbytes]
        got = self.got
        if got is None or (got.size == got.stated):
            got = self.got = Got()
            self._all.requests.append(got)
            got.head = bytes(data).partition(b"\r\n\r\n")[0]
            data = data[len(got.head) + 4 :]
        got.take(bytes(data))
        self._all.changed.set()
        provider = self._all
        if provider.stops_at is not None and got.size >= provider.stops_at:
            self._transport.pause_reading()
        if provider.early is not None and got.size >= 200_000:
            self._transport.write(provider.early)
            provider.early = None
        elif got.size == got.stated:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(REPLY), REPLY)
            )

    def go_on(self) -> None:
        self._transport.resume_reading()

    def abort(self) -> None:
        self._transport.abort()


@dataclass
class Provider:
    """A server of sinks."""

    url: str = ""
    requests: list[Got] = field(default_factory=list)
    sinks: list[Sink] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    stops_at: int | None = None
    early: bytes | None = None

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def provider_at(gate: Gate, host: str = "api.openai.com") -> AsyncIterator[Provider]:
    """A host of the table is a server of sinks for a while."""
    provider = Provider()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Sink(provider), "127.0.0.1", 0)
    origins, upstreams = gate.gateway.origins, gate.gateway.upstreams
    before, private = origins[host], upstreams._private
    origins[host] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    upstreams._private = True
    try:
        yield provider
    finally:
        origins[host], upstreams._private = before, private
        server.close()
        for sink in provider.sinks:
            sink.abort()


class Sender(Raw):
    """A client without a socket whose body is made when it is asked for."""

    def __init__(
        self, gate: Gate, payer: Payer, pieces: list[bytes], path: str = HEARD, **more: str
    ) -> None:
        token = more.pop("token", payer.token())
        """A length of "" is not stated: the body comes in chunks."""
        headers = FORM | {"content-length": str(sum(map(len, pieces)))} | more
        if not headers["content-length"]:
            del headers["content-length"]
            headers["transfer-encoding"] = "chunked"
        super().__init__(gate.app, path, b"", headers | {"authorization": f"Bearer {token}"})
        kind = headers["content-type"].encode()
        self.scope["headers"] = [
            pair for pair in self.scope["headers"] if pair != (b"content-type", b"application/json")
        ]
        assert (b"content-type", kind) in self.scope["headers"]
        self.pieces = pieces
        self.taken = 0
        """Pieces that the app has asked for."""
        self.stalls_at = self.leaves_at = len(pieces) + 1

    async def run(self) -> None:
        await self._app(self.scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        at = self.taken
        if at == self.leaves_at:
            return {"type": "http.disconnect"}
        if at == self.stalls_at or at == len(self.pieces):
            await asyncio.Event().wait()
        self.taken += 1
        last = self.taken == len(self.pieces)
        return {"type": "http.request", "body": self.pieces[at], "more_body": not last}
