"""A server with a protocol of one's choice, and what it writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import uvicorn

from lava_proxy.cli.protocol import ServerProtocol

Send = Callable[[dict[str, Any]], Awaitable[None]]
Asgi = Callable[[dict[str, Any], Callable[[], Awaitable[dict[str, Any]]], Send], Awaitable[None]]
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class _Recorded:
    """A transport that notes what is written."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@asynccontextmanager
async def serving(
    app: Asgi, protocol: Any = ServerProtocol, **config: Any
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of a server, and what it has written."""
    writes: list[bytes] = []

    class Recording(protocol):  # type: ignore[misc]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(_Recorded(transport, writes))

    plain = {"server_header": False, "date_header": False, "proxy_headers": False}
    quiet = {"log_config": None, "access_log": False, "lifespan": "off", "ws": "none"}
    made = uvicorn.Config(app, http=Recording, port=0, **plain, **quiet, **config)
    server = uvicorn.Server(made)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], writes
    finally:
        server.should_exit = True
        await running


async def start(send: Send, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    """An answer's head."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def body(send: Send, piece: bytes, *, more: bool = False) -> None:
    """A piece of its body."""
    await send({"type": "http.response.body", "body": piece, "more_body": more})


async def echo(scope: dict[str, Any], receive: Any, send: Send) -> None:
    """Answers what it was asked, as it understood it."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        pieces.append(message["body"])
        if not message["more_body"]:
            break
    said = {
        name: str(scope[name])
        for name in ("method", "path", "raw_path", "query_string", "http_version", "headers")
    }
    text = orjson.dumps({**said, "body": b"".join(pieces).decode("latin-1")})
    await start(send, (b"content-length", b"%d" % len(text)))
    await body(send, text)


async def told(port: int, *pieces: bytes, within_s: float = 0.3) -> tuple[bytes, bool]:
    """What the server answers to these writes until it is silent, and whether it closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = bytearray()
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        while True:
            try:
                async with asyncio.timeout(within_s):
                    got = await reader.read(65536)
            except TimeoutError:
                return bytes(said), False
            if not got:
                return bytes(said), True
            said += got
    except ConnectionError:
        return bytes(said), True
    finally:
        writer.close()
