"""One account's leased money in this worker's memory, and the holds that calls open on it. It is a
customer's credit, or any other budget: then amounts count what that budget counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lava_proxy.books.topping import await_top_up
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.core.invariant import invariant
from lava_proxy.rules.limits import Limit
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk

if TYPE_CHECKING:
    from lava_proxy.books.leases import Leases


Back = Callable[[str], Awaitable[object]]
"""Returns all leases that we have on an owner's account."""

Trip = Callable[[LeaseAsk], Awaitable[LeaseAnswer]]
"""Asks the database for a lease; retries an ambiguous commit under the same lease id."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a hold could not be opened: amounts in 10^-10 USD."""

    required_e10: int
    available_e10: int


class Account:
    """One customer's leased credit in this worker."""

    __slots__ = (
        "_burn_now_e10",
        "_burn_past_e10",
        "_burn_since_s",
        "demand_e10",
        "expires_s",
        "free_e10",
        "granted_e10",
        "held_e10",
        "limit",
        "news",
        "owner_id",
        "pending_e10",
        "refused",
        "refused_until_s",
        "trip",
        "used_s",
        "waiting",
        "wanted_e10",
    )

    def __init__(self, owner_id: str, boot_s: float) -> None:
        self.owner_id = owner_id
        self.limit: Limit | None = None
        """Its size, where the account is a limit's and no customer's credit."""
        self.free_e10 = 0
        self.held_e10 = 0
        self.pending_e10 = 0
        self.granted_e10 = 0
        self.expires_s = 0.0
        self.used_s = boot_s
        self.wanted_e10 = 0
        """The last amount that a call asked for: a refill brings at least so much, so that a stream
        need not wait for its next extension."""
        self.refused: Refusal | None = None
        self.refused_until_s = 0.0
        self.trip: asyncio.Task[LeaseAnswer] | None = None
        self.news: asyncio.Event | None = None
        """Set when new credit is announced, for those who wait for it to be bought."""
        self.waiting = 0
        """Callers that wait for a trip: they will use this very object."""
        self.demand_e10 = 0
        """What those callers want, all together: the next trip asks for it."""
        self._burn_since_s = boot_s
        self._burn_now_e10 = 0
        self._burn_past_e10 = 0

    def spent(self, amount_e10: int, boot_s: float, window_s: float) -> None:
        """Note a charge for the burn figure (two windows, the older one forgotten)."""
        if boot_s - self._burn_since_s > window_s:
            fresh = boot_s - self._burn_since_s <= 2 * window_s
            self._burn_past_e10 = self._burn_now_e10 if fresh else 0
            self._burn_now_e10 = 0
            self._burn_since_s = boot_s
        self._burn_now_e10 += amount_e10

    @property
    def burn_e10(self) -> int:
        """What this customer burned in about one window."""
        return max(self._burn_now_e10, self._burn_past_e10)

    @property
    def idle(self) -> bool:
        """Nobody has money here, or is about to."""
        return not (self.held_e10 or self.pending_e10 or self.trip or self.waiting)

    def ask(
        self, holder_id: str, lease_s: float, least_e10: int, amount_e10: int, overdraft_e10: int
    ) -> LeaseAsk:
        """What to ask for so that these amounts are free, what is owed here included."""
        free, missing = max(0, self.free_e10), max(0, -self.free_e10)
        return LeaseAsk(
            lease_id=new_id("lease"),
            owner_id=self.owner_id,
            holder_id=holder_id,
            least_e10=max(1, least_e10 - free) + missing,
            hold_e10=max(1, amount_e10 - free) + missing,
            burn_e10=self.burn_e10,
            overdraft_e10=overdraft_e10,
            lease_s=lease_s,
            limit=self.limit,
        )

    def known_refusal(self, least_e10: int, boot_s: float) -> Refusal | None:
        """What a call that needs so much is told from memory, if there is no hope for it."""
        if self.refused is None or boot_s >= self.refused_until_s:
            return None
        available_e10 = max(self.refused.available_e10, self.free_e10)
        return Refusal(least_e10, available_e10) if least_e10 > available_e10 else None

    @property
    def claims_e10(self) -> int:
        """What must be there in leases, or in rows whose booking we have not heard of."""
        return self.free_e10 + self.held_e10 + self.pending_e10

    def lapse(self) -> None:
        """The database has taken our leases back. What open calls hold is not covered any more: it
        counts as owed, and the next lease covers it first."""
        self.free_e10 = -(self.held_e10 + self.pending_e10)
        self.granted_e10 = 0
        self.expires_s = 0.0


class Hold:
    """One call's claim on an account. Opened by `Leases`, released exactly once."""

    __slots__ = ("_leases", "account", "amount_e10", "open", "overdraft_e10")

    def __init__(
        self, leases: Leases, account: Account, amount_e10: int, overdraft_e10: int
    ) -> None:
        self._leases = leases
        self.account = account
        self.amount_e10 = amount_e10
        self.overdraft_e10 = overdraft_e10
        self.open = True

    def covered_at(self, boot_s: float) -> bool:
        """Whether the leases behind it may still be used up now, their grace included. Asked for
        every piece of every stream."""
        return boot_s < self.account.expires_s + self._leases.grace_s or not self.amount_e10

    def extend(self, more_e10: int) -> bool:
        """Take `more_e10` from what is free, now or not at all. No await."""
        account = self.account
        if account.free_e10 < more_e10 or not self._leases.in_time(account):
            return False
        account.free_e10 -= more_e10
        account.held_e10 += more_e10
        self.amount_e10 += more_e10
        self._leases.refill_if_low(account, self.overdraft_e10)
        return True

    def refill(self) -> None:
        """Have more leased in the background, where little is left: it will be needed."""
        self._leases.refill_if_low(self.account, self.overdraft_e10)

    async def extend_soon(self, least_e10: int, want_e10: int, wait_s: float) -> bool:
        """As `extend` by `want_e10`, or by what there is if that is at least `least_e10`, after
        waiting at most `wait_s` for a lease."""
        account, wanted = self.account, (least_e10, want_e10, self.overdraft_e10)
        with contextlib.suppress(TimeoutError, LavaError):  # too late, or the database is away
            async with asyncio.timeout(wait_s):
                answer = await self._leases.cover(account, *wanted)
            if answer.coming and account.free_e10 < least_e10:
                await await_top_up(self._leases, account, *wanted)
        return self.extend(min(want_e10, max(least_e10, account.free_e10)))

    def release(self, charge_e10: int) -> None:
        """Close: `charge_e10` (an upper bound until it is booked) becomes pending, the rest free.
        What the charge has above the hold comes out of what is free."""
        invariant(self.open, "a hold is released once")
        self.open = False
        account = self.account
        account.held_e10 -= self.amount_e10
        account.free_e10 += self.amount_e10 - charge_e10
        account.pending_e10 += charge_e10
        self._leases.released(account, charge_e10)
