"""``/metrics``: the text that Prometheus reads, and who may read it.

On the public listener it needs ``Authorization: Bearer <LAVA_METRICS_TOKEN>``. Without a token it
is served to the machine itself only, and not through a proxy; everybody else gets 404, as if it
were not there. A proxy on the same machine need not say that it is one, so all that tells must be
right: our own address and name are the loopback's, the protocol is no proxy's default, no header is
of one. The private listener (`LAVA_METRICS_PORT`) asks nothing. It also has ``/readyz``, which
answers when an event loop does not.

With several workers any of them, and the supervisor, can answer for all: the figures are in files.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any, Protocol
from urllib.parse import urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector

from lava_proxy.core.errors import LavaError
from lava_proxy.core.settings import Settings
from lava_proxy.telemetry.batched import whole
from lava_proxy.telemetry.metrics import workers_folder

READER_TIMEOUT_S = 5.0
"""A connection to the private listener may be silent for so long."""

_FORWARDED = re.compile(
    rb"x-forwarded.*|forwarded|via"
    rb"|(?:x-real|true-client|x-client|x-cluster-client|cf-connecting)-ip"
)
_LOCAL_HOST = re.compile(rb"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE)
_STALLED = re.compile(rb"^lava_loop_stalled (\S+)$", re.MULTILINE)
_CLOSED = 3
"""Of `lava_books_state`, by the table."""
_STATE = re.compile(rb"^lava_books_state (\S+)$", re.MULTILINE)
_RENDER_TRIES = 3


Answer = tuple[bytes, str]
"""Body and content type."""


def render(registry: CollectorRegistry) -> Answer:
    """(body, content type): this process's metrics, or all workers' added up."""
    folder = workers_folder()
    return (_text(registry), CONTENT_TYPE_LATEST) if folder is None else render_workers(folder)


def render_workers(folder: Path) -> Answer:
    """The metrics of all workers whose files are in `folder`."""
    for left in reversed(range(_RENDER_TRIES)):
        try:
            collector = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
            return _text(collector), CONTENT_TYPE_LATEST
        except FileNotFoundError:  # a file went between the listing and the reading
            if not left:
                raise
    raise AssertionError("not reached")


def check_access(scope: MutableMapping[str, Any], settings: Settings) -> None:
    """Raise 404 or 401 unless this request may read the metrics."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if settings.metrics_token is not None:
        wanted = settings.metrics_token.get_secret_value().encode()
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), wanted):
            raise LavaError("invalid_token", "The metrics need their own token.")
        return
    client = scope.get("client")
    local = client is not None and _is_loopback(client[0])
    if not local or _serves_others(settings) or _is_proxied(scope["http_version"], headers):
        raise LavaError("not_found", "There is nothing here.")


def serve_private(
    host: str, port: int, text: Callable[[], Answer]
) -> tuple[int, Callable[[], None]]:
    """Serve ``/metrics`` and ``/readyz`` without a token on a private address, in a thread of its
    own. Answers the port and a function that stops it. OSError: the address cannot be had."""
    server = _PrivateServer(host, port, text)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop


def not_ready(metrics: bytes) -> str | None:
    """Why no new call should come here, by the metrics as text: ``stalled``, ``closed`` or None."""
    if any(float(value) > 0 for value in _STALLED.findall(metrics)):
        return "stalled"
    return "closed" if any(float(value) >= _CLOSED for value in _STATE.findall(metrics)) else None


class _Collects(Protocol):
    """What both registries and the collector of several workers can do."""

    def collect(self) -> Iterable[Family]: ...


class _Shown:
    """A registry's families with histograms whole, less their ``_created`` samples: they double the
    series, are missing with several workers, and nobody asks for them."""

    def __init__(self, source: _Collects) -> None:
        self._source = source

    def collect(self) -> Iterator[Family]:
        for family in whole(self._source.collect()):
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


def _text(source: _Collects) -> bytes:
    return generate_latest(_Shown(source))


def _serves_others(settings: Settings) -> bool:
    """Whether the settings say that clients come from elsewhere."""
    public = urlsplit(settings.public_url or "").hostname or "localhost"
    return not all(host == "localhost" or _is_loopback(host) for host in (settings.host, public))


def _is_proxied(http_version: str, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request came, or may well have come, through a proxy on this machine. nginx speaks
    1.0 unless it is told otherwise."""
    named = [value for name, value in headers if name == b"host"]
    local = len(named) == 1 and _LOCAL_HOST.fullmatch(named[0].strip()) is not None
    told = any(_FORWARDED.fullmatch(name) for name, _ in headers)
    return http_version == "1.0" or told or not local


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class _PrivateServer(ThreadingHTTPServer):
    """Answers ``GET /metrics`` with `text`, and ``GET /readyz`` by it; every other path is 404."""

    def __init__(self, host: str, port: int, text: Callable[[], Answer]) -> None:
        self.address_family = AF_INET6 if ":" in host else AF_INET
        self.text = text
        super().__init__((host, port), _PrivateHandler)


class _PrivateHandler(BaseHTTPRequestHandler):
    server: _PrivateServer
    timeout = READER_TIMEOUT_S

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path not in ("/metrics", "/readyz"):
            self.send_error(404)
            return
        body, content_type = self.server.text()
        status = 200
        if path == "/readyz":
            why = not_ready(body)
            status = 503 if why else 200
            body, content_type = b'{"status":"%s"}' % (why or "ready").encode(), "application/json"
        self.send_response_only(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a scrape is no event."""
