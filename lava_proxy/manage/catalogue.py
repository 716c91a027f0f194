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
from typing import Any, Literal, NotRequired

import orjson
from typing_extensions import TypedDict

from lava_adapters.registry import Provider, Registry, Route
from lava_proxy.manage.pricing import Pricing, pricing_of
from lava_proxy.rules.pricelist import Priced, priced

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
    "ocr": "ocr",
    "prediction": "prediction",
}
"""Kinds of routes that are services, the usual one for a type first. The others are errands."""
NAMED: Sequence[tuple[tuple[str, ...], str]] = (
    (("rerank",), "rerank"),
    (("transcri", "whisper"), "transcription"),
    (("tts",), "speech"),
    (("gpt-image", "chatgpt-image"), "image"),
)
"""What the name of a model that is paid by tokens tells of the route that it is called on."""
TALKING = ("realtime", "-live", "-voice")
"""Parts of the names of models that are talked to over a WebSocket: nothing here leads to them."""
PAUSE_EVERY = 20
"""Models from one pause for running streams to the next."""
UNNAMED = ".invalid"
"""How the base of a provider ends whose host only the operator knows."""


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
        self._making = asyncio.Lock()

    async def whole(self, now: datetime) -> bytes:
        """The catalogue: made for all who ask on a day, and with pauses for running streams."""
        day, body = self._whole
        if day != now.date():
            body = listing([await self._part(each, now) for each in self._providers.values()])
            self._whole = (now.date(), body)
        return body

    async def part(self, provider_id: str, now: datetime) -> Part | None:
        """A provider's share; None where there is no such provider."""
        provider = self._providers.get(provider_id)
        return None if provider is None else await self._part(provider, now)

    async def _part(self, provider: Provider, now: datetime) -> Part:
        async with self._making:  # those who ask meanwhile wait for it
            known = self._parts.get(provider.id)
            if known is None or known.day != now.date():
                known = self._parts[provider.id] = await self._made(provider, now)
            return known

    async def _made(self, provider: Provider, now: datetime) -> Part:
        managed = provider.id in self._managed
        entries: list[bytes] = []
        for place, entry in enumerate(_entries(provider, now, managed=managed)):
            entries.append(_dump(entry))
            if place % PAUSE_EVERY == 0:
                await asyncio.sleep(0)
        summary: ServiceProvider = {
            "id": provider.id,
            "label": provider.label,
            "api_reference": provider.docs,
            "service_type": next((SERVICE_TYPES[r.kind] for _, r in _services(provider)), "other"),
            "managed": managed,
            "entry_count": len(entries),
        }
        return Part(now.date(), b",".join(entries), _dump(summary))


def listing(parts: Sequence[Part]) -> bytes:
    """The answer that shows these shares."""
    entries = b",".join(part.entries for part in parts if part.entries)
    summaries = b",".join(part.summary for part in parts)
    return b'{"object":"list","data":[%b],"providers":[%b]}' % (entries, summaries)


def _entries(provider: Provider, now: datetime, *, managed: bool) -> Iterator[ServiceView]:
    """Models on the route that they are called on, then routes."""
    services = _services(provider)
    usual: dict[str, tuple[str, Route]] = {}
    for method, route in services:
        usual.setdefault(SERVICE_TYPES[route.kind], (method, route))
    for model in priced(provider.prices or provider.id, now):
        if any(part in model.model for part in TALKING):
            continue
        pricing = pricing_of(model)
        found = usual.get(_service_of(model, pricing))
        if found is None and "output_1m" in pricing["rates"]:
            found = usual.get("llm")  # it makes sound or pictures within a chat
        if found is not None:
            yield _model(provider, *found, model.model, pricing, managed=managed)
    for method, route in services:
        yield _entry(provider, method, route, managed=managed)


def _services(provider: Provider) -> list[tuple[str, Route]]:
    """A provider's routes that are services, the usual one first."""
    found = [(route.methods[0], route) for route in provider.routes if route.kind in SERVICE_TYPES]
    ranks = list(SERVICE_TYPES)
    return sorted(found, key=lambda one: ranks.index(one[1].kind))


def _service_of(model: Priced, pricing: Pricing) -> str:
    """What a model does: by what it is paid for, else by its name."""
    rates = pricing["rates"]
    for unit, service in (("page", "ocr"), ("search_unit", "rerank")):
        if unit in rates:
            return service
    if pricing["type"] != "tokens_1m":
        return "speech" if pricing["type"] == "characters_1m" else "transcription"
    name = model.model.lower()
    for parts, service in NAMED:
        if any(part in name for part in parts):
            return service
    return "llm" if "output_1m" in rates else "embeddings"


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
    provider: Provider, method: str, route: Route, model: str, pricing: Pricing, *, managed: bool
) -> ServiceView:
    entry = _entry(provider, method, route, managed=managed)
    entry["id"] = f"{provider.id}/{model}"
    entry["object"] = "model"
    example = _example(route.kind, model)
    if example is not None:
        entry["example_body"] = example
    entry["pricing"] = pricing
    return entry


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
