"""A TCP proxy between the gateway and PostgreSQL that can be slow, deaf, or cut everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit


class FaultProxy:
    """Listens on the loopback and passes everything on to a server's Unix socket."""

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._database = parts.path
        self._pairs: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.latency_s = 0.0
        """Added to every piece, each way."""
        self.refusing = False
        self.opened = 0
        self.most_open = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"postgresql://postgres@127.0.0.1:{port}{self._database}?sslmode=disable"

    def swallow(self) -> None:
        """Black hole: connections stay, new ones are accepted, nothing comes through."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._pairs:
            writer.transport.abort()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.flow()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        mine = {writer}
        try:
            if self.refusing:
                writer.transport.abort()
                return
            other_reader, other_writer = await asyncio.open_unix_connection(self._socket)
            mine.add(other_writer)
            self._pairs |= mine
            self.opened += 1
            self.most_open = max(self.most_open, len(self._pairs) // 2)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, other_writer))
                pumps.create_task(self._pump(other_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._pairs -= mine
            self._tasks.discard(task)
            for end in mine:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            writer.write(data)
            await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def fault_proxy(database_url: str) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(database_url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
