"""The bundled prices of genai-prices, compiled to integers.

genai-prices keeps dated, time-of-day and service-tier prices; they are resolved for one `at` and
one tier, so a compiled price holds for its bucket (`bucket`: one UTC minute; every boundary in the
data is a whole minute, and compiling again costs microseconds). Its own lookup caches grow with
every model name that a caller invents, so we go around them; `catalog` keeps one bounded table.

The price data are a process-wide constant of an installed package: reading them is no I/O of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import genai_prices
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

from lava_proxy.rules.additions import ADDED_VERSION, MS_PER_HOUR, alone, beside
from lava_proxy.rules.rates import Rates, make_rates, weight
from lava_proxy.rules.tiers import MILLION

BUNDLED_VERSION = f"genai-prices/{genai_prices.__version__}"
INVALID = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What genai-prices raises for data that it finds invalid."""

MODEL_NAME_MAX = 256
"""Longer names match nothing: names come from callers and meet regular expressions."""

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
    "audio_hours": (("input_ms", "output_ms"), MS_PER_HOUR),
    "input_audio_hours": (("input_ms",), MS_PER_HOUR),
    "output_audio_hours": (("output_ms",), MS_PER_HOUR),
    "input_document_kpages": (("page",), 1000),
    "output_citation_mtok": (("citation",), MILLION),
    "web_searches_kcount": (("web_search",), 1000),
    "storage_searches_kcount": (("file_search",), 1000),
    "requests_kcount": (("request",), 1000),
}
"""genai-prices keys -> our kinds and units per price. A later, narrower key wins. Keys that no
adapter counts (video, pixels, annotated pages, voice messages) are left out."""

BUCKET = timedelta(minutes=1)
"""How long a compiled price holds, from its `bucket`."""
_BILLED_AT_LEAST_MS: Mapping[tuple[str, str], int] = {
    ("groq", "whisper-large-v3"): 10_000,
    ("groq", "whisper-large-v3-turbo"): 10_000,
}
_TIER_FACTS = ("service_tier", "speed", "processing")
"""The members of a price context that an answer's service tier may mean ("flex", "fast",
"batch")."""
SUFFIX = "{suffix}"
"""Ends the name of a router's price lists: each of its servers has one."""
_UNVERSIONED: Mapping[str, str] = {"aws": "-1:0"}
"""What a model's name ends with in the data where a provider also takes it without: bedrock-mantle
says ``openai.gpt-oss-20b`` for ``openai.gpt-oss-20b-1:0``."""
_PROVIDER_NAME = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)


def compile_rates(
    provider: str, model: str, at: datetime, service_tier: str | None = None
) -> Rates | None:
    """The bundled price of a model at one time, or None when it is unknown there."""
    if len(model) > MODEL_NAME_MAX or not model:
        return None
    provider, model = _list_of(provider, model)
    try:
        return _compile_bundled(provider, model, at, service_tier)
    except INVALID:
        return None  # data that its own library finds invalid is no price


def lists_of(name: str) -> list[tuple[Provider, str]]:
    """The lists that a name in the provider table means, each with the suffix of its models."""
    if SUFFIX not in name:
        provider = _provider(name.lower())
        return [] if provider is None else [(provider, "")]
    head = name.removesuffix(SUFFIX)
    every = data_snapshot.get_snapshot().providers
    return [(p, ":" + p.id.removeprefix(head)) for p in every if p.id.startswith(head)]


def _list_of(provider: str, model: str) -> tuple[str, str]:
    """The list and the name in it, where each of a router's servers has a list of its own: what is
    behind the model's last colon names it."""
    if SUFFIX not in provider:
        return provider, model
    name, _, suffix = model.rpartition(":")
    return provider.removesuffix(SUFFIX) + suffix.lower(), name


def window(provider_name: str, model: str) -> int | None:
    """Tokens that a model reads at most, or None where the data do not say."""
    info = _model(provider_name, model)
    found = info.context_window if info is not None else None
    # Stated as 128,000 or 1,000,000, it may be 131,072 or 1,048,576.
    return None if found is None else found + found // 20


def tiers(provider_name: str, model: str) -> frozenset[str]:
    """The service tiers and speeds at which a model may have a price of its own."""
    info = _model(provider_name, model)
    return frozenset() if info is None else tiers_of(info)


def tiers_of(info: ModelInfo) -> frozenset[str]:
    """The same of a model in the data."""
    variants = info.price_variants or ()
    return frozenset(v.when[fact] for v in variants for fact in _TIER_FACTS if fact in v.when)


def bucket(at: datetime) -> datetime:
    """When the span of time begins that a compiled price holds for: the UTC minute of `at`."""
    return at.astimezone(UTC).replace(second=0, microsecond=0)


def dearest(provider_name: str, at: datetime) -> Rates | None:
    """The price of the provider's dearest model for text: for a million tokens in and a million
    out, at the highest tier. None where the provider, or every price of it, is unknown."""
    try:
        priced = [
            (_text_price(model.get_prices(at)), model.id, provider, model)
            for provider, _ in lists_of(provider_name)
            for model in provider.models
        ]
        if not priced:
            return None
        most, _, provider, model = max(priced, key=lambda each: each[:2])
        return compile_model(provider, model, model.id, at, None) if most > 0 else None
    except INVALID:
        return None


def _text_price(prices: ModelPrice) -> Decimal:
    total = Decimal(0)
    for key in ("input_mtok", "output_mtok"):
        price = getattr(prices, key, None)
        if price is None:
            return Decimal(0)  # embeddings and the like are no measure for what answers
        if isinstance(price, TieredPrices):
            price = max(price.base, *(tier.price for tier in price.tiers))
        total += price
    return total


def _provider(name: str) -> Provider | None:
    """The bundled provider by its id or one of its other names (``bedrock`` is ``aws``)."""
    if _PROVIDER_NAME.fullmatch(name) is None:
        return None
    return data_snapshot.find_provider_by_id(data_snapshot.get_snapshot().providers, name)


def _found(provider: Provider, model: str) -> ModelInfo | None:
    every = data_snapshot.get_snapshot().providers
    info = provider.find_model(model, all_providers=every)
    if info is None and (version := _UNVERSIONED.get(provider.id)):
        info = provider.find_model(model + version, all_providers=every)
    return info


def _model(provider_name: str, model: str) -> ModelInfo | None:
    """The model in the data, whether or not it has a price."""
    if not 0 < len(model) <= MODEL_NAME_MAX:
        return None
    name, model = _list_of(provider_name.lower(), model)
    provider = _provider(name)
    if provider is None:
        return None
    try:
        return _found(provider, model)
    except INVALID:
        return None


def _compile_bundled(
    provider_name: str, model: str, at: datetime, service_tier: str | None
) -> Rates | None:
    provider = _provider(provider_name.lower())
    if provider is None:
        return _added_alone(provider_name.lower(), model.lower())
    info = _found(provider, model)
    if info is None:
        return _added_alone(provider.id, model.lower())
    return compile_model(provider, info, model, at, service_tier)


def compile_model(
    provider: Provider, info: ModelInfo, model: str, at: datetime, service_tier: str | None
) -> Rates | None:
    """The price of a model in the data, which was asked for as `model`. Raises what genai-prices
    raises for data that it finds invalid."""
    prices = _prices(provider, info, at, service_tier)
    priced = {k: v for k, v in prices.__dict__.items() if v is not None and k in _BUNDLED_UNITS}
    if not priced:
        free = info.id.endswith(":free") or model.lower().endswith(":free")
        weights = {"input": 0, "output": 0}
        return make_rates(BUNDLED_VERSION, info.id, weights) if free else None
    more = beside(provider.id, info.id)
    starts = {
        tier.start
        for price in priced.values()
        if isinstance(price, TieredPrices)
        for tier in price.tiers
    }
    return make_rates(
        BUNDLED_VERSION,
        info.id,
        more | _weights(priced, 0),
        {start: more | _weights(priced, start + 1) for start in starts},
        min_ms=_BILLED_AT_LEAST_MS.get((provider.id, info.id), 0),
    )


def _added_alone(provider_id: str, model: str) -> Rates | None:
    weights = alone(provider_id, model)
    return make_rates(ADDED_VERSION, model, weights) if weights else None


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
