"""The provider table: which host speaks what, and which methods and paths may be reached at all.

Built-in rows come from providers.toml. Operators add rows in the same form (`with_providers`), and
other packages add families through the entry point group ``lava_proxy.adapters``, loaded only when
the operator names them (`load_family`); the built-in families go through the same door.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata, resources
from typing import Any

from .contract import Adapter
from .families import BUILTIN, Family
from .provider import Provider, RegistryError, Route
from .rows import CHANGEABLE, QUIRKS, read_provider

__all__ = ["ENTRY_POINTS", "Provider", "Registry", "RegistryError", "Route", "load_family"]

ENTRY_POINTS = "lava_proxy.adapters"


class Registry:
    """Providers by host and by id, and the adapters that speak to them. Immutable in use."""

    def __init__(
        self, providers: Iterable[Provider], families: Mapping[str, Family] = BUILTIN
    ) -> None:
        self.providers = tuple(providers)
        self._families = dict(families)
        self._adapters: dict[tuple[str, str, str], Adapter] = {}
        self._by_id: dict[str, Provider] = {}
        self._by_host: dict[str, Provider] = {}
        for provider in self.providers:
            self._enter(provider)

    @classmethod
    def builtin(cls) -> Registry:
        """The rows of providers.toml."""
        return cls(_builtin_providers())

    def by_host(self, host: str) -> Provider | None:
        """The provider behind an exact host, in lower case."""
        return self._by_host.get(host)

    def at(self, host: str, port: int | None) -> tuple[str, Provider] | None:
        """(host as its row has it, provider) behind an address; `port` None is the scheme's own.
        Rows of an operator may name ports."""
        for name in (f"{host}:{port}", host) if port is not None else (host,):
            provider = self._by_host.get(name)
            if provider is not None:
                return name, provider
        return None

    @property
    def own_hosts(self) -> frozenset[str]:
        """Hosts that no built-in row has: the operator has named them."""
        known = {host for provider in _builtin_providers() for host in provider.hosts}
        return frozenset(self._by_host) - known

    def by_id(self, provider_id: str) -> Provider | None:
        return self._by_id.get(provider_id)

    @property
    def price_names(self) -> Mapping[str, str]:
        """Provider id -> its name in the bundled prices."""
        return {provider.id: provider.prices for provider in self.providers if provider.prices}

    def adapter(self, provider: Provider, route: Route) -> Adapter:
        """The adapter for a route; one instance per provider, family and kind."""
        key = (provider.id, route.family, route.kind)
        adapter = self._adapters.get(key)
        if adapter is None:
            adapter = self._families[route.family](provider.quirks, route.kind)
            self._adapters[key] = adapter
        return adapter

    def with_providers(self, rows: Iterable[Mapping[str, Any]]) -> Registry:
        """A registry with these rows too. A row with an id already known adds `hosts` and `models`
        to that provider, sets its quirks (`CHANGEABLE`), and the `base` of one whose hosts are all
        the operator's. One that is `like` a known provider is another of its kind: same routes,
        hosts and key of its own."""
        providers = dict(self._by_id)
        for row in rows:
            provider = _read(row, providers)
            providers[provider.id] = provider
        return Registry(providers.values(), self._families)

    def with_families(self, families: Mapping[str, Family]) -> Registry:
        """A registry that knows these families too."""
        twice = sorted(set(families) & set(self._families))
        if twice:
            raise RegistryError(f"family {twice[0]!r} exists already")
        return Registry(self.providers, self._families | dict(families))

    def _enter(self, provider: Provider) -> None:
        if provider.id in self._by_id:
            raise RegistryError(f"provider {provider.id!r} is listed twice")
        self._by_id[provider.id] = provider
        for host in provider.hosts:
            if host in self._by_host:
                raise RegistryError(f"host {host!r} is listed twice")
            self._by_host[host] = provider
        for route in provider.routes:
            if route.family not in self._families:
                raise RegistryError(f"{provider.id}: unknown family {route.family!r}")


def read_rows(text: str) -> list[Mapping[str, Any]]:
    """The rows of a provider file: ``[[provider]]`` tables and nothing else."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"not TOML: {error}") from None
    rows = document.pop("provider", [])
    if document or type(rows) is not list or any(type(row) is not dict for row in rows):
        raise RegistryError("a provider file holds [[provider]] tables and nothing else")
    return list(rows)


def load_family(name: str) -> Family:
    """The family of another package, by its entry point's name."""
    found = [point for point in metadata.entry_points(group=ENTRY_POINTS) if point.name == name]
    if len(found) != 1:
        raise RegistryError(f"{len(found)} entry points of group {ENTRY_POINTS} are named {name!r}")
    family: Family = found[0].load()
    return family


def _read(given: Mapping[str, Any], providers: Mapping[str, Provider]) -> Provider:
    """One more row: of a provider that is known already, of another like it, or of a new one."""
    row = dict(given)
    like = row.pop("like", None)
    known = providers.get(str(row.get("id")))
    if like is not None:
        provider = _another(providers.get(str(like)), row)
    elif known is not None and _adds(known, set(row)):
        return _joined(known, row)
    else:
        provider = read_provider(row)
    if provider.id in providers:
        raise RegistryError(f"provider {provider.id!r} exists already")
    return provider


def _adds(known: Provider, members: set[str]) -> bool:
    allowed = {"id", "hosts", "models", *CHANGEABLE}
    if known.base.endswith(".invalid"):
        allowed.add("base")
    return {"id"} < members <= allowed


def _joined(known: Provider, row: Mapping[str, Any]) -> Provider:
    more = read_provider({"base": known.base, "hosts": list(known.hosts), **row})
    hosts = known.hosts + more.hosts if "hosts" in row else known.hosts
    models = {**known.models, **more.models}
    return replace(_changed(known, more, row), hosts=hosts, base=more.base, models=models)


def _changed(known: Provider, more: Provider, row: Mapping[str, Any]) -> Provider:
    """`known` with the quirks that the operator's row states."""
    stated = {name: getattr(more.quirks, name) for name in QUIRKS if name in row}
    plain = {name: getattr(more, name) for name in CHANGEABLE - QUIRKS.keys() if name in row}
    return replace(known, quirks=replace(known.quirks, **stated), **plain)


def _another(known: Provider | None, row: Mapping[str, Any]) -> Provider:
    needed = {"id", "hosts", "base"}
    if known is None or not needed <= set(row) <= needed | {"label", "models", *CHANGEABLE}:
        raise RegistryError(
            f"provider {row.get('id')!r}: `like` names a known provider, and goes with id, hosts, "
            f"base, label, models, {', '.join(sorted(CHANGEABLE))} only"
        )
    more = read_provider(row)
    return replace(
        _changed(known, more, row),
        id=more.id,
        label=more.label,
        hosts=more.hosts,
        base=more.base,
        models=more.models,
        prices=known.prices or known.id,
    )


@cache
def _builtin_providers() -> tuple[Provider, ...]:
    text = resources.files(__package__).joinpath("providers.toml").read_text("utf-8")
    return tuple(read_provider(row) for row in tomllib.loads(text)["provider"])
