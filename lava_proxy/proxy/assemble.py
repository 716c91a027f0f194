"""Puts the gateway's parts together from the settings, once at start."""

from __future__ import annotations

import asyncio
import difflib
import ipaddress
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from lava_adapters.models import Models
from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.errors import LavaError
from lava_proxy.core.provider_keys import name_of
from lava_proxy.core.providers import named_hosts
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.net.google_account import TOKEN_HOST
from lava_proxy.net.http1.request import parse_origin, split_url
from lava_proxy.net.upstream import Timeouts, Upstreams
from lava_proxy.proxy import silence
from lava_proxy.proxy.caller import Callers
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.head import Heads
from lava_proxy.proxy.managed import ManagedKeys
from lava_proxy.proxy.run import Draining, OpenRuns
from lava_proxy.proxy.turnstile import Turnstile
from lava_proxy.proxy.watch import Watchers
from lava_proxy.rules.estimate import Profile
from lava_proxy.rules.quote import OutputLimits
from lava_proxy.rules.settlement import Booked, Settlement
from lava_proxy.telemetry.metrics import Metrics


class Egress(NamedTuple):
    """Where calls go, and with which keys."""

    origins: dict[str, str]
    """Host -> base URL, where it is another than https under that name."""
    keys: ManagedKeys


def egress_of(settings: Settings, registry: Registry) -> Egress:
    """Raises `ConfigurationError` for what names no provider, and for a base or a key that may not
    be used: before anything is started."""
    known = {provider.id for provider in registry.providers}
    for name in sorted(set(settings.client_drain_providers) - known):
        raise ConfigurationError(f"LAVA_CLIENT_DRAIN_PROVIDERS: there is no provider {name!r}")
    for name in sorted(settings.provider_keys.keys() - known):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {name_of(near[0])}?" if near else ""
        raise ConfigurationError(f"{name_of(name)}: there is no provider {name!r}{hint}")
    return Egress(_origins_of(registry, settings), ManagedKeys(settings, registry))


def make_gateway(
    settings: Settings, books: Books, registry: Registry, metrics: Metrics, egress: Egress
) -> Gateway:
    """To be called in the event loop that will serve."""
    origins, keys = egress
    loop = asyncio.get_running_loop()
    open_runs = OpenRuns(
        stall_s=settings.client_stall_s,
        longest_s=settings.stream_max_s,
        draining=Draining(
            frozenset(settings.client_drain_providers),
            settings.client_drain_max_s,
            settings.client_drain_tokens,
            settings.client_drains_max,
        ),
    )
    upstreams = Upstreams(
        Timeouts(
            settings.connect_timeout_s,
            settings.first_byte_timeout_s,
            settings.idle_timeout_s,
            settings.pool_timeout_s,
        ),
        connections_per_host=settings.upstream_connections_per_host,
        named_hosts=frozenset(urlsplit(base).netloc for base in origins.values()),
    )
    keys.open(upstreams, origins.get(TOKEN_HOST, f"https://{TOKEN_HOST}"), books.clock)
    return Gateway(
        settings=settings,
        books=books,
        registry=registry,
        keys=keys,
        models=Models(registry),
        upstreams=upstreams,
        callers=Callers(books.directory, books.clock),
        heads=Heads(settings.header_limit_bytes),
        metrics=metrics,
        turnstile=Turnstile(loop),
        open_runs=open_runs,
        watchers=Watchers(loop, open_runs, books.clock),
        limits=OutputLimits.of(settings),
        origins=origins,
        profiles={
            p.id: Profile(p.one_token_events, p.bytes_per_token_e3) for p in registry.providers
        },
        prefixes=tuple((p.id, p.base) for p in registry.providers),
        registry_hosts=named_hosts(registry, settings),
        response_prefixes={
            p.id: tuple(name.encode() for name in p.response_headers) for p in registry.providers
        },
        count=_tokenizer() if settings.exact_tokens else None,
    )


def _origins_of(registry: Registry, settings: Settings) -> dict[str, str]:
    """Where hosts are called in another way than https under their own name: those of the
    operator's rows by their base, and overrides (exact host, or ``*.suffix``) above all."""
    origins = {host: f"https://{host}" for host in registry.own_hosts}
    for provider in registry.providers:
        host = urlsplit(provider.base).netloc
        if host in origins:
            _check_base("LAVA_PROVIDERS_FILE", provider.id, provider.base, settings)
            origins[host] = provider.base
    hosts = [host for provider in registry.providers for host in provider.hosts]
    for pattern, base in settings.upstream_overrides.items():
        _check_base("LAVA_UPSTREAM_OVERRIDES", pattern, base, settings)
        suffix = pattern[1:] if pattern.startswith("*.") else None
        matching = [pattern] if suffix is None else [h for h in hosts if h.endswith(suffix)]
        for host in matching:
            origins[host] = base.rstrip("/")
    return origins


def sweep(gateway: Gateway) -> None:
    """Watch the clocks of open calls; count them; renew tokens."""
    gateway.keys.tend()
    leases = gateway.books.leases
    over = {a.owner_id for a in leases.accounts.values() if a.held_e10 and not leases.in_grace(a)}
    now_s = gateway.books.clock.boot_s()
    gateway.open_runs.sweep(now_s, over)
    silence.journal(gateway, now_s)
    runs = gateway.open_runs.runs
    gateway.metrics.sample_open(
        calls=len(runs),
        streams=sum(1 for run in runs if run.ask is not None and run.ask.stream),
        holds=sum(1 for run in runs if run.holds is not None and run.holds.parts),
        drains=gateway.open_runs.drains,
    )


def tell_booked(metrics: Metrics, rows: Sequence[tuple[Settlement, Booked]]) -> None:
    """A batch was committed: its money counts now, and what went wrong with it. Money is added up
    first: a counter of the library costs as much as all else that is done with a booked row."""
    money: dict[str, list[int]] = {}
    for row, booked in rows:
        if booked.owed_e10:
            metrics.anomaly("debt")
        if booked.quarantined:
            metrics.anomaly("quarantined")
        if booked.fresh:
            sums = money.setdefault(row.call.provider, [0, 0])
            sums[0] += max(0, row.cost.total_e10) if row.cost else 0
            sums[1] += booked.charge_e10
    for provider, (cost_e10, charge_e10) in money.items():
        metrics.booked(provider, cost_e10, charge_e10)


def _check_base(setting: str, name: str, base: str, settings: Settings) -> None:
    """Provider keys travel in the clear over http: only to this machine, unless it is allowed."""
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ConfigurationError(f"{setting}: {name}: {base!r} is no base URL")
    try:
        parse_origin(split_url(base)[0])  # as each call will
    except LavaError as error:
        raise ConfigurationError(f"{setting}: {name}: {base!r}: {error.message}") from None
    plain = parts.scheme == "http" and not settings.allow_insecure_upstreams
    if plain and not _is_loopback(parts.hostname):
        raise ConfigurationError(
            f"{setting}: {name}: http is for the loopback; use https, or set "
            "LAVA_ALLOW_INSECURE_UPSTREAMS=1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tokenizer() -> Callable[[str], int] | None:
    """The exact tokenizer of the extra ``[tokens]``; None where it is not installed."""
    try:
        from rs_bpe import openai
    except ImportError:
        return None
    count: Callable[[str], int] = openai.o200k_base().count
    return count
