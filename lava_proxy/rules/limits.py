"""Limits beside a customer's credit: what each counts, and which account it is in which cycle.

A limit is an account like a customer's, so one mechanism (leases, holds, booking) serves all:

    money      provider cost of the calls of a spend key or forward token, in 10^-10 USD
    requests   calls of a spend key
    wallet     provider cost of managed-key calls, in 10^-10 USD, against what the merchant paid in
    open       calls of a customer that run now; nothing is ever spent
    spent, asked   what a spend key used in all its life; recorded, never refused

Cycles are UTC days, ISO weeks, calendar months, or all time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from lava_adapters.values import dataclass
from lava_proxy.core.ids import PREFIXES
from lava_proxy.rules.settlement import Merchant, Settlement

Cycle = Literal["daily", "weekly", "monthly", "total"]
Shape = Literal["openai", "anthropic"]
"""The endpoint that a key is for: `/v1/chat/completions` or `/v1/messages`."""
LEASED = frozenset({"money", "requests", "wallet"})
"""Budgets that workers lease and that calls use up."""
COST = frozenset({"money", "wallet", "spent"})
CYCLE_FORMS: Mapping[Cycle, re.Pattern[str]] = {
    "daily": re.compile(r"\d{4}-\d\d-\d\d"),
    "weekly": re.compile(r"\d{4}-W\d\d"),
    "monthly": re.compile(r"\d{4}-\d\d"),
}
"""Names of cycles that end; those of one kind sort by their time."""
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


@dataclass(frozen=True, slots=True)
class SpendKey:
    """A key for tools: whose it is, what it may ask for, and how much of it. None: no limit."""

    spend_key_id: str
    merchant: Merchant
    status: Literal["active", "paused"]
    request_shape: Shape
    allowed_models: frozenset[str] | None
    allowed_providers: frozenset[str] | None
    spend_limit_e10: int | None
    spend_cycle: Cycle | None
    request_limit: int | None
    request_cycle: Cycle | None
    rate: Rate | None
    expires_at: datetime | None

    def budgets(self, at: datetime) -> list[Want]:
        """What a call with this key draws on; use is recorded where there is no limit too."""
        spent = _spent(self, "money", "spent", self.spend_cycle, self.spend_limit_e10, at)
        return spent + _spent(self, "requests", "asked", self.request_cycle, self.request_limit, at)


@dataclass(frozen=True, slots=True)
class Want:
    """A budget that a call needs. Without a limit it is only recorded."""

    kind: str
    owner_id: str
    limit: Limit | None
    ends_at: datetime | None = None
    """When its cycle is over and another account takes its place."""


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """A forward token's own limit of provider cost."""

    forward_token_id: str
    merchant_id: str
    amount_e10: int
    cycle: Cycle

    def budget(self, at: datetime) -> Want:
        """What a call with this token draws on."""
        owner_id = account_of(self.forward_token_id, "money", self.cycle, at)
        return Want(
            "money", owner_id, Limit(self.merchant_id, self.amount_e10), cycle_ends(self.cycle, at)
        )


def wallet_account(merchant_id: str) -> str:
    """The account of a merchant's wallet."""
    return f"{merchant_id}:wallet"


def account_of(spend_key_id: str, kind: str, cycle: Cycle, at: datetime) -> str:
    """The account of a key's money or requests in the cycle that `at` falls in."""
    return f"{spend_key_id}:{kind}:{cycle_name(cycle, at)}"


def _spent(
    key: SpendKey, kind: str, recorded: str, cycle: Cycle | None, most: int | None, at: datetime
) -> list[Want]:
    wants = []
    if cycle is not None and most is not None:
        limit = Limit(key.merchant.merchant_id, most)
        owner_id = account_of(key.spend_key_id, kind, cycle, at)
        wants.append(Want(kind, owner_id, limit, cycle_ends(cycle, at)))
    if cycle != "total":
        wants.append(Want(recorded, account_of(key.spend_key_id, kind, "total", at), None))
    return wants


def cycle_name(cycle: Cycle, at: datetime) -> str:
    """The cycle that `at` falls in: ``2026-11-27``, ``2026-W48``, ``2026-11`` or ``total``."""
    at = at.astimezone(UTC)
    if cycle == "daily":
        return f"{at:%Y-%m-%d}"
    if cycle == "weekly":
        year, week, _ = at.isocalendar()
        return f"{year:04d}-W{week:02d}"
    return f"{at:%Y-%m}" if cycle == "monthly" else "total"


def cycle_ends(cycle: Cycle, at: datetime) -> datetime | None:
    """When the cycle that `at` falls in is over; None for all time."""
    if cycle == "total":
        return None
    at = at.astimezone(UTC)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if cycle == "daily":
        return day + timedelta(days=1)
    if cycle == "weekly":
        return day + timedelta(days=7 - day.weekday())
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def ended_before(owner_id: str, at: datetime) -> bool:
    """Whether this is the account of a key's limit in a cycle that was over by then."""
    _, _, name = owner_id.rpartition(":")
    return any(
        form.fullmatch(name) is not None and name < cycle_name(cycle, at)
        for cycle, form in CYCLE_FORMS.items()
    )


def of_token(owner_id: str) -> bool:
    """Whether this is the account of a forward token's limit for its whole life."""
    return owner_id.startswith(PREFIXES["forward_token"]) and owner_id.endswith(":money:total")


def claimed(kind: str, owner_id: str, row: Settlement) -> int:
    """What a finished call takes of a budget's account: what it uses, and what it keeps."""
    return drawn(kind, row) + sum(amount for owner, amount in row.keeps if owner == owner_id)


def drawn(kind: str, row: Settlement) -> int:
    """What a finished call uses of a budget of this kind."""
    if kind in COST:
        return max(0, row.cost.total_e10) if row.cost else 0
    return 0 if row.outcome in NOTHING_CAME else 1
