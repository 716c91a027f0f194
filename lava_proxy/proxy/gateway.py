"""What every call needs, put together once at start and passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lava_adapters.models import Models
from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.settings import Settings
from lava_proxy.net.upstream import Upstreams
from lava_proxy.proxy.caller import Callers
from lava_proxy.proxy.head import Heads
from lava_proxy.proxy.managed import ManagedKeys
from lava_proxy.proxy.run import OpenRuns
from lava_proxy.proxy.turnstile import Turnstile
from lava_proxy.proxy.unasked import UnaskedServers
from lava_proxy.proxy.watch import Watchers
from lava_proxy.rules.estimate import Profile
from lava_proxy.rules.quote import OutputLimits
from lava_proxy.telemetry.metrics import Metrics


@dataclass(slots=True)
class Gateway:
    """The gateway's parts. `count` is an exact tokenizer, where the extra is installed."""

    settings: Settings
    books: Books
    registry: Registry
    keys: ManagedKeys
    models: Models
    upstreams: Upstreams
    callers: Callers
    heads: Heads
    metrics: Metrics
    open_runs: OpenRuns
    turnstile: Turnstile
    watchers: Watchers
    limits: OutputLimits
    origins: dict[str, str]
    """Host -> the origin (and path prefix) to call: the provider's own, or an override."""
    profiles: dict[str, Profile]
    prefixes: tuple[tuple[str, str], ...]
    """(name, base URL) of the ``/{provider}/...`` routes."""
    registry_hosts: frozenset[str]
    """Hosts that the operator named: they may be plain http, have ports, be private."""
    response_prefixes: dict[str, tuple[bytes, ...]]
    count: Callable[[str], int] | None = None
    unasked_servers: UnaskedServers = field(default_factory=UnaskedServers)
    draining: bool = False

    def origin(self, host: str) -> str:
        """Where to send a request for a host of the provider table."""
        return self.origins.get(host) or f"https://{host}"
