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
from .rows import read_provider

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

    def by_id(self, provider_id: str) -> Provider | None:
        return self._by_id.get(provider_id)

    def adapter(self, provider: Provider, route: Route) -> Adapter:
        """The adapter for a route; one instance per provider, family and kind."""
        key = (provider.id, route.family, route.kind)
        adapter = self._adapters.get(key)
        if adapter is None:
            adapter = self._families[route.family](provider.quirks, route.kind)
            self._adapters[key] = adapter
        return adapter

    def with_providers(self, rows: Iterable[Mapping[str, Any]]) -> Registry:
        """A registry with these rows too. A row that has only an id already known and `hosts`
        adds hosts to that provider, and a `base` to one whose hosts are all the operator's."""
        providers = dict(self._by_id)
        for row in rows:
            known = providers.get(str(row.get("id")))
            if known is not None and _adds_hosts(known, set(row)):
                more = read_provider({"base": known.base, **row})
                hosts = known.hosts + more.hosts
                providers[known.id] = replace(known, hosts=hosts, base=more.base)
                continue
            provider = read_provider(row)
            if provider.id in providers:
                raise RegistryError(f"provider {provider.id!r} exists already")
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


def _adds_hosts(known: Provider, members: set[str]) -> bool:
    allowed = {"id", "hosts"}
    return members == allowed or (known.base.endswith(".invalid") and members == allowed | {"base"})


@cache
def _builtin_providers() -> tuple[Provider, ...]:
    text = resources.files(__package__).joinpath("providers.toml").read_text("utf-8")
    return tuple(read_provider(row) for row in tomllib.loads(text)["provider"])
