"""One serving process: alone, or a child of the supervisor (``python -m lava_proxy.cli.worker``).

h11 is never used: it takes several smuggling vectors that httptools refuses (docs/decisions/0004).
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
import threading
import time
from typing import cast

from lava_proxy.cli.handover import (
    BEAT,
    BEAT_S,
    BROKEN_STATUS,
    CONFIGURATION_STATUS,
    DRAIN,
    DRAINING,
    HURRY,
    READY,
    START_FAILED_STATUS,
    Order,
    hear,
    receive_order,
    tell,
)
from lava_proxy.cli.listener import listen, port_of, private_metrics, url_of
from lava_proxy.cli.server import Served, Server
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.proxy.run import StreamCut
from lava_proxy.telemetry.exposition import render
from lava_proxy.telemetry.logs import set_up_logs
from lava_proxy.wire.token import redact


def run_alone(order: Order) -> int:
    """Serve in this process until told to stop; 0 after a clean drain."""
    settings = order.settings
    app = _application(order)
    listener = listen(settings.host, settings.port)
    stop_metrics = None
    if settings.metrics_port is not None:
        stop_metrics = private_metrics(
            settings.metrics_host, settings.metrics_port, lambda: render(app.metrics.registry)
        )
    url = url_of(settings.host, port_of(listener))
    server = Server(
        app,
        settings.drain_timeout_s,
        on_ready=lambda: print(f"lava-proxy serves on {url}", flush=True),
        on_drain=lambda: None,
        head_max_bytes=_head_max_bytes(settings),
    )
    try:
        return _run(server, listener)
    finally:
        if stop_metrics is not None:
            stop_metrics()


def run_child(channel: socket.socket, listener: socket.socket) -> int:
    """Serve as a worker, on the listener that the supervisor made."""
    order = receive_order(channel)
    app = _application(order)

    def ready() -> None:
        asyncio.get_running_loop().add_reader(channel, obey)
        tell(channel, READY)
        threading.Thread(target=_beat, args=(channel,), daemon=True).start()

    def obey() -> None:
        words = hear(channel)
        if words is None:  # the supervisor was killed
            asyncio.get_running_loop().remove_reader(channel)
            server.drain()
            return
        if DRAIN in words:
            server.drain()
        if HURRY in words:
            server.hurry()

    server = Server(
        app,
        order.settings.drain_timeout_s,
        on_ready=ready,
        on_drain=lambda: tell(channel, DRAINING),
        patient=True,
        head_max_bytes=_head_max_bytes(order.settings),
    )
    return _run(server, listener)


def _beat(channel: socket.socket) -> None:
    """A sign of life for the supervisor: not of the event loop, which has its own watchdog, but
    that any Python can run here."""
    while channel.fileno() >= 0:
        time.sleep(BEAT_S)
        tell(channel, BEAT)


def _head_max_bytes(settings: Settings) -> int:
    """What the server reads of a head before it refuses by itself: the application says more."""
    return 2 * settings.header_limit_bytes


def _application(order: Order) -> Served:
    set_up_logs(order.settings.log_level, redact, StreamCut)
    module, _, name = order.app.partition(":")
    return cast(Served, getattr(importlib.import_module(module), name)(order.settings))


def _run(server: Server, listener: socket.socket) -> int:
    try:
        server.run(sockets=[listener])
    except SystemExit:  # uvicorn's way to say that the lifespan's start failed; it was logged
        return START_FAILED_STATUS
    if server.broken is not None:
        return BROKEN_STATUS
    return 0 if server.started else START_FAILED_STATUS


def _main() -> int:
    """``python -m lava_proxy.cli.worker <channel fd> <listener fd>``."""
    channel, listener = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    try:
        return run_child(channel, listener)
    except ConfigurationError as failure:
        print(f"lava-proxy: {failure}", file=sys.stderr)
        return CONFIGURATION_STATUS


if __name__ == "__main__":
    sys.exit(_main())
