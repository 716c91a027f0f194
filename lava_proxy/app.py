"""The application: one ASGI callable that serves the gateway, the REST API, health and metrics.

Composition only: everything is made in `_open` and passed down. Three ways to use it:

* standalone: ``lava-proxy serve`` (the server sends lifespan events here);
* mounted: ``app.mount("/ai", proxy)``; a mount gets no lifespan, so the host's must run `lifespan`;
* as middleware: `middleware.LavaMiddleware(app, settings)` hands all other paths on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.clock import SystemClock
from lava_proxy.core.environment import load_settings, unknown_names
from lava_proxy.core.errors import LavaError
from lava_proxy.core.intake import Receive, Scope, Send
from lava_proxy.core.providers import OWN_PATHS, registry_of
from lava_proxy.core.settings import Settings
from lava_proxy.manage.app import create_management
from lava_proxy.pages import app as pages
from lava_proxy.payments.factory import make_payments
from lava_proxy.proxy.assemble import egress_of, make_gateway, sweep, tell_booked
from lava_proxy.proxy.forward import forward, passes_on
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.refuse import refuse_websocket
from lava_proxy.proxy.run import StreamCut
from lava_proxy.store.database import Database
from lava_proxy.store.embedded import start_embedded
from lava_proxy.store.keeper import Keeper
from lava_proxy.store.migrate import migrate
from lava_proxy.telemetry.exposition import check_access, render
from lava_proxy.telemetry.logs import HostFilter
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.wire.asgi import path_of, raw_path_of
from lava_proxy.wire.problem import envelope
from lava_proxy.wire.token import redact
from lava_proxy.workers.upkeep import Upkeep
from lava_proxy.workers.watchdog import watching

log = logging.getLogger(__name__)

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

NOT_STARTED = (
    "lava_proxy was not started: a mounted app gets no lifespan events, so run "
    "`async with proxy.lifespan(app): ...` in the host app's lifespan (see README, Mount)"
)

WRAPPED = (
    "lava_proxy is inside Starlette's BaseHTTPMiddleware (@app.middleware('http')): a stream that "
    "is cut off then looks like one that ended well; use plain ASGI middleware"
)


class LogFilter(HostFilter):
    """For the log handlers of a host app: what a cut stream makes the server say is dropped,
    credentials are hidden. Under `serve` our own logs do so by themselves."""

    def __init__(self) -> None:
        super().__init__(redact, StreamCut)


class LavaProxy:
    """The gateway as an ASGI application. Make one per process, with its settings."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings(os.environ)
        self._registry = registry_of(self.settings)
        providers = [provider.id for provider in self._registry.providers]
        self.metrics = Metrics(providers)
        self._heads = OWN_PATHS.union(providers) - {pages.HEAD}
        self._warned = False
        self._open: _Open | None = None
        self.on_broken: Callable[[str], None] = lambda why: None
        """Called once when this process cannot write its journal any more. `serve` replaces the
        process; inside a host app the books stay closed."""
        self.on_hung: Callable[[], object] | None = None
        """Called, in another thread, when the event loop hangs for good: `serve` ends the process.
        Inside a host app it is only logged and counted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
            return
        if self._open is None:
            raise RuntimeError(NOT_STARTED)
        if not self._warned and "BaseHTTPMiddleware" in getattr(receive, "__qualname__", ""):
            self._warned = True
            log.warning(WRAPPED)
        await self._open.serve(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Start and stop the gateway; the host app's lifespan must run it when mounted."""
        if self._open is not None:
            yield
            return
        for complaint in unknown_names(os.environ):  # where they stop `serve`, it never comes here
            log.warning("%s", complaint)
        self._open = await _Open.start(self.settings, self._registry, self.metrics, self.on_broken)
        try:
            with watching(self.settings, self.metrics, self.on_hung):
                yield
        finally:
            opened, self._open = self._open, None
            await opened.stop()

    def begin_drain(self) -> None:
        """Readiness goes false at once; running calls go on."""
        if self._open is not None:
            self._open.gateway.draining = True

    def takes(self, path: str) -> bool:
        """Whether a path is one of ours; also before the start, so that a forgotten one is seen."""
        return path.lstrip("/").partition("/")[0] in self._heads or path.startswith(pages.ROOT)

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            manager = self.lifespan()
            await manager.__aenter__()
        except BaseException as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await manager.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})


class _Open:
    """The running parts."""

    def __init__(
        self,
        gateway: Gateway,
        management: ASGIApp,
        pages: ASGIApp,
        upkeep: Upkeep,
        database: Database,
        keeper: Keeper | None,
        parts: AsyncExitStack,
    ) -> None:
        """`parts` knows what to stop, the last started first."""
        self.gateway = gateway
        self._management = management
        self._pages = pages
        self._upkeep = upkeep
        self._database = database
        self._keeper = keeper
        self._parts = parts
        self._prefixes = frozenset(name for name, _ in gateway.prefixes)

    @classmethod
    async def start(
        cls,
        settings: Settings,
        registry: Registry,
        metrics: Metrics,
        on_broken: Callable[[str], None],
    ) -> _Open:
        """Database, schema, journals, writer, loops: in this order. When one does not start, those
        before it are stopped."""
        egress = egress_of(settings, registry)
        async with AsyncExitStack() as parts:
            payments = make_payments(settings)
            parts.callback(payments.close)
            database, keeper = await _open_database(settings, metrics, parts)
            books = Books(
                settings,
                database,
                SystemClock(),
                on_flush=metrics.flushed,
                on_booked=partial(tell_booked, metrics),
                price_names=registry.price_names,
            )
            parts.push_async_callback(books.close)
            for left in await books.open():
                if left.damaged:
                    metrics.anomaly("journal_damaged")
            gateway = make_gateway(settings, books, registry, metrics, egress)
            parts.push_async_callback(gateway.upstreams.close)
            parts.push_async_callback(gateway.keys.close)
            management = create_management(books, registry, payments)
            shown = pages.Pages(books, payments)
            upkeep = Upkeep(books, metrics, lambda: sweep(gateway), on_broken, payments)
            parts.push_async_callback(upkeep.stop)
            upkeep.start()
            if keeper is not None:
                keeper.start()
            return cls(gateway, management, shown, upkeep, database, keeper, parts.pop_all())

    async def stop(self) -> None:
        """The other way round: calls, loops, provider connections, books, database."""
        self.gateway.draining = True
        deadline = self.gateway.settings.drain_timeout_s
        while self.gateway.open_runs.runs and deadline > 0:
            await asyncio.sleep(0.05)
            deadline -= 0.05
        await self._parts.aclose()
        self.gateway.metrics.tell()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One dictionary look-up by the first path segment, then the callable."""
        if scope["type"] == "websocket":
            await refuse_websocket(scope, receive, send)
            return
        path = path_of(scope)
        head = path.lstrip("/").partition("/")[0]
        if head in self._prefixes or passes_on(path):
            await forward(self.gateway, scope, receive, send, raw_path_of(scope))
        elif head == pages.HEAD:
            await self._pages(scope, receive, send)
        elif path == "/healthz":
            await _reply(send, 200, b'{"status":"ok"}')
        elif path == "/readyz":
            await self._readiness(send)
        elif path == "/metrics":
            await self._metrics(scope, send)
        else:
            await self._management(scope, receive, send)

    async def _readiness(self, send: Send) -> None:
        gateway = self.gateway
        state = "draining" if gateway.draining else gateway.books.condition.state()
        ready = state in ("normal", "leases", "drain")
        if self._keeper is None or self._keeper.state == "runs":
            await _reply(send, 200 if ready else 503, b'{"status":"%s"}' % state.encode())
            return
        # Where the server cannot be started and no leased credit is left, waiting does not help.
        ready = ready and (self._keeper.state, state) != ("broken", "drain")
        body = b'{"status":"%s","embedded_postgres":"%s"}'
        filled = body % (state.encode(), self._keeper.state.encode())
        await _reply(send, 200 if ready else 503, filled)

    async def _metrics(self, scope: Scope, send: Send) -> None:
        try:
            check_access(scope, self.gateway.settings)
        except LavaError as error:
            await _reply(send, error.status, envelope(error))
            return
        self.gateway.metrics.tell()  # with several workers it is read from files
        body, content_type = render(self.gateway.metrics.registry)
        await _reply(send, 200, body, content_type.encode())


async def _open_database(
    settings: Settings, metrics: Metrics, parts: AsyncExitStack
) -> tuple[Database, Keeper | None]:
    """The migrated database, and who keeps it running where it is embedded."""
    keeper = None
    if settings.database_url is None:
        server = await start_embedded(settings.data_dir)
        keeper = Keeper(server, metrics.embedded_state, metrics.embedded_started)
        parts.push_async_callback(keeper.close)
        url, direct = server.url, None
    else:
        url = settings.database_url.get_secret_value()
        secret = settings.database_direct_url
        direct = secret.get_secret_value() if secret else None
    await migrate(direct or url)
    database = Database(
        url,
        direct_url=direct,
        size=settings.database_pool_size,
        statement_cache_size=settings.database_statement_cache,
        statement_timeout_s=settings.database_timeout_s,
        acquire_timeout_s=settings.database_wait_s / 4,
    )
    parts.push_async_callback(database.close)
    await database.open()
    return database, keeper


def create_app() -> LavaProxy:
    """For servers that want a factory: settings from the environment."""
    return LavaProxy(load_settings(os.environ))


async def _reply(
    send: Send, status: int, body: bytes, content_type: bytes = b"application/json"
) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


__all__ = ["LavaProxy", "LogFilter", "Settings", "StreamCut", "create_app"]
