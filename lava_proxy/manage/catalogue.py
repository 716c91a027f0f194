"""What can be called through this gateway: the provider table and the models with a list price.

Made once a day per provider, when somebody asks, and kept as bytes. Entries that are models name
the route that they are called on; all other routes are entries of their own. Prices are the bundled
list's, as numbers; a merchant's own are at ``/v1/prices``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired

import orjson
from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from lava_adapters.registry import Provider, Registry, Route
from lava_proxy.rules.pricelist import Listed, listed

SERVICE_TYPES: Mapping[str, str] = {
    "chat": "llm",
    "messages": "llm",
    "gemini": "llm",
    "converse": "llm",
    "responses": "llm",
    "completions": "llm",
    "generate": "llm",
    "invoke": "llm",
    "interactions": "llm",
    "embeddings": "embeddings",
    "embed": "embeddings",
    "rerank": "rerank",
    "speech": "speech",
    "transcription": "transcription",
    "images": "image",
    "prediction": "prediction",
}
"""Kinds of routes that are services, the usual one for a type first. The others are errands."""
UNNAMED = ".invalid"
"""How the base of a provider ends whose host only the operator knows."""

Number = Annotated[Decimal, WithJsonSchema({"type": "number", "minimum": 0})]


class Pricing(TypedDict):
    """USD per million tokens, by the list."""

    type: Literal["tokens_1m"]
    input: Number
    output: NotRequired[Number]
    cache_input_read: NotRequired[Number]
    cache_input_write: NotRequired[Number]


class ServiceView(TypedDict):
    """Something to call. `managed`: the operator's key can be used."""

    id: str
    object: Literal["model", "endpoint"]
    provider: str
    provider_label: str
    api_reference: str
    endpoint: str
    method: str
    url_template: str
    service_type: str
    managed: bool
    capabilities: list[str]
    example_body: NotRequired[Any]
    pricing: NotRequired[Pricing]


class ServiceProvider(TypedDict):
    """A provider, and how many entries it has."""

    id: str
    label: str
    api_reference: str
    service_type: str
    managed: bool
    entry_count: int


class Services(TypedDict):
    """The catalogue."""

    object: Literal["list"]
    data: list[ServiceView]
    providers: list[ServiceProvider]


@dataclass(frozen=True, slots=True)
class Part:
    """One provider's share of the catalogue, as bytes."""

    day: date
    entries: bytes
    summary: bytes


class Catalogue:
    """The shares that were asked for, remade when the day is over: list prices have dates."""

    def __init__(self, registry: Registry, managed: Collection[str]) -> None:
        """`managed`: providers for which the operator has a key."""
        self._providers = {p.id: p for p in registry.providers if not p.base.endswith(UNNAMED)}
        self._managed = frozenset(managed)
        self._parts: dict[str, Part] = {}
        self._whole = (date.min, b"")

    async def whole(self, now: datetime) -> bytes:
        """The catalogue: made for all who ask on a day, and with pauses for running streams."""
        day, body = self._whole
        if day != now.date():
            parts = []
            for provider in self._providers.values():
                parts.append(self._part(provider, now))
                await asyncio.sleep(0)
            body = listing(parts)
            self._whole = (now.date(), body)
        return body

    def part(self, provider_id: str, now: datetime) -> Part | None:
        """A provider's share; None where there is no such provider."""
        provider = self._providers.get(provider_id)
        return None if provider is None else self._part(provider, now)

    def _part(self, provider: Provider, now: datetime) -> Part:
        known = self._parts.get(provider.id)
        if known is not None and known.day == now.date():
            return known
        managed = provider.id in self._managed
        models = list(listed(provider.prices, now)) if provider.prices else []
        entries = list(_entries(provider, models, managed=managed))
        summary: ServiceProvider = {
            "id": provider.id,
            "label": provider.label,
            "api_reference": provider.docs,
            "service_type": entries[0]["service_type"] if entries else "other",
            "managed": managed,
            "entry_count": len(entries),
        }
        part = Part(now.date(), _dump(entries)[1:-1], _dump(summary))
        self._parts[provider.id] = part
        return part


def listing(parts: Sequence[Part]) -> bytes:
    """The answer that shows these shares."""
    entries = b",".join(part.entries for part in parts if part.entries)
    summaries = b",".join(part.summary for part in parts)
    return b'{"object":"list","data":[%b],"providers":[%b]}' % (entries, summaries)


def _entries(
    provider: Provider, models: Sequence[Listed], *, managed: bool
) -> Iterator[ServiceView]:
    """Models on the route that they are called on, then routes."""
    services = [
        (route.methods[0], route) for route in provider.routes if route.kind in SERVICE_TYPES
    ]
    ranks = list(SERVICE_TYPES)
    services.sort(key=lambda one: ranks.index(one[1].kind))
    usual: dict[str, tuple[str, Route]] = {}
    for method, route in services:
        usual.setdefault(SERVICE_TYPES[route.kind], (method, route))
    for model in models:
        found = usual.get("embeddings" if model.output is None else "llm")
        if found is not None:
            yield _model(provider, *found, model, managed=managed)
    for method, route in services:
        yield _entry(provider, method, route, managed=managed)


def _entry(provider: Provider, method: str, route: Route, *, managed: bool) -> ServiceView:
    url = provider.base + route.path
    kind = SERVICE_TYPES[route.kind]
    return {
        "id": f"{provider.id}{route.path}",
        "object": "endpoint",
        "provider": provider.id,
        "provider_label": provider.label,
        "api_reference": provider.docs,
        "endpoint": f"{method} {url}",
        "method": method,
        "url_template": url,
        "service_type": kind,
        "managed": managed and route.managed,
        "capabilities": ["streaming"] if kind == "llm" else [],
    }


def _model(
    provider: Provider, method: str, route: Route, model: Listed, *, managed: bool
) -> ServiceView:
    entry = _entry(provider, method, route, managed=managed)
    entry["id"] = f"{provider.id}/{model.model}"
    entry["object"] = "model"
    example = _example(route.kind, model.model)
    if example is not None:
        entry["example_body"] = example
    if model.input is not None:
        entry["pricing"] = _pricing(model, model.input)
    return entry


def _pricing(model: Listed, per_input: Decimal) -> Pricing:
    pricing: Pricing = {"type": "tokens_1m", "input": per_input}
    if model.output is not None:
        pricing["output"] = model.output
    if model.cache_read is not None:
        pricing["cache_input_read"] = model.cache_read
    if model.cache_write is not None:
        pricing["cache_input_write"] = model.cache_write
    return pricing


def _example(kind: str, model: str) -> Mapping[str, object] | None:
    hello = [{"role": "user", "content": "Hello"}]
    if kind == "chat":
        return {"model": model, "messages": hello}
    if kind == "messages":
        return {"model": model, "max_tokens": 1024, "messages": hello}
    if kind == "embeddings":
        return {"model": model, "input": "Hello"}
    return None


def _dump(value: object) -> bytes:
    return orjson.dumps(value, default=_number)


def _number(value: object) -> orjson.Fragment:
    """A price as a JSON number, digit by digit."""
    if not isinstance(value, Decimal):
        raise TypeError(type(value).__name__)
    return orjson.Fragment(format(value, "f"))
