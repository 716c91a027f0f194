"""Which provider serves a model, for callers who name a model and no URL.

The table is models.toml. ``provider/model`` names the provider itself, so a model of any provider
can be reached; what stands behind the slash is the name that the provider knows.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Literal

from .provider import Provider, RegistryError, Route
from .registry import Registry

Kind = Literal["chat", "messages"]
"""What is asked: OpenAI's chat completions, or Anthropic's messages."""

_FAMILIES: Mapping[Kind, str] = {"chat": "openai_chat", "messages": "anthropic_messages"}


@dataclass(frozen=True, slots=True)
class Served:
    """Where a model is served, and what it is called there."""

    provider: Provider
    route: Route
    model: str


class Models:
    """The table over a registry's providers. Immutable."""

    def __init__(self, registry: Registry) -> None:
        table = _table()
        self._registry = registry
        self._names: dict[str, str] = {}
        self._prefixes: dict[str, str] = {}
        for row in table["provider"]:
            if registry.by_id(row["id"]) is None:
                raise RegistryError(f"models.toml: there is no provider {row['id']!r}")
            self._names |= dict.fromkeys(row.get("names", ()), row["id"])
            self._prefixes |= dict.fromkeys(row.get("prefixes", ()), row["id"])
        self._plain = _any_of(self._prefixes)
        self._slashed = _any_of(prefix for prefix in self._prefixes if "/" in prefix)
        self._owners = frozenset(row["id"] for row in table["provider"])
        self._not_text: tuple[str, ...] = tuple(table["not_text"])
        checked = datetime.strptime(table["checked"], "%Y-%m-%d").replace(tzinfo=UTC)
        self.checked_s = int(checked.timestamp())
        """When the table was last compared with the models of genai-prices."""

    def served(self, model: str, kind: Kind) -> Served | None:
        """Where `model` is served in this way; None when nowhere that we know of."""
        placed = self._placed(model)
        if placed is None:
            return None
        provider, name = placed
        route = route_of(provider, kind)
        return None if route is None else Served(provider, route, name)

    def has(self, provider_id: str) -> bool:
        """Whether the table says anything of a provider."""
        return provider_id in self._owners

    def makes_text(self, model: str) -> bool:
        """Whether a model is one to chat with, as far as its name tells."""
        name = model.lower()
        return not any(word in name for word in self._not_text)

    def _placed(self, model: str) -> tuple[Provider, str] | None:
        provider_id = self.owner(model)
        name = model
        if provider_id is None:
            provider_id, _, name = model.partition("/")
        provider = self._registry.by_id(provider_id)
        return None if provider is None or not name else (provider, name)

    def owner(self, model: str) -> str | None:
        """The provider that the table has for a name."""
        name = model.lower()
        exact = self._names.get(name)
        if exact is not None:
            return exact
        prefix = (self._slashed if "/" in name else self._plain).match(name)
        return self._prefixes[prefix.group()] if prefix else None


def route_of(provider: Provider, kind: Kind) -> Route | None:
    """The provider's own route for this; None where it has none, or no address by default."""
    if provider.base.endswith(".invalid"):
        return None
    for route in provider.routes:
        if route.kind == kind and route.family == _FAMILIES[kind] and "{" not in route.path:
            return route
    return None


def _any_of(prefixes: Iterable[str]) -> re.Pattern[str]:
    """The longest of these that a name begins with."""
    return re.compile("|".join(map(re.escape, sorted(prefixes, key=len, reverse=True))))


@cache
def _table() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("models.toml").read_text("utf-8")
    return tomllib.loads(text)
