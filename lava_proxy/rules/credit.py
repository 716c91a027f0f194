"""Taking an amount from credit in burn order: cycle first, then the soonest-expiring, then the
oldest. The order itself is the ORDER BY of `available_grants` in store/queries/settle.sql."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lava_proxy.core.invariant import invariant

Parts = tuple[tuple[str, int], ...]
"""(grant id, amount in 10^-10 USD) pairs, in burn order."""


@dataclass(frozen=True, slots=True)
class Split:
    """An amount spread over grants: every take is > 0; takes and `rest_e10` add up to it."""

    takes: Parts
    rest_e10: int
    """What no grant covered."""


def burn(parts: Sequence[tuple[str, int]], amount_e10: int) -> Split:
    """Take `amount_e10` from `parts` (grant id, available), in their order, as far as they go."""
    invariant(amount_e10 >= 0, "an amount to burn cannot be negative")
    left_e10 = amount_e10
    takes = []
    for grant_id, available_e10 in parts:
        taken_e10 = min(max(available_e10, 0), left_e10)
        if taken_e10:
            takes.append((grant_id, taken_e10))
            left_e10 -= taken_e10
    return Split(tuple(takes), left_e10)
