"""What a customer pays for one request: the only copy of the charging arithmetic.

**Fixed** meters. F(n) is the exact price of the first n units of a cycle, a rational number. A
request that follows `before` units and brings `units` is charged

    round(F(before + units)) - round(F(before))

so the charges of a cycle always add up to round(F(total)), in whatever order and however split.

**Percentage** meters charge round(cost x rate / 100), the rate blended over the tiers that the
units fall in (weighted by units per tier; no units: the tier at `before`). There is one rounding
per request, and nothing telescopes: cost is not a function of units.

Lines (one per tier touched) are differences of rounded running totals too. They add up to the
amount exactly and are never negative, with no remainder to place.

An amount above `AMOUNT_MAX_E10` raises MoneyError rather than overflow a column later.
"""

from __future__ import annotations

from collections.abc import Sequence

from lava_adapters.contract import Usage
from lava_adapters.values import dataclass
from lava_proxy.core.invariant import invariant
from lava_proxy.core.money import AMOUNT_MAX_E10, MoneyError, divide_half_up
from lava_proxy.rules.tiers import Tariff, Tier, Unit

_PERCENT_E12 = 100 * 10**12


@dataclass(frozen=True, slots=True)
class Counts:
    """What a request used, in whole numbers; what was not stated is 0 here. Times are in
    milliseconds."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_characters: int = 0
    output_characters: int = 0
    input_ms: int = 0
    output_ms: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """The part of a charge that falls in one tier."""

    tier: Tier
    units: int
    amount_e10: int


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request costs the customer; the lines add up to the amount."""

    amount_e10: int
    lines: tuple[Line, ...]


def counts_of(usage: Usage) -> Counts:
    """`usage` as plain counts. Its parts are inside the totals already."""
    return Counts(
        usage.input_tokens or 0,
        usage.output_tokens or 0,
        usage.input_characters or 0,
        usage.output_characters or 0,
        usage.input_ms or 0,
        usage.output_ms or 0,
    )


def units_of(unit: Unit, counts: Counts) -> int:
    """How many units of a meter a request is: input and output together; milliseconds for
    ``minutes``; 1 for ``requests``."""
    if unit == "tokens_1m":
        return counts.input_tokens + counts.output_tokens
    if unit == "characters_1m":
        return counts.input_characters + counts.output_characters
    if unit == "minutes":
        return counts.input_ms + counts.output_ms
    return 1


def charge(tariff: Tariff, before: int, units: int, cost_e10: int | None = None) -> Charge:
    """The charge for `units` more units when the cycle has seen `before`. `cost_e10` is the
    provider's cost; a percentage meter needs it."""
    invariant(before >= 0 and units >= 0, "usage cannot be negative")
    if tariff.rate_type == "percentage":
        invariant(cost_e10 is not None and cost_e10 >= 0, "a percentage meter needs a cost")
        lines = _percentage_lines(tariff, before, units, cost_e10 or 0)
    else:
        lines = _fixed_lines(tariff, before, units)
    return _in_range(lines)


def _in_range(lines: tuple[Line, ...]) -> Charge:
    amount_e10 = 0
    for line in lines:  # nearly always one, for which a generator is dear
        amount_e10 += line.amount_e10
    if amount_e10 > AMOUNT_MAX_E10:
        raise MoneyError(f"charge out of range: {amount_e10}")
    return Charge(amount_e10, lines)


def highest_rate(tariff: Tariff, before: int, reachable_units: int | None = None) -> int:
    """The highest rate (10^-12) that the next unit, or any of the next `reachable_units` (None =
    all to come), may be charged at: tiers may rise, so a hold needs more than the present rate."""
    end = None if reachable_units is None else before + max(reachable_units, 1)
    return max(
        tier.rate_e12
        for tier, start, stop in tariff.spans
        if (stop is None or stop > before) and (end is None or start < end)
    )


def _fixed_lines(tariff: Tariff, before: int, units: int) -> tuple[Line, ...]:
    divisor, weights, end = tariff.divisor, tariff.weights, before + units
    if len(weights) == 1:  # the same without the search: most meters have one tier
        low_e10 = divide_half_up(before * weights[0], divisor)
        high_e10 = divide_half_up(end * weights[0], divisor)
        return (Line(tariff.tiers[0], units, high_e10 - low_e10),)
    total = reached_e10 = 0
    lines: list[Line] = []
    for (tier, start, stop), weight in zip(tariff.spans, weights, strict=True):
        if stop is not None and stop <= before:
            total += (stop - start) * weight
            continue
        low = start
        if not lines:
            low = before
            total += (before - start) * weight
            reached_e10 = divide_half_up(total, divisor)
        high = end if stop is None or end < stop else stop
        total += (high - low) * weight
        next_e10 = divide_half_up(total, divisor)
        lines.append(Line(tier, high - low, next_e10 - reached_e10))
        if high == end:
            break
        reached_e10 = next_e10
    return tuple(lines)


def recharged(lines: Sequence[Line], units: int, cost_e10: int) -> Charge:
    """What a percentage meter that spread `units` like this charges for another cost."""
    spread = _spread([(line.tier, line.units) for line in lines], units, cost_e10)
    return _in_range(spread)


def _percentage_lines(tariff: Tariff, before: int, units: int, cost_e10: int) -> tuple[Line, ...]:
    return _spread(_pieces(tariff, before, units), units, cost_e10)


def _spread(pieces: Sequence[tuple[Tier, int]], units: int, cost_e10: int) -> tuple[Line, ...]:
    denominator = max(units, 1) * _PERCENT_E12
    weighted = reached_e10 = 0
    lines = []
    for tier, piece in pieces:
        weighted += (piece if units else 1) * tier.rate_e12
        next_e10 = divide_half_up(cost_e10 * weighted, denominator)
        lines.append(Line(tier, piece, next_e10 - reached_e10))
        reached_e10 = next_e10
    return tuple(lines)


def _pieces(tariff: Tariff, before: int, units: int) -> list[tuple[Tier, int]]:
    """The tiers that the units fall in, with how many; without units, the tier at `before`."""
    end = before + units
    pieces = []
    for tier, start, stop in tariff.spans:
        low, high = max(before, start), end if stop is None else min(end, stop)
        here = units == 0 and start <= before and (stop is None or before < stop)
        if high > low or here:
            pieces.append((tier, max(high - low, 0)))
    return pieces
