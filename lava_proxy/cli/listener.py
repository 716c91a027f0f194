"""Listening sockets: workers have one each on the same port (SO_REUSEPORT), so that the kernel
spreads connections evenly (on Linux; elsewhere it works, but less evenly)."""

from __future__ import annotations

import socket
from collections.abc import Callable

from lava_proxy.core.settings import ConfigurationError
from lava_proxy.telemetry.exposition import serve_private

BACKLOG = 2048


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; with `shared` others may listen on the same port. Port 0: any free one.
    It takes connections at once; they wait until a worker accepts them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from None
    return sock


def port_of(sock: socket.socket) -> int:
    """The real port, also where 0 was asked for."""
    port: int = sock.getsockname()[1]
    return port


def url_of(host: str, port: int) -> str:
    """``http://host:port``, for people."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def private_metrics(
    host: str, port: int, text: Callable[[], tuple[bytes, str]]
) -> Callable[[], None]:
    """Open the private listener for ``/metrics`` and ``/readyz``; answers what stops it."""
    try:
        port, stop = serve_private(host, port, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from None
    print(f"lava-proxy: metrics on {url_of(host, port)}/metrics", flush=True)
    return stop
