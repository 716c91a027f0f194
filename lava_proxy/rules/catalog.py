"""Which price holds for a model: the operator's table first, then genai-prices, compiled once.

Order: an override for exactly this model, the override with the longest matching prefix, the
bundled data, the provider's default override. Unknown stays unknown: None, never free. A model
that the data lists without any price is unknown too, unless its name says ``:free``.

genai-prices keeps dated, time-of-day and service-tier prices; they are resolved for one `at` and
one tier, so a compiled price holds for its bucket (`bucket`: one UTC minute; every boundary in the
data is a whole minute, and compiling again costs microseconds). Its own lookup caches grow with
every model name that a caller invents, so we go around them and keep one bounded table.

The price data are a process-wide constant of an installed package: reading them is no I/O of ours.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

import genai_prices
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from lava_proxy.core.money import E12, MoneyError, parse_rate_e12
from lava_proxy.rules.rates import RateError, Rates, make_rates, weight
from lava_proxy.rules.tiers import MILLION, MS_PER_MINUTE

BUNDLED_VERSION = f"genai-prices/{genai_prices.__version__}"

MODEL_NAME_MAX = 256
"""Longer names match nothing: names come from callers and meet regular expressions."""
CACHE_MAX = 4096

_MS_PER_HOUR = 3_600_000

_BUNDLED_UNITS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "input_mtok": (("input",), MILLION),
    "output_mtok": (("output",), MILLION),
    "cache_read_mtok": (("cache_read",), MILLION),
    "cache_write_mtok": (("cache_write",), MILLION),
    "cache_write_1h_mtok": (("cache_write_1h",), MILLION),
    "input_audio_mtok": (("input_audio",), MILLION),
    "input_image_mtok": (("input_image",), MILLION),
    "cache_audio_read_mtok": (("cached_audio",), MILLION),
    "cache_image_read_mtok": (("cached_image",), MILLION),
    "output_reasoning_mtok": (("reasoning",), MILLION),
    "output_audio_mtok": (("output_audio",), MILLION),
    "output_image_mtok": (("output_image",), MILLION),
    "input_mchars": (("input_characters",), MILLION),
    "audio_hours": (("input_ms", "output_ms"), _MS_PER_HOUR),
    "input_audio_hours": (("input_ms",), _MS_PER_HOUR),
    "output_audio_hours": (("output_ms",), _MS_PER_HOUR),
    "input_document_kpages": (("page",), 1000),
    "web_searches_kcount": (("web_search",), 1000),
    "requests_kcount": (("request",), 1000),
}
"""genai-prices keys -> our kinds and units per price. A later, narrower key wins. Keys that no
adapter counts (video, pixels, citations, storage searches, annotated pages) are left out."""

OVERRIDE_UNITS: Mapping[str, tuple[str, int]] = {
    "input_1m": ("input", MILLION),
    "output_1m": ("output", MILLION),
    "cache_read_1m": ("cache_read", MILLION),
    "cache_write_1m": ("cache_write", MILLION),
    "cache_write_1h_1m": ("cache_write_1h", MILLION),
    "input_audio_1m": ("input_audio", MILLION),
    "input_image_1m": ("input_image", MILLION),
    "reasoning_1m": ("reasoning", MILLION),
    "output_audio_1m": ("output_audio", MILLION),
    "output_image_1m": ("output_image", MILLION),
    "input_characters_1m": ("input_characters", MILLION),
    "output_characters_1m": ("output_characters", MILLION),
    "input_minute": ("input_ms", MS_PER_MINUTE),
    "output_minute": ("output_ms", MS_PER_MINUTE),
    "request": ("request", 1),
    "web_search": ("web_search", 1),
    "image": ("image", 1),
    "page": ("page", 1),
    "search_unit": ("search_unit", 1),
}
"""Names that an override's rates may have."""

_BILLED_AT_LEAST_MS: Mapping[tuple[str, str], int] = {
    ("groq", "whisper-large-v3"): 10_000,
    ("groq", "whisper-large-v3-turbo"): 10_000,
}
_TIER_FACTS = ("service_tier", "speed", "processing")
"""The members of a price context that an answer's service tier may mean ("flex", "fast",
"batch")."""
_PROVIDER_NAME = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)


Match = Literal["exact", "prefix", "default"]


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's price: USD as decimal strings, by names of `OVERRIDE_UNITS`. `model` is empty
    when it is the provider's default."""

    id: str
    provider: str
    match: Match
    model: str
    rates: tuple[tuple[str, str], ...]


def compile_override(override: Override) -> Rates:
    """Raises `RateError`, with the member's name."""
    weights: dict[str, int] = {}
    for name, text in override.rates:
        unit = OVERRIDE_UNITS.get(name)
        if unit is None:
            raise RateError(f"{name}: not a rate; known are {', '.join(OVERRIDE_UNITS)}")
        try:
            weights[unit[0]] = weight(parse_rate_e12(text), E12, unit[1])
        except (MoneyError, RateError) as error:
            raise RateError(f"{name}: {error}") from None
    if not weights:
        raise RateError("rates: give at least one")
    return make_rates(f"override/{override.id}", override.model or "*", weights)


def compile_rates(
    provider: str, model: str, at: datetime, service_tier: str | None = None
) -> Rates | None:
    """The bundled price of a model at one time, or None when it is unknown there."""
    if len(model) > MODEL_NAME_MAX or not model:
        return None
    try:
        return _compile_bundled(provider, model, at, service_tier)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        return None  # data that its own library finds invalid is no price


def bucket(at: datetime) -> datetime:
    """The span of time that a compiled price holds for: the UTC minute of `at`."""
    return at.astimezone(UTC).replace(second=0, microsecond=0)


class Catalog:
    """Overrides before bundled prices, compiled on first sight and kept in a bounded table.

    Immutable to its callers: a changed operator table is a new Catalog.
    """

    def __init__(self, overrides: Iterable[Override] = (), *, cache_max: int = CACHE_MAX) -> None:
        self._exact: dict[tuple[str, str], Rates] = {}
        self._prefixes: dict[str, list[tuple[str, Rates]]] = {}
        self._defaults: dict[str, Rates] = {}
        self._cache: OrderedDict[tuple[str, str, str | None], tuple[datetime, Rates | None]] = (
            OrderedDict()
        )
        self._cache_max = cache_max
        for override in overrides:
            self._add(override)
        for prefixes in self._prefixes.values():
            prefixes.sort(key=lambda entry: len(entry[0]), reverse=True)

    def rates(
        self, provider: str, model: str, at: datetime, service_tier: str | None = None
    ) -> Rates | None:
        """The price of a model at one time and tier; None when nobody knows it."""
        key = (provider, model, service_tier)
        now = bucket(at)
        found = self._cache.get(key)
        if found is not None and found[0] == now:
            return found[1]
        rates = self._find(provider, model, at, service_tier)
        self._cache[key] = (now, rates)
        self._cache.move_to_end(key)
        if len(self._cache) > self._cache_max:
            self._cache.popitem(last=False)
        return rates

    def _find(
        self, provider: str, model: str, at: datetime, service_tier: str | None
    ) -> Rates | None:
        name = model.lower()
        exact = self._exact.get((provider, name))
        if exact is not None:
            return exact
        for prefix, rates in self._prefixes.get(provider, ()):
            if name.startswith(prefix):
                return rates
        bundled = compile_rates(provider, model, at, service_tier)
        return self._defaults.get(provider) if bundled is None else bundled

    def _add(self, override: Override) -> None:
        rates = compile_override(override)
        name = override.model.lower()
        if override.match == "default":
            self._defaults[override.provider] = rates
        elif override.match == "prefix":
            self._prefixes.setdefault(override.provider, []).append((name, rates))
        else:
            self._exact[override.provider, name] = rates


def _provider(name: str) -> Provider | None:
    """The bundled provider by its id or one of its other names (``bedrock`` is ``aws``)."""
    if _PROVIDER_NAME.fullmatch(name) is None:
        return None
    return data_snapshot.find_provider_by_id(data_snapshot.get_snapshot().providers, name)


def _compile_bundled(
    provider_name: str, model: str, at: datetime, service_tier: str | None
) -> Rates | None:
    provider = _provider(provider_name.lower())
    if provider is None:
        return None
    info = provider.find_model(model, all_providers=data_snapshot.get_snapshot().providers)
    if info is None:
        return None
    prices = _prices(provider, info, at, service_tier)
    priced = {k: v for k, v in prices.__dict__.items() if v is not None and k in _BUNDLED_UNITS}
    if not priced:
        free = info.id.endswith(":free") or model.lower().endswith(":free")
        weights = {"input": 0, "output": 0}
        return make_rates(BUNDLED_VERSION, info.id, weights) if free else None
    starts = {
        tier.start
        for price in priced.values()
        if isinstance(price, TieredPrices)
        for tier in price.tiers
    }
    return make_rates(
        BUNDLED_VERSION,
        info.id,
        _weights(priced, 0),
        {start: _weights(priced, start + 1) for start in starts},
        min_ms=_BILLED_AT_LEAST_MS.get((provider.id, info.id), 0),
    )


def _prices(
    provider: Provider, info: ModelInfo, at: datetime, service_tier: str | None
) -> ModelPrice:
    """A borrowed model (Azure's OpenAI ...) has the lender's prices, but not its service tiers."""
    own = any(info is model for model in provider.models)
    if service_tier is None or not own:
        return info.get_prices(at)
    return info.get_prices(at, dict.fromkeys(_TIER_FACTS, service_tier.lower()))


def _weights(priced: Mapping[str, Decimal | TieredPrices], input_tokens: int) -> dict[str, int]:
    """Weights by kind for a request of this much input."""
    weights: dict[str, int] = {}
    for key, (kinds, per) in _BUNDLED_UNITS.items():
        price = priced.get(key)
        if price is None:
            continue
        if isinstance(price, TieredPrices):
            price = _on_tier(price, input_tokens)
        numerator, denominator = price.as_integer_ratio()
        for kind in kinds:
            weights[kind] = weight(numerator, denominator, per)
    return weights


def _on_tier(price: TieredPrices, input_tokens: int) -> Decimal:
    above = [tier.price for tier in price.tiers if input_tokens > tier.start]
    return above[-1] if above else price.base
