"""A model's list prices as `/v1/services` shows them.

`rates` has every priced unit, spelled as ``POST /v1/prices`` takes it; the members that the public
API has are numbers made of the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Literal, NotRequired, cast

from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from lava_proxy.rules.pricelist import Priced, spelled
from lava_proxy.rules.rates import Rates

Number = Annotated[Decimal, WithJsonSchema({"type": "number", "minimum": 0})]
Unit = Literal["tokens_1m", "characters_1m", "minutes", "requests"]
Spelled = dict[str, str]
"""Unit -> USD, by the names in docs/metering.md."""

UNITS: Mapping[Unit, str] = {
    "tokens_1m": "1m",
    "characters_1m": "characters_1m",
    "minutes": "minute",
    "requests": "",
}
"""What a model is paid by, the first of these that has a price; and how its rates' names end."""
_MEMBERS = (
    ("cache_input_read", "cache_read_1m"),
    ("cache_input_write", "cache_write_1m"),
    ("cost_per_request", "request"),
)


class Sides(TypedDict):
    """USD per million tokens of a kind."""

    input: NotRequired[Number]
    output: NotRequired[Number]


class LongContext(TypedDict):
    """What holds for all of a request whose input is above so many tokens."""

    above_tokens: int
    rates: Spelled


class TierPricing(TypedDict):
    """The prices of a service tier."""

    rates: Spelled
    long_context: NotRequired[list[LongContext]]


class Pricing(TypedDict):
    """USD by the list: `input`, `output` per million tokens or characters, or per minute, as `type`
    says; `rates` has all units. What is absent costs as its nearest relative: cached input as
    input, reasoning as output."""

    type: Unit
    input: NotRequired[Number]
    output: NotRequired[Number]
    cache_input_read: NotRequired[Number]
    cache_input_write: NotRequired[Number]
    cost_per_request: NotRequired[Number]
    text: NotRequired[Sides]
    audio: NotRequired[Sides]
    image: NotRequired[Sides]
    rates: Spelled
    long_context: NotRequired[list[LongContext]]
    service_tiers: NotRequired[dict[str, TierPricing]]


def unit_of(rates: Spelled) -> Unit:
    """What a model is paid by."""
    return next((unit for unit, end in UNITS.items() if f"input_{end}" in rates), "requests")


def pricing_of(model: Priced) -> Pricing:
    """All that is known of a model's price."""
    tier = _tier(model.usual)
    rates = tier["rates"]
    unit = unit_of(rates)
    shown: dict[str, object] = {"type": unit, **_sides(rates, UNITS[unit])}
    shown |= {member: Decimal(rates[name]) for member, name in _MEMBERS if name in rates}
    media = {medium: _sides(rates, f"{medium}_1m") for medium in ("audio", "image")}
    if any(media.values()):
        shown["text"] = _sides(rates, "1m")
    shown |= {medium: sides for medium, sides in media.items() if sides}
    shown |= tier
    if model.tiers:
        shown["service_tiers"] = {name: _tier(rates) for name, rates in model.tiers.items()}
    return cast(Pricing, shown)


def _tier(rates: Rates) -> TierPricing:
    shown: TierPricing = {"rates": spelled(rates, rates.base)}
    if rates.cliffs:
        shown["long_context"] = list(_long(rates))
    return shown


def _long(rates: Rates) -> Iterator[LongContext]:
    for above, band in rates.cliffs:
        yield {"above_tokens": above, "rates": spelled(rates, band)}


def _sides(rates: Spelled, end: str) -> dict[str, Decimal]:
    """The two rates whose names end so, where there are any."""
    names = ((side, f"{side}_{end}") for side in ("input", "output"))
    return {side: Decimal(rates[name]) for side, name in names if name in rates}
