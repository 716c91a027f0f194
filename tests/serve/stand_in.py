"""A small application that `serve` can run: it streams, counts, and notes what happens to it.

Its notes are lines in `NOTES` under the data directory, because tests look at it from outside.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from lava_proxy.core.errors import LavaError
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.telemetry.exposition import check_access, render
from lava_proxy.telemetry.metrics import Metrics

NOTES = "notes"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class StandIn:
    """Made from settings, like the real application."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(["openai"])
        self.draining = False
        self.on_broken: Callable[[str], None] = lambda why: None
        self.on_hung: Callable[[], object] | None = None
        settings.data_dir.mkdir(parents=True, exist_ok=True)

    def begin_drain(self) -> None:
        self.draining = True

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        path = scope["path"].split("/")[1]
        query = dict(parse_qsl(scope["query_string"].decode()))
        if path == "sse":
            await self.stream(receive, send, int(query["pieces"]), float(query["gap_s"]))
            return
        self.note(f"{scope['method']} {scope['raw_path'].decode()}")
        if dict(scope["headers"]).get(b"upgrade") == b"websocket":
            await reply(send, 426, b"no")
        elif path == "readyz":
            await reply(send, 503 if self.draining else 200, b"")
        elif path == "metrics":
            await self.show_metrics(scope, send)
        elif path == "echo":
            await reply(send, 200, str(await size_of(receive)).encode())
        elif path == "headers":
            lines = b"\n".join(b"%s: %s" % pair for pair in scope["headers"])
            await reply(send, 200, lines)
        else:
            self.count()
            await reply(send, 200, str(os.getpid()).encode())

    async def live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.metrics.sample_open(calls=1, streams=1, holds=1)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.note("closed")
        await send({"type": "lifespan.shutdown.complete"})

    def note(self, line: str) -> None:
        with (self.settings.data_dir / NOTES).open("a") as notes:
            notes.write(f"{line}\n")

    def count(self) -> None:
        self.metrics.call_ended(
            provider="openai",
            outcome="completed",
            input_tokens=3,
            output_tokens=5,
            added_s=0.0002,
            first_byte_s=0.2,
            duration_s=0.7,
        )
        self.metrics.booked("openai", 10**9, 2 * 10**9)
        self.metrics.tell()  # as the real application does every second

    async def show_metrics(self, scope: Message, send: Send) -> None:
        try:
            check_access(scope, self.settings)
        except LavaError as error:
            await reply(send, error.status, b"")
            return
        body, content_type = render(self.metrics.registry)
        await reply(send, 200, body, content_type.encode())

    async def stream(self, receive: Receive, send: Send, pieces: int, gap_s: float) -> None:
        """Event stream pieces with a pause between; ends early when the reader has gone."""
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.create_task(left(receive))
        try:
            for number in range(pieces):
                body = b"data: %d\n\n" % number
                await send({"type": "http.response.body", "body": body, "more_body": True})
                await asyncio.wait([gone], timeout=gap_s)
                if gone.done():
                    self.note("gone")
                    return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            self.note("streamed")
        except asyncio.CancelledError:
            self.note("cancelled")
            raise
        finally:
            gone.cancel()


class Broken(StandIn):
    """Fails when it starts."""

    async def live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the database is away"})


def wrong(settings: Settings) -> StandIn:
    """An application that the operator configured wrongly."""
    raise ConfigurationError(f"{settings.host} will not do")


async def left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def size_of(receive: Receive) -> int:
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return size
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return size


async def reply(send: Send, status: int, body: bytes, content_type: bytes = b"text/plain") -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
