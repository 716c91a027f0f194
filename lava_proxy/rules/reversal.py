"""How much of a payment its refunds and disputes undo, and how much of the credit that it gave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lava_proxy.core.money import divide_half_up


@dataclass(frozen=True, slots=True)
class Gone:
    """Money of a payment that is back with its payer."""

    refunded_e10: int
    disputed_e10: int

    def of(self, paid_e10: int) -> int:
        """In all, never more than was paid."""
        return min(paid_e10, self.refunded_e10 + self.disputed_e10)


def money_gone(
    reversals: Iterable[tuple[Literal["refund", "dispute", "total"], int, bool]],
) -> Gone:
    """From (kind, amount, over) of all that is known of one payment, in whatever order.

    Totals ("so much was refunded by then") are a net below the single refunds: what they say beyond
    those that stand and those that came to nothing is a refund nobody told us of.
    """
    stands, void, total, disputed = 0, 0, 0, 0
    for kind, amount_e10, over in reversals:
        if kind == "total":
            total = max(total, amount_e10)
        elif over:
            void += amount_e10 if kind == "refund" else 0
        elif kind == "refund":
            stands += amount_e10
        else:
            disputed += amount_e10
    return Gone(max(stands, total - void), disputed)


def credit_gone(granted_e10: int, paid_e10: int, gone_e10: int) -> int:
    """The share of a payment's credit that goes with so much of its money: all of it with all."""
    return divide_half_up(granted_e10 * gone_e10, paid_e10) if paid_e10 else 0
