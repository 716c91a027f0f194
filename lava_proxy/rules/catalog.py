"""Which price holds for a model: the operator's table first, then the bundled data, compiled once.

Order: an override for exactly this model, the override with the longest matching prefix, the
bundled data, the provider's default override, a price that we added for a model that the data lack.
Unknown stays unknown: None, never free. A model that the data lists without any price is unknown
too, unless its name says ``:free``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Literal, TypeVar

from lava_adapters.model_limits import NO_LIMITS, ModelLimits, model_limits
from lava_proxy.core.money import E12, MoneyError, parse_rate_e12
from lava_proxy.rules.additions import ADDED_VERSION
from lava_proxy.rules.bundled import BUCKET, bucket, compile_rates, dearest, tiers, window
from lava_proxy.rules.rates import RateError, Rates, make_rates, weight
from lava_proxy.rules.tiers import MILLION, MS_PER_MINUTE

CACHE_MAX = 4096
PROVIDERS_MAX = 256
"""Providers whose dearest price is kept."""

OVERRIDE_UNITS: Mapping[str, tuple[str, int]] = {
    "input_1m": ("input", MILLION),
    "output_1m": ("output", MILLION),
    "cache_read_1m": ("cache_read", MILLION),
    "cache_write_1m": ("cache_write", MILLION),
    "cache_write_1h_1m": ("cache_write_1h", MILLION),
    "input_audio_1m": ("input_audio", MILLION),
    "input_image_1m": ("input_image", MILLION),
    "cache_read_audio_1m": ("cached_audio", MILLION),
    "cache_read_image_1m": ("cached_image", MILLION),
    "reasoning_1m": ("reasoning", MILLION),
    "output_audio_1m": ("output_audio", MILLION),
    "output_image_1m": ("output_image", MILLION),
    "input_characters_1m": ("input_characters", MILLION),
    "output_characters_1m": ("output_characters", MILLION),
    "input_minute": ("input_ms", MS_PER_MINUTE),
    "output_minute": ("output_ms", MS_PER_MINUTE),
    "request": ("request", 1),
    "citation_1m": ("citation", MILLION),
    "web_search": ("web_search", 1),
    "file_search": ("file_search", 1),
    "container": ("container", 1),
    "guardrail_filter": ("guardrail_filter", 1),
    "guardrail_check": ("guardrail_check", 1),
    "guardrail_other": ("guardrail_other", 1),
    "image": ("image", 1),
    "page": ("page", 1),
    "search_unit": ("search_unit", 1),
}
"""Names that an override's rates may have, and those that are shown; relatives come first."""

Match = Literal["exact", "prefix", "default"]
OWN = "override/"
"""How the version of a price begins that is not from the bundled data."""
_K = TypeVar("_K")
_V = TypeVar("_V")
_Kept = tuple[datetime, datetime, _V]
"""A value and its bucket: from when to before when it holds."""


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
    return make_rates(f"{OWN}{override.id}", override.model or "*", weights)


class Catalog:
    """Overrides before bundled prices, compiled on first sight and kept in a bounded table.

    Immutable to its callers: a changed operator table is a new Catalog.
    """

    def __init__(
        self,
        overrides: Iterable[Override] = (),
        *,
        bundled: Mapping[str, str] = MappingProxyType({}),
        cache_max: int = CACHE_MAX,
    ) -> None:
        """`bundled`: provider id -> its name in genai-prices, where that is another."""
        self._bundled = bundled
        self._exact: dict[tuple[str, str], Rates] = {}
        self._prefixes: dict[str, list[tuple[str, Rates]]] = {}
        self._defaults: dict[str, Rates] = {}
        self._cache: OrderedDict[tuple[str, str, str | None], _Kept[Rates | None]] = OrderedDict()
        self._dearest: dict[str, tuple[date, Rates | None]] = {}
        self._limits: OrderedDict[tuple[str, str], ModelLimits] = OrderedDict()
        self._tiers: OrderedDict[tuple[str, str], _Kept[tuple[Rates, ...]]] = OrderedDict()
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
        found = self._cache.get(key)
        if found is not None and found[0] <= at < found[1]:
            return found[2]
        rates = self._find(provider, model, at, service_tier)
        since = bucket(at)
        self._keep(self._cache, key, (since, since + BUCKET, rates))
        return rates

    def every_tier(self, provider: str, model: str, at: datetime) -> tuple[Rates, ...]:
        """The prices of a model at all service tiers, the usual one first; empty when unknown. It
        is one and the same tuple for as long as they hold."""
        found = self._tiers.get((provider, model))
        if found is not None and found[0] <= at < found[1]:
            return found[2]
        usual = self.rates(provider, model, at)
        every: list[Rates] = [] if usual is None else [usual]
        if usual is not None and not usual.version.startswith(OWN):
            names = sorted(tiers(self._bundled.get(provider, provider), model))
            every += [r for tier in names if (r := self.rates(provider, model, at, tier))]
        kept = tuple(every)
        since = bucket(at)
        self._keep(self._tiers, (provider, model), (since, since + BUCKET, kept))
        return kept

    def limits(self, provider: str, model: str | None) -> ModelLimits:
        """How much a model reads and answers, as far as anybody knows."""
        if model is None:
            return NO_LIMITS
        found = self._limits.get((provider, model))
        if found is None:
            found = model_limits(model, provider)
            if found.window is None:
                reads = window(self._bundled.get(provider, provider), model)
                found = ModelLimits(found.output, reads)
            self._keep(self._limits, (provider, model), found)
        return found

    def dearest(self, provider: str, at: datetime) -> Rates | None:
        """The price of the provider's dearest model for text, our overrides included: what a model
        without a price is taken to cost where a meter says so. Found anew every day."""
        today = at.astimezone(UTC).date()
        found = self._dearest.get(provider)
        if found is not None and found[0] == today:
            return found[1]
        own = [rates for (name, _), rates in self._exact.items() if name == provider]
        own += [rates for _, rates in self._prefixes.get(provider, ())]
        own += [rates for name, rates in self._defaults.items() if name == provider]
        known = [rates for rates in own if rates.text_priced]
        bundled = dearest(self._bundled.get(provider, provider), at)
        if bundled is not None:
            known.append(bundled)
        most = max(known, key=lambda r: r.input_max_e18 + r.output_max_e18, default=None)
        if provider in self._dearest or len(self._dearest) < PROVIDERS_MAX:
            self._dearest[provider] = (today, most)
        return most

    def named(self) -> list[tuple[str, str]]:
        """(provider, model) of every override for one model that makes text."""
        return [
            (provider, rates.model)
            for (provider, _), rates in self._exact.items()
            if rates.text_priced
        ]

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
        bundled = compile_rates(self._bundled.get(provider, provider), model, at, service_tier)
        if bundled is None or bundled.version == ADDED_VERSION:
            return self._defaults.get(provider, bundled)
        return bundled

    def _keep(self, cache: OrderedDict[_K, _V], key: _K, value: _V) -> None:
        cache[key] = value
        cache.move_to_end(key)
        if len(cache) > self._cache_max:
            cache.popitem(last=False)

    def _add(self, override: Override) -> None:
        rates = compile_override(override)
        name = override.model.lower()
        if override.match == "default":
            self._defaults[override.provider] = rates
        elif override.match == "prefix":
            self._prefixes.setdefault(override.provider, []).append((name, rates))
        else:
            self._exact[override.provider, name] = rates
