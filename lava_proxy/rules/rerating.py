"""What a request costs, and is charged, once its price is known.

A request that was booked without a price (`unpriced`), or at its provider's dearest
(`price_assumed`), is priced again by its counts. They are what its row holds: sound, pictures and
fees beside the tokens are not in it, and stay out. A fixed charge does not hang on the cost; a
percentage is spread over the tiers as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lava_adapters.contract import Usage
from lava_proxy.rules.charge import Charge, Counts
from lava_proxy.rules.price import PRICE_ASSUMED, UNPRICED, Cost, cost
from lava_proxy.rules.rates import Rates
from lava_proxy.rules.settlement import Settlement

METERED_BEFORE = "metered_before"
"""Of rows that pay for what other rows of the same stored response left, or for nothing."""
LATE = frozenset({UNPRICED, PRICE_ASSUMED})
"""Flags of rows whose price may come late."""


@dataclass(frozen=True, slots=True)
class Rerated:
    """What a request comes to now; `charge`: None where it stays."""

    cost: Cost
    charge: Charge | None
    version: str


def waits(row: Settlement) -> bool:
    """Whether a row waits for a price: booked without any, or at an assumed one. Where only a part
    had no price the rest was priced by more than the row holds, so those stay; a stored response
    that is read again, and was charged before, costs nothing at any price."""
    found = LATE.intersection(row.flags)
    if not found or row.model is None or row.status != "completed":
        return False
    if METERED_BEFORE in row.flags and row.counts == Counts():
        return False
    return row.price_version is None or PRICE_ASSUMED in found


def recost(
    candidates: Iterable[Rates], usage: Usage, booked_version: str | None
) -> tuple[Cost, str] | None:
    """The cost by the first price that tells something new, and its version; None if none does."""
    for rates in candidates:
        made = cost(rates, usage)
        if rates.version != booked_version and UNPRICED not in made.flags:
            return made, rates.version
    return None
