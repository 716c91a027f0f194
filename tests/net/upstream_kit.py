"""Driving the upstream client: a connection without a socket, and servers that say exact bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lava_proxy.core.errors import LavaError
from lava_proxy.net.http1.connection import READ_MAX_BYTES, Connection
from lava_proxy.net.simulated import Piece, Script
from lava_proxy.net.upstream import Answer, Timeouts, UpstreamEnded, Upstreams

LOOPBACK = frozenset({"127.0.0.1"})
PATIENT = Timeouts(connect_s=5.0, first_byte_s=20.0, idle_s=20.0, pool_s=5.0)
OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"content-length: 2\r\n\r\nhi"
SILENCE = Script((Piece(b"", 60.0),))
"""Not even a head."""
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def upstreams(
    timeouts: Timeouts = PATIENT, *, limit: int = 100, **more: object
) -> AsyncIterator[Upstreams]:
    """A client that may call loopback."""
    more.setdefault("named_hosts", LOOPBACK)
    client = Upstreams(timeouts, connections_per_host=limit, **more)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.close()


def connections(client: Upstreams) -> int:
    """How many a client has, idle or not."""
    return sum(len(pool.connections) for pool in client._pools.values())


@dataclass
class Outcome:
    """How an exchange went, as far as a caller sees it."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    end: str = ""
    """``end``, ``open``, the reason of `UpstreamEnded`, or the code of a `LavaError`."""
    delimited: bool = True
    reusable: bool = False


async def drain(answer: Answer) -> tuple[bytes, str]:
    """(body, how it ended)."""
    body = bytearray()
    end = "end"
    try:
        while piece := await answer.read():
            body += piece
            if answer.at_end:
                break
    except UpstreamEnded as ended:
        end = ended.reason
    return bytes(body), end


async def outcome(client: Upstreams, method: str, url: str, body: bytes = b"") -> Outcome:
    """One whole exchange."""
    try:
        answer = await client.send(method, url, [], body)
    except LavaError as error:
        return Outcome(end=error.code)
    text, end = await drain(answer)
    answer.close()
    return Outcome(answer.status, list(answer.headers), text, end, answer.delimited)


# A connection without a socket.


class Line:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self._aborted = False
        self.calls: list[str] = []
        self.unsent_bytes = 0
        self._reading = True

    def get_extra_info(self, name: str) -> Line:
        return self  # asked for the socket, for its number

    def fileno(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_reading(self) -> bool:
        return self._reading

    def is_aborted(self) -> bool:
        return self._aborted

    def pause_reading(self) -> None:
        self.calls.append("pause")
        self._reading = False

    def resume_reading(self) -> None:
        self.calls.append("resume")
        self._reading = True

    def abort(self) -> None:
        self._aborted = True


class House:
    """A pool that only counts."""

    def __init__(self) -> None:
        self.released_total = 0
        self.dropped_total = 0

    def released(self, connection: Connection) -> None:
        self.released_total += 1

    def dropped(self, connection: Connection) -> None:
        self.dropped_total += 1


class Wire:
    """A connection on a `Line`: bytes go in by hand, in any cut."""

    def __init__(self) -> None:
        self.house, self.line = House(), Line()
        loop = asyncio.get_running_loop()
        self.connection = Connection(self.house, loop, first_byte_s=10.0, idle_s=10.0)
        self.connection.connection_made(self.line)  # type: ignore[arg-type]

    def feed(self, data: bytes) -> None:
        """Like a transport: at most a buffer at a time, nothing once closed."""
        while data and not self.line.is_aborted():
            buffer = self.connection.get_buffer(-1)
            piece, data = data[:READ_MAX_BYTES], data[READ_MAX_BYTES:]
            buffer[: len(piece)] = piece
            self.connection.buffer_updated(len(piece))

    def play(
        self, pieces: Iterable[bytes], *, ending: str = "", head_only: bool = False
    ) -> Outcome:
        """Ask once and get these bytes; `ending`: nothing, ``eof`` or ``reset``."""
        waiter = self.connection.begin(b"GET / HTTP/1.1\r\n\r\n", b"", head_only=head_only)
        for piece in pieces:
            self.feed(piece)
        if not self.line.is_aborted() and ending == "eof":
            self.connection.eof_received()
        elif not self.line.is_aborted() and ending == "reset":
            self.connection.connection_lost(ConnectionResetError())
        seen = self._seen(waiter)
        seen.reusable = self.house.released_total == 1 and not self.line.is_aborted()
        return seen

    def _seen(self, waiter: asyncio.Future[Answer]) -> Outcome:
        if not waiter.done():
            return Outcome(end="open")
        error = waiter.exception()
        if isinstance(error, LavaError):
            return Outcome(end=error.code)
        answer = waiter.result()
        body, end = taken(answer)
        return Outcome(answer.status, list(answer.headers), body, end, answer.delimited)


def taken(answer: Answer) -> tuple[bytes, str]:
    """What a reader gets without waiting."""
    body = b""
    while not answer.at_end:
        reading = answer.read()
        try:
            reading.send(None)
        except StopIteration as got:
            body += got.value
        except UpstreamEnded as ended:
            return body, ended.reason
        else:
            reading.close()  # it waits
            return body, "open"
    return body, "end"


# Servers.

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, **more: object) -> AsyncIterator[str]:
    """A server that does what `handler` says with each connection; gives its base URL."""
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            running.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, **more)  # type: ignore[arg-type]
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if more.get('ssl') else 'http'}://127.0.0.1:{port}"
    finally:
        listening.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await listening.wait_closed()


async def request_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(head, body) of the next request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length: "):
            length = int(line.split()[1])
    return head, await reader.readexactly(length)
