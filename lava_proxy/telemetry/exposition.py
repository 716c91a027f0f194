"""``/metrics``: the text that Prometheus reads, and who may read it.

On the public listener it needs ``Authorization: Bearer <LAVA_METRICS_TOKEN>``. Without a token it
is served to the machine itself only, and not through a proxy; everybody else gets 404, as if it
were not there. The private listener (`LAVA_METRICS_PORT`) asks nothing.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, MutableMapping
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    generate_latest,
    multiprocess,
    start_http_server,
)

from lava_proxy.core.errors import LavaError
from lava_proxy.core.settings import Settings
from lava_proxy.telemetry.metrics import several_workers

_FORWARDED = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})


def render(registry: CollectorRegistry) -> tuple[bytes, str]:
    """(body, content type): this process's metrics, or all workers' added up."""
    if several_workers():
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def check_access(scope: MutableMapping[str, Any], settings: Settings) -> None:
    """Raise 404 or 401 unless this request may read the metrics."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if settings.metrics_token is not None:
        wanted = b"Bearer " + settings.metrics_token.get_secret_value().encode()
        given = next((value for name, value in headers if name == b"authorization"), b"")
        if not hmac.compare_digest(given, wanted):
            raise LavaError("invalid_token", "The metrics need their own token.")
        return
    client = scope.get("client")
    local = client is not None and _is_loopback(client[0])
    if not local or any(name in _FORWARDED for name, _ in headers):
        raise LavaError("not_found", "There is nothing here.")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def serve_private(
    host: str, port: int, registry: CollectorRegistry | None
) -> tuple[int, Callable[[], None]]:
    """Serve ``/metrics`` without a token on a private address, in a thread of its own. With
    `registry` None it adds up all workers. Answers the port and a function that stops it."""
    if registry is None:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    server, thread = start_http_server(port, host, registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
