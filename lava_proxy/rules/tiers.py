"""A meter's price list: graduated tiers of integer rates, checked once when the meter is made.

Inside, usage is counted in *units*: tokens, characters and requests as they are, minutes in
milliseconds. A tier's `start` stays in the meter's own unit (tokens, characters, minutes,
requests), as on the wire; `scale` units make one of those. Rates are per `per` of the meter's own
unit: per 1,000,000 tokens or characters, per minute, per request; for percentage meters a rate is
a percentage of the provider's cost ("120" = cost + 20 %).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import gcd
from typing import Literal

from lava_proxy.core.money import MoneyError, parse_rate_e12

RateType = Literal["fixed", "percentage"]
Unit = Literal["tokens_1m", "characters_1m", "minutes", "requests"]

MILLION = 1_000_000
_E12_TO_E10 = 100
MS_PER_MINUTE = 60_000

TIERS_MAX = 50
START_MAX = 10**13
RATE_MAX_E12 = 10**18
"""One million dollars per unit as quoted (or percent): inside a BIGINT, beyond any price."""

_START = re.compile(r"\d{1,14}(?:\.0{1,10})?", re.ASCII)


class TierError(ValueError):
    """A price list that cannot be used. `path` names the member, such as ``tiers[1].start``."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class Tier:
    """From `start` (whole meter units, inclusive) to the next tier's start, at `rate_e12`."""

    start: int
    rate_e12: int


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a meter charges. Build it from checked tiers only (`check_tiers`)."""

    rate_type: RateType
    unit: Unit
    tiers: tuple[Tier, ...]
    spans: tuple[tuple[Tier, int, int | None], ...] = field(init=False, repr=False, compare=False)
    """Every tier with its first unit and the first unit after it (None = without end)."""
    weights: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """What a unit of each tier costs at a fixed rate, in parts of 10^-10 USD: the smallest whole
    numbers, for small ones are multiplied and divided in a fraction of the time."""
    divisor: int = field(init=False, repr=False, compare=False)
    """So many of these parts are 10^-10 USD."""
    highest_e12: int = field(init=False, repr=False, compare=False)
    """The rate of its dearest tier."""

    def __post_init__(self) -> None:
        starts = [tier.start * self.scale for tier in self.tiers]
        spans = tuple(zip(self.tiers, starts, [*starts[1:], None], strict=True))
        rates = [tier.rate_e12 for tier in self.tiers]
        parts = self.per * _E12_TO_E10
        common = gcd(parts, *rates)
        object.__setattr__(self, "spans", spans)
        object.__setattr__(self, "weights", tuple(rate // common for rate in rates))
        object.__setattr__(self, "divisor", parts // common)
        object.__setattr__(self, "highest_e12", max(rates))

    @property
    def scale(self) -> int:
        """Units counted inside per unit that a tier's start is given in."""
        return MS_PER_MINUTE if self.unit == "minutes" else 1

    @property
    def per(self) -> int:
        """Units counted inside that one quoted rate buys."""
        if self.unit in ("tokens_1m", "characters_1m"):
            return MILLION
        return self.scale


def check_tiers(tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    """`tiers`, if they make a price list: 1 to 50, first start 0, starts strictly ascending, rates
    within limits. Raises `TierError`."""
    if not 1 <= len(tiers) <= TIERS_MAX:
        raise TierError(f"give 1 to {TIERS_MAX} tiers", "tiers")
    if tiers[0].start != 0:
        raise TierError("the first tier starts at 0", "tiers[0].start")
    for index, (before, tier) in enumerate(pairwise(tiers), 1):
        if tier.start <= before.start:
            raise TierError("starts must ascend strictly", f"tiers[{index}].start")
    for index, tier in enumerate(tiers):
        if tier.start > START_MAX:
            raise TierError(f"start is at most {START_MAX}", f"tiers[{index}].start")
        if not 0 <= tier.rate_e12 <= RATE_MAX_E12:
            raise TierError("rate is from 0 to 1000000", f"tiers[{index}].rate")
    return tuple(tiers)


def parse_tiers(rows: Sequence[tuple[str, str]]) -> tuple[Tier, ...]:
    """Checked tiers from wire text, as (start, rate) pairs. Raises `TierError`."""
    if len(rows) > TIERS_MAX:
        raise TierError(f"give 1 to {TIERS_MAX} tiers", "tiers")
    tiers = []
    for index, (start, rate) in enumerate(rows):
        if _START.fullmatch(start) is None:
            raise TierError(f"not a whole number of units: {start!r}", f"tiers[{index}].start")
        try:
            rate_e12 = parse_rate_e12(rate)
        except MoneyError as error:
            raise TierError(str(error), f"tiers[{index}].rate") from None
        tiers.append(Tier(int(start.partition(".")[0]), rate_e12))
    return check_tiers(tiers)
