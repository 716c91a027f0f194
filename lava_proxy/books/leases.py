"""Leased credit in this worker's memory, and the holds that calls open on it.

The database moves slices of a customer's credit to us (leases); admission is then a dictionary
look-up and a subtraction. The rules:

* Between looking at `free_e10` and subtracting there is no ``await``. That is the whole lock.
* free + held + pending is what we may spend: *held* belongs to open calls, *pending* to calls that
  ended and are not committed yet. Only `Account` moves money between the three.
* A lease has a time, judged on CLOCK_BOOTTIME from before we asked. When it is over nothing new may
  be opened or extended; running streams may use what they hold for the grace; then the database
  takes back what is left. So a worker that was stopped for an hour spends nothing stale.
* Below half of the last grant a refill runs in the background. When a call needs more than is
  there, it waits for one (shared) trip. A confirmed refusal is answered from memory for a second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.core.invariant import invariant
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk

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
        "expires_s",
        "free_e10",
        "granted_e10",
        "held_e10",
        "owner_id",
        "pending_e10",
        "refused",
        "refused_until_s",
        "trip",
        "used_s",
    )

    def __init__(self, owner_id: str, boot_s: float) -> None:
        self.owner_id = owner_id
        self.free_e10 = 0
        self.held_e10 = 0
        self.pending_e10 = 0
        self.granted_e10 = 0
        self.expires_s = 0.0
        self.used_s = boot_s
        self.refused: Refusal | None = None
        self.refused_until_s = 0.0
        self.trip: asyncio.Task[LeaseAnswer] | None = None
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
        return not (self.held_e10 or self.pending_e10 or self.trip)


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

    async def extend_soon(self, more_e10: int, wait_s: float) -> bool:
        """As `extend`, after waiting at most `wait_s` for a lease."""
        with contextlib.suppress(TimeoutError, LavaError):  # too late, or the database is away
            async with asyncio.timeout(wait_s):
                await self._leases.fetch(self.account, more_e10, more_e10, self.overdraft_e10)
        return self.extend(more_e10)

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


class Leases:
    """All accounts of this worker."""

    def __init__(
        self,
        trip: Trip,
        back: Back,
        clock: Clock,
        *,
        holder_id: str,
        lease_s: float,
        grace_s: float,
        burn_s: float,
        refusal_s: float,
    ) -> None:
        self._trip = trip
        self._back = back
        self._clock = clock
        self._holder_id = holder_id
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._burn_s = burn_s
        self._refusal_s = refusal_s
        self._tasks: set[asyncio.Task[LeaseAnswer]] = set()
        self.accounts: dict[str, Account] = {}
        self.trips = 0
        self.warm = 0

    def account(self, owner_id: str) -> Account:
        """The owner's account; new ones start empty."""
        account = self.accounts.get(owner_id)
        if account is None:
            account = self.accounts[owner_id] = Account(owner_id, self._clock.boot_s())
        return account

    def try_hold(self, account: Account, amount_e10: int, overdraft_e10: int) -> Hold | None:
        """Open a hold from what is free, now or not at all. No await."""
        if account.free_e10 < amount_e10 or not self.in_time(account):
            return None
        account.free_e10 -= amount_e10
        account.held_e10 += amount_e10
        account.used_s = self._clock.boot_s()
        self.refill_if_low(account, overdraft_e10)
        return Hold(self, account, amount_e10, overdraft_e10)

    async def hold(
        self, account: Account, least_e10: int, amount_e10: int, overdraft_e10: int
    ) -> Hold | Refusal:
        """Open a hold of `amount_e10`, or of what there is if that is at least `least_e10`."""
        hold = self.try_hold(account, amount_e10, overdraft_e10)
        if hold is not None:
            self.warm += 1
            return hold
        refusal = self._known_refusal(account, least_e10)
        if refusal is not None:
            return refusal
        answer = await self.fetch(account, least_e10, amount_e10, overdraft_e10)
        take = min(amount_e10, max(account.free_e10, 0))
        if take >= least_e10:
            hold = self.try_hold(account, take, overdraft_e10)
            if hold is not None:
                return hold
        refusal = Refusal(least_e10, max(0, account.free_e10 + answer.free_e10))
        account.refused = refusal
        account.refused_until_s = self._clock.boot_s() + self._refusal_s
        return refusal

    async def fetch(
        self, account: Account, least_e10: int, amount_e10: int, overdraft_e10: int
    ) -> LeaseAnswer:
        """One trip for a lease; callers that come while one is under way wait for it first, then
        go themselves if it did not suffice."""
        while account.trip is not None:
            answer = await asyncio.shield(account.trip)
            if account.free_e10 >= amount_e10 and self.in_time(account):
                return answer
        return await asyncio.shield(self._start(account, least_e10, amount_e10, overdraft_e10))

    def refill_if_low(self, account: Account, overdraft_e10: int) -> None:
        """Start a refill in the background when half of the last grant is used."""
        if account.trip is None and 2 * account.free_e10 < account.granted_e10:
            if self._known_refusal(account, 1) is None:
                self._start(account, 1, 1, overdraft_e10)

    def in_time(self, account: Account) -> bool:
        """Whether the account's leases may back new money now."""
        return self._clock.boot_s() < account.expires_s

    def in_grace(self, account: Account) -> bool:
        """Whether running calls may still use what they hold."""
        return self._clock.boot_s() < account.expires_s + self._grace_s

    def released(self, account: Account, charge_e10: int) -> None:
        now_s = self._clock.boot_s()
        account.used_s = now_s
        account.spent(charge_e10, now_s, self._burn_s)

    def booked(self, owner_id: str, estimate_e10: int, leased_e10: int) -> None:
        """A charge was committed: `leased_e10` of it came out of our leases."""
        account = self.accounts.get(owner_id)
        if account is None:
            return
        account.pending_e10 -= estimate_e10
        account.free_e10 += estimate_e10 - leased_e10

    def credit_changed(self, owner_id: str) -> None:
        """New credit may be there: forget refusals."""
        account = self.accounts.get(owner_id)
        if account is not None:
            account.refused = None

    def idle_accounts(self, idle_s: float) -> list[Account]:
        """Accounts that nobody used for `idle_s`. Expired ones lose what is free."""
        now_s = self._clock.boot_s()
        idle = []
        for account in self.accounts.values():
            if not self.in_time(account) and account.free_e10 > 0:
                account.free_e10 = account.granted_e10 = 0
            if account.idle and now_s - account.used_s > idle_s:
                idle.append(account)
        return idle

    async def give_back(self, account: Account) -> None:
        """Return all of an idle account's leases. The money leaves our hands first, and whoever
        wants some meanwhile waits for this trip, so nothing new can be returned by mistake."""
        invariant(account.idle, "only idle accounts are given back")
        account.free_e10 = account.granted_e10 = 0
        account.expires_s = 0.0
        task = asyncio.get_running_loop().create_task(self._give_back(account))
        account.trip = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _give_back(self, account: Account) -> LeaseAnswer:
        try:
            await self._back(account.owner_id)
        finally:
            account.trip = None
            if account.idle and self.accounts.get(account.owner_id) is account:
                del self.accounts[account.owner_id]
        return LeaseAnswer(0, 0, 0)

    def to_renew(self) -> list[str]:
        """Owners whose leases are past half of their time and in use."""
        now_s = self._clock.boot_s()
        return [
            a.owner_id
            for a in self.accounts.values()
            if 0 < a.expires_s - now_s < self._lease_s / 2
        ]

    def renewed(self, owner_id: str, asked_s: float) -> None:
        """Leases were extended; counted from before we asked."""
        account = self.accounts.get(owner_id)
        if account is not None:
            account.expires_s = asked_s + self._lease_s

    async def close(self) -> None:
        """Wait for trips under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _known_refusal(self, account: Account, least_e10: int) -> Refusal | None:
        known = account.refused
        if known is None or self._clock.boot_s() >= account.refused_until_s:
            return None
        return Refusal(least_e10, known.available_e10) if least_e10 > known.available_e10 else None

    def _start(
        self, account: Account, least_e10: int, amount_e10: int, overdraft_e10: int
    ) -> asyncio.Task[LeaseAnswer]:
        missing = max(0, -account.free_e10)
        ask = LeaseAsk(
            lease_id=new_id("lease"),
            owner_id=account.owner_id,
            holder_id=self._holder_id,
            least_e10=max(1, least_e10 - max(account.free_e10, 0)) + missing,
            hold_e10=max(1, amount_e10 - max(account.free_e10, 0)) + missing,
            burn_e10=account.burn_e10,
            overdraft_e10=overdraft_e10,
            lease_s=self._lease_s,
        )
        task = asyncio.get_running_loop().create_task(self._fetch(account, ask))
        account.trip = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _fetch(self, account: Account, ask: LeaseAsk) -> LeaseAnswer:
        asked_s = self._clock.boot_s()
        expired = not self.in_time(account)
        self.trips += 1
        try:
            answer = await self._trip(ask)
        finally:
            account.trip = None
        if expired and account.expires_s and asked_s > account.expires_s + self._grace_s:
            account.free_e10 = 0  # what we had may have been taken back meanwhile
        if answer.amount_e10:
            account.free_e10 += answer.amount_e10
            account.granted_e10 = answer.amount_e10
            account.expires_s = asked_s + self._lease_s
            account.refused = None
        else:
            account.granted_e10 = 0  # nothing to be had: no refill until a call asks
        return answer
