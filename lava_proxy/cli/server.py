"""uvicorn's server with our way to stop: tell, linger, drain, hurry.

1. Readiness goes false at once; for `LINGER_S` connections are still accepted and answered, but
   every answer says ``Connection: close``. So health checks see it, and proxies such as nginx give
   up their idle connections by the protocol instead of losing a request on one that we close.
2. The listener is closed, a moment later idle connections are; running calls go on, up to the
   drain time.
3. On a second signal, or when the time is over, running calls are cancelled; each one is booked by
   what was counted. A third signal ends the process as it is: the journal keeps what is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from types import FrameType
from typing import Any, Protocol, cast

import uvicorn

from lava_proxy.cli.handover import HUNG_STATUS
from lava_proxy.cli.protocol import HEAD_MAX_BYTES, ServerProtocol
from lava_proxy.telemetry.metrics import Metrics

LINGER_S = 1.0
ARRIVE_S = 0.25
"""A connection that was accepted last has so long to bring its request."""
KEEP_ALIVE_S = 75
"""Longer than a proxy keeps its connections to us, so that it is never us who closes one that it is
about to use."""
UNUSED_S = 6.0
"""At the end as well: longer than deploy/nginx.conf keeps a connection that it does not use (5 s).
One that is used meanwhile is told to close with its answer."""
LOOK_S = 0.05

GC_THRESHOLDS = (50_000, 20, 100)
"""Start-up objects are frozen, and full collections are rare: they cost tens of milliseconds."""

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Served(Protocol):
    """What we serve: an ASGI application that can be told that the end is near."""

    metrics: Metrics
    on_broken: Callable[[str], None]
    on_hung: Callable[[], object] | None

    def begin_drain(self) -> None: ...

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]: ...


class Leaving:
    """Passes calls through; while `leaving`, answers ask the client not to reuse the connection."""

    __slots__ = ("_app", "leaving")

    def __init__(self, app: Served) -> None:
        self._app = app
        self.leaving = False

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._app(scope, receive, _last(send) if self.leaving else send)


class Server(uvicorn.Server):
    """One process's server. `on_ready` is called when requests are taken, `on_drain` when the stop
    begins. With `patient` a repeated signal changes nothing: only `hurry` does (workers, whose
    supervisor may get the same signals)."""

    def __init__(
        self,
        app: Served,
        drain_timeout_s: float,
        *,
        on_ready: Callable[[], None],
        on_drain: Callable[[], None],
        patient: bool = False,
        head_max_bytes: int = HEAD_MAX_BYTES,
    ) -> None:
        self._door = Leaving(app)
        self._app = app
        self._on_ready = on_ready
        self._on_drain = on_drain
        self._patient = patient
        self._linger_s = LINGER_S
        self._drain_timeout_s = drain_timeout_s
        self._hurry = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.broken: str | None = None
        """Why this process stops by itself."""
        app.on_broken = self._break
        app.on_hung = lambda: os._exit(HUNG_STATUS)
        super().__init__(_config(self._door, drain_timeout_s, head_max_bytes))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT. Not handed to uvicorn, which would raise it again after a clean end
        and so spoil the exit status."""
        if not self.should_exit:
            if sig == signal.SIGINT:  # a person at the keyboard, no proxy that must be told
                self._linger_s = 0.0
            self.drain()
        elif not self._patient:
            self.hurry()

    def drain(self) -> None:
        """Begin to stop."""
        if self.should_exit:
            return
        self.should_exit = True
        self._door.leaving = True
        self._app.begin_drain()
        self._on_drain()

    def _break(self, why: str) -> None:
        self.broken = why
        self.drain()

    def hurry(self) -> None:
        """Cancel what still runs; a second time: leave everything to the journal."""
        if self._hurry.is_set():
            self.force_exit = True
        self.should_exit = True
        if self._loop is not None:  # a signal handler may be anywhere
            self._loop.call_soon_threadsafe(self._hurry.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._hurried_within(self._linger_s)
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        await self._hurried_within(min(ARRIVE_S, self._linger_s))
        hurried = asyncio.create_task(self._cancel_when_hurried())
        await self._calls_ended()
        await self._left_by_clients()
        self.config.timeout_graceful_shutdown = 1
        await super().shutdown(sockets)
        hurried.cancel()

    async def _calls_ended(self) -> None:
        """Until no call runs, or the drain is over. Not uvicorn's way: it closes a connection in
        the moment its answer ends, unannounced where the answer had begun before; a proxy may have
        sent the next request on it just then."""
        late_s = time.monotonic() + self._drain_timeout_s
        while self.server_state.tasks and time.monotonic() < late_s and not self._hurry.is_set():
            await self._hurried_within(LOOK_S)

    async def _left_by_clients(self) -> None:
        """Until every connection has a call or is gone, but not for ever."""
        late_s = time.monotonic() + (UNUSED_S if self._linger_s else 0.0)
        while time.monotonic() < late_s and not self._hurry.is_set():
            if not any(getattr(each, "unused", True) for each in self.server_state.connections):
                return
            await self._hurried_within(LOOK_S)

    async def _hurried_within(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._hurry.wait()

    async def _cancel_when_hurried(self) -> None:
        await self._hurry.wait()
        for task in list(self.server_state.tasks):
            task.cancel()


def _last(send: Send) -> Send:
    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return closing


def _config(app: Leaving, drain_timeout_s: float, head_max_bytes: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        loop="uvloop",
        http=cast("type[asyncio.Protocol]", partial(ServerProtocol, head_max_bytes=head_max_bytes)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(drain_timeout_s)),
    )
