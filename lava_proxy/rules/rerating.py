"""What a request costs, and is charged, once its price is known.

A request that was booked without a price (`unpriced`), or at its provider's dearest
(`price_assumed`), is priced again by its counts. They are what its row holds: sound, pictures and
fees beside the tokens are not in it, and stay out. A fixed charge does not hang on the cost; a
percentage is spread over the tiers as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lava_adapters.contract import Usage
from lava_proxy.rules.charge import Line, charge, recharged
from lava_proxy.rules.price import UNPRICED, cost
from lava_proxy.rules.rates import Rates
from lava_proxy.rules.tiers import Tariff


@dataclass(frozen=True, slots=True)
class Rerated:
    """What a request comes to now."""

    cost_e10: int
    charge_e10: int
    version: str


def recost(rates: Rates, usage: Usage, booked_version: str | None) -> int | None:
    """The cost by `rates`; None where they tell nothing new."""
    made = cost(rates, usage)
    return None if rates.version == booked_version or UNPRICED in made.flags else made.total_e10


def recharge(tariff: Tariff, lines: Sequence[Line], before: int, units: int, cost_e10: int) -> int:
    """The charge of a percentage meter for this cost. `lines`: how the units fell into the tiers;
    where nothing was charged there are none, and the tariff says it, `before` units on."""
    if lines:
        return recharged(lines, units, cost_e10)
    return charge(tariff, before, units, cost_e10).amount_e10
