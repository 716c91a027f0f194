"""One serving process: uvicorn on uvloop and httptools, drained on SIGTERM.

h11 is never used: it takes several smuggling vectors that httptools refuses (docs/decisions/0004).
"""

from __future__ import annotations

import gc
import importlib.util
import os
import socket
import sys
from types import FrameType

import uvicorn

from lava_proxy.app import LavaProxy
from lava_proxy.core.settings import ConfigurationError, Settings, load_settings
from lava_proxy.proxy.run import StreamCut
from lava_proxy.telemetry.exposition import serve_private
from lava_proxy.telemetry.logs import set_up_logs
from lava_proxy.telemetry.metrics import several_workers
from lava_proxy.wire.token import redact

KEEP_ALIVE_S = 75
"""Longer than nginx keeps its connections to us (60 s), so that it is never us who closes one that
nginx is about to use."""

BACKLOG = 2048
GC_THRESHOLDS = (50_000, 20, 100)
"""Start-up objects are frozen, and full collections are rare: they cost tens of milliseconds."""


class Server(uvicorn.Server):
    """uvicorn's server, which tells the app first that it is about to stop."""

    def __init__(self, config: uvicorn.Config, app: LavaProxy, *, announce: bool) -> None:
        super().__init__(config)
        self._app = app
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        if self._announce:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"lava-proxy serves on http://{host}:{port}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Readiness goes first, then running calls are drained. A second signal cancels what still
        runs; its calls are booked all the same."""
        self._app.begin_drain()
        super().handle_exit(sig, frame)


def check_server() -> None:
    """Refuse to start without the fast and strict parser."""
    for name in ("httptools", "uvloop"):
        if importlib.util.find_spec(name) is None:
            raise ConfigurationError(f"{name} is not installed: pip install {name}")


def listen(settings: Settings, *, shared: bool) -> socket.socket:
    """The listening socket; with `shared` every worker has its own on the same port."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from None
    sock.set_inheritable(True)
    return sock


def run_worker(settings: Settings, *, shared: bool) -> int:
    """Serve until told to stop; 0 after a clean drain."""
    check_server()
    set_up_logs(settings.log_level, redact, StreamCut)
    app = LavaProxy(settings)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, int(settings.drain_timeout_s)),
    )
    server = Server(config, app, announce=not shared)
    stop_metrics = None
    if settings.metrics_port is not None and not several_workers():
        _, stop_metrics = serve_private(
            settings.metrics_host, settings.metrics_port, app.metrics.registry
        )
    try:
        server.run(sockets=[listen(settings, shared=shared)])
    finally:
        if stop_metrics is not None:
            stop_metrics()
    return 0 if server.started else 3


if __name__ == "__main__":  # a child of the supervisor (cli/serve.py)
    try:
        sys.exit(run_worker(load_settings(os.environ), shared=True))
    except ConfigurationError as failure:
        print(f"lava-proxy: {failure}", file=sys.stderr)
        sys.exit(2)
