"""An answer's head goes out with what follows it in the same turn, and never waits for more."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from lava_proxy.cli.joining import JoiningProtocol

Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Send], Awaitable[None]]
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
async def _serving(app: App) -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of a server with our protocol, and what it has written."""
    writes: list[bytes] = []

    class Recording(JoiningProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(_Recorded(transport, writes))  # type: ignore[arg-type]

    async def asgi(scope: Any, receive: Any, send: Send) -> None:
        await app(send)

    config = uvicorn.Config(asgi, http=Recording, lifespan="off", log_config=None, port=0)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], writes
    finally:
        server.should_exit = True
        await serving


async def _start(send: Send, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})


async def _body(send: Send, body: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def test_a_plain_answer_is_one_write() -> None:
    async def app(send: Send) -> None:
        await _start(send, (b"content-length", b"2"))
        await _body(send, b"{}")

    async with _serving(app) as (port, writes):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for times in (1, 2):  # the connection is used again
            writer.write(REQUEST)
            assert await reader.readuntil(b"{}")
            assert len(writes) == times
            assert writes[-1].endswith(b"content-length: 2\r\n\r\n{}")
        writer.close()


async def test_a_stream_is_joined_once() -> None:
    async def app(send: Send) -> None:
        await _start(send)
        await _body(send, b"one", more=True)
        await _body(send, b"two", more=True)
        await _body(send, b"")

    async with _serving(app) as (port, writes):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        await reader.readuntil(b"0\r\n\r\n")
        assert writes[0].endswith(b"\r\n\r\n3\r\none\r\n")
        assert writes[1:] == [b"3\r\ntwo\r\n", b"0\r\n\r\n"]
        writer.close()


async def test_a_head_alone_goes_out_in_its_turn() -> None:
    going_on = asyncio.Event()

    async def app(send: Send) -> None:
        await _start(send)
        await going_on.wait()
        await _body(send, b"late")

    async with _serving(app) as (port, writes):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert len(writes) == 1
        going_on.set()
        await reader.readuntil(b"0\r\n\r\n")
        assert len(writes) == 2
        writer.close()


async def test_a_head_goes_out_before_an_answer_breaks_off() -> None:
    async def app(send: Send) -> None:
        await _start(send)
        raise RuntimeError("broken off")

    async with _serving(app) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        async with asyncio.timeout(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_pipelined_answers_keep_their_order() -> None:
    answers = iter((b"first", b"second"))

    async def app(send: Send) -> None:
        body = next(answers)
        await _start(send, (b"content-length", b"%d" % len(body)))
        await asyncio.sleep(0.01)
        await _body(send, body)

    async with _serving(app) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST * 2)
        async with asyncio.timeout(5):
            said = await reader.readuntil(b"second")
        assert said.index(b"first") < said.index(b"second")
        writer.close()


async def test_a_client_that_leaves_before_the_head_leaves_no_garbage() -> None:
    asked, left = asyncio.Event(), asyncio.Event()
    heads: list[int] = []

    def count() -> int:
        return sum(type(each).__name__ == "_Head" for each in gc.get_objects())

    async def app(send: Send) -> None:
        heads.append(count())
        asked.set()
        await left.wait()

    async with _serving(app) as (port, _):
        gc.collect()
        gc.disable()
        before = count()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            await asked.wait()
            writer.close()
            await asyncio.sleep(0.05)
            left.set()
            await asyncio.sleep(0.05)
            assert (heads, count()) == ([before + 1], before)
        finally:
            gc.enable()
