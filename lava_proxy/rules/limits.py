"""Limits beside a customer's credit: what each counts, and which account it is in which cycle.

A limit is an account like a customer's, so one mechanism (leases, holds, booking) serves all:

    money      provider cost of a spend key's calls, in 10^-10 USD
    requests   calls of a spend key
    wallet     provider cost of managed-key calls, in 10^-10 USD, against what the merchant paid in
    open       calls of a customer that run now; nothing is ever spent
    spent, asked   what a spend key used in all its life; recorded, never refused

Cycles are UTC days, ISO weeks, calendar months, or all time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from lava_adapters.values import dataclass
from lava_proxy.rules.settlement import Settlement

Cycle = Literal["daily", "weekly", "monthly", "total"]
LEASED = frozenset({"money", "requests", "wallet"})
"""Budgets that workers lease and that calls use up."""
COST = frozenset({"money", "wallet", "spent"})
NOTHING_CAME = frozenset({"void", "refused"})


@dataclass(frozen=True, slots=True)
class Limit:
    """The size that an account must have. None: what was paid into the merchant's wallet."""

    merchant_id: str
    amount: int | None


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per minute, and how many may start at once."""

    rpm: int
    capacity: int

    @property
    def batch(self) -> int:
        """Permits that a worker takes at a time: a second's worth, at most a quarter of all."""
        return max(1, min(self.capacity // 4, self.rpm // 60))


def cycle_name(cycle: Cycle, at: datetime) -> str:
    """The cycle that `at` falls in: ``2026-11-27``, ``2026-W48``, ``2026-11`` or ``total``."""
    at = at.astimezone(UTC)
    if cycle == "daily":
        return f"{at:%Y-%m-%d}"
    if cycle == "weekly":
        year, week, _ = at.isocalendar()
        return f"{year:04d}-W{week:02d}"
    return f"{at:%Y-%m}" if cycle == "monthly" else "total"


def drawn(kind: str, row: Settlement) -> int:
    """What a finished call uses of a budget of this kind."""
    if kind in COST:
        return max(0, row.cost.total_e10) if row.cost else 0
    return 0 if row.outcome in NOTHING_CAME else 1
