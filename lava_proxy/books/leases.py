"""Leased credit in this worker's memory, and the holds that calls open on it.

The database moves slices of a customer's credit to us (leases); admission is then a dictionary
look-up and a subtraction. The rules:

* Between looking at `free_e10` and subtracting there is no ``await``. That is the whole lock.
* free + held + pending is what we may spend: *held* belongs to open calls, *pending* to calls that
  ended and are not committed yet. Only `Account` moves money between the three.
* A lease has a time, judged on CLOCK_BOOTTIME from before we asked. When it is over nothing new may
  be opened or extended; running streams may use what they hold for the grace; then the database
  takes back what is left. So a worker that was stopped for an hour spends nothing stale.
* Below half of the last grant a refill runs in the background. A call that needs more waits for
  one (shared) trip. A confirmed refusal is answered from memory for a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from lava_proxy.books.account import Account, Back, Hold, Refusal, Trip
from lava_proxy.books.topping import await_top_up
from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError, unavailable
from lava_proxy.core.invariant import invariant
from lava_proxy.store.credit import LeaseAnswer

__all__ = ["Account", "Hold", "Leases", "Refusal"]
log = logging.getLogger(__name__)

TRIPS_MAX = 5  # for one hold: what a trip brought, a call that came later may have taken


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
        wait_s: float,
        top_up_wait_s: float = 0.0,
        recall: Back | None = None,
    ) -> None:
        """`recall` asks others for what they do not use; `wait_s`: for one answer, at most."""
        self._recall = recall
        self._trip = trip
        self._back = back
        self.clock = clock
        self._holder_id = holder_id
        self.lease_s = lease_s
        self.grace_s = grace_s
        self._burn_s = burn_s
        self._refusal_s = refusal_s
        self._wait_s = wait_s
        self.top_up_wait_s = top_up_wait_s
        self._tasks: set[asyncio.Task[LeaseAnswer]] = set()
        self.accounts: dict[str, Account] = {}
        self.trips = self.warm = 0

    def account(self, owner_id: str) -> Account:
        """The owner's account; new ones start empty."""
        account = self.accounts.get(owner_id)
        if account is None:
            account = self.accounts[owner_id] = Account(owner_id, self.clock.boot_s())
        return account

    def try_hold(self, account: Account, amount_e10: int, overdraft_e10: int) -> Hold | None:
        """Open a hold from what is free, now or not at all. No await. A call that costs nothing
        needs no lease."""
        if amount_e10 and (account.free_e10 < amount_e10 or not self.in_time(account)):
            return None
        account.free_e10 -= amount_e10
        account.held_e10 += amount_e10
        account.used_s = self.clock.boot_s()
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
        if (refusal := self._known_refusal(account, least_e10)) is not None:
            return refusal
        try:
            answer = await self.cover(account, least_e10, amount_e10, overdraft_e10)
        except LavaError:  # the database is away: what we have is still good
            if account.free_e10 < least_e10 or not self.in_time(account):
                raise
            answer = LeaseAnswer(0, 0, 0)
        hold = self._take(account, least_e10, amount_e10, overdraft_e10)
        if hold is None and (refusal := self._known_refusal(account, least_e10)) is not None:
            return refusal  # somebody else was told while we waited
        if hold is None and answer.elsewhere_e10 and self._recall is not None:
            account.waiting += 1  # the account must stay the one that all others find
            try:
                await self._recall(account.owner_id)
            finally:
                account.waiting -= 1
            answer = await self.cover(account, least_e10, amount_e10, overdraft_e10)
            hold = self._take(account, least_e10, amount_e10, overdraft_e10)
        if hold is None and answer.coming:
            answer = await await_top_up(self, account, least_e10, amount_e10, overdraft_e10)
            hold = self._take(account, least_e10, amount_e10, overdraft_e10)
        if hold is not None:
            return hold
        refusal = Refusal(least_e10, max(0, account.free_e10 + answer.free_e10))
        account.refused = refusal
        account.refused_until_s = self.clock.boot_s() + self._refusal_s
        return refusal

    def _take(
        self, account: Account, least_e10: int, amount_e10: int, overdraft_e10: int
    ) -> Hold | None:
        """A hold of what there is, if that is enough. No await."""
        take = min(amount_e10, max(account.free_e10, 0))
        return self.try_hold(account, take, overdraft_e10) if take >= least_e10 else None

    def take_free(self, owner_id: str) -> int:
        """Let go of what nobody holds; the caller gives it back to the database."""
        account = self.accounts.get(owner_id)
        if account is None or account.waiting or account.trip or not self.in_time(account):
            return 0
        amount_e10 = account.free_e10
        if amount_e10 > 0:
            account.free_e10 = account.granted_e10 = 0
        return max(0, amount_e10)

    async def cover(
        self, account: Account, least_e10: int, amount_e10: int, overdraft_e10: int
    ) -> LeaseAnswer:
        """Fetch until `least_e10` is free, or until a trip brings nothing: then there is nothing.
        The caller must take what it needs before its next await."""
        for _ in range(TRIPS_MAX):
            answer = await self._fetch(account, least_e10, amount_e10, overdraft_e10)
            if not answer.amount_e10 or (account.free_e10 >= least_e10 and self.in_time(account)):
                break
        return answer

    async def _fetch(
        self, account: Account, least_e10: int, amount_e10: int, overdraft_e10: int
    ) -> LeaseAnswer:
        """One trip for a lease. Who comes while one is under way waits for it; if it did not
        suffice, one goes for all that wait: a burst costs two or three trips, not one each."""
        account.waiting += 1
        account.demand_e10 += amount_e10
        try:
            while account.trip is not None:
                answer = await self._answer(account.trip)
                if account.free_e10 >= amount_e10 and self.in_time(account):
                    return answer
                if self._known_refusal(account, least_e10):
                    return LeaseAnswer(0, 0, 0)
            return await self._answer(self._start(account, least_e10, amount_e10, overdraft_e10))
        finally:
            account.waiting -= 1
            account.demand_e10 -= amount_e10

    async def _answer(self, trip: asyncio.Task[LeaseAnswer]) -> LeaseAnswer:
        """Wait for a trip. What it brings too late is there for the next call."""
        try:
            async with asyncio.timeout(self._wait_s):
                return await asyncio.shield(trip)
        except TimeoutError:
            raise unavailable("credit is not looked up in time; try again") from None

    def refill_if_low(self, account: Account, overdraft_e10: int) -> None:
        """Start a refill in the background when half of the last grant is used."""
        if account.trip is not None or 2 * account.free_e10 >= account.granted_e10:
            return
        if self._known_refusal(account, 1) is None:
            self._start(account, 1, max(1, account.wanted_e10), overdraft_e10)

    def in_time(self, account: Account) -> bool:
        """Whether the account's leases may back new money now."""
        return self.clock.boot_s() < account.expires_s

    def all_over(self) -> bool:
        """Whether we have leases and none is in time."""
        last_s = max((a.expires_s for a in self.accounts.values()), default=0.0)
        return 0 < last_s <= self.clock.boot_s()

    def in_grace(self, account: Account) -> bool:
        """Whether running calls may still use what they hold."""
        return self.clock.boot_s() < account.expires_s + self.grace_s

    def released(self, account: Account, charge_e10: int) -> None:
        account.used_s = self.clock.boot_s()
        account.spent(charge_e10, account.used_s, self._burn_s)

    def booked(self, owner_id: str, estimate_e10: int, leased_e10: int) -> None:
        """A charge was committed: `leased_e10` of it came out of our leases."""
        if (account := self.accounts.get(owner_id)) is not None:
            account.pending_e10 -= estimate_e10
            account.free_e10 += estimate_e10 - leased_e10

    def credit_changed(self, owner_id: str) -> None:
        """New credit may be there: forget refusals."""
        account = self.accounts.get(owner_id)
        if account is not None:
            account.refused = None
            if account.news is not None:
                account.news.set()
                account.news = None

    def idle_accounts(self, idle_s: float) -> list[Account]:
        """Accounts that nobody used for `idle_s`."""
        since_s = self.clock.boot_s() - idle_s
        return [a for a in self.accounts.values() if a.idle and a.used_s < since_s]

    async def give_back(self, account: Account) -> None:
        """Return all of an idle account's leases. The money leaves our hands first, and whoever
        wants some meanwhile waits for this trip, so nothing new can be returned by mistake."""
        invariant(account.idle, "only idle accounts are given back")
        account.free_e10 = account.granted_e10 = 0
        account.expires_s = 0.0
        await asyncio.shield(self.under_way(account, self._give_back(account)))

    async def _give_back(self, account: Account) -> LeaseAnswer:
        try:
            await self._back(account.owner_id)
        except LavaError:
            log.warning("leases of %s go back when their time is over", account.owner_id)
        finally:
            account.trip = None
            if account.idle and self.accounts.get(account.owner_id) is account:
                del self.accounts[account.owner_id]
        return LeaseAnswer(0, 0, 0)

    async def close(self) -> None:
        """Wait for trips under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _known_refusal(self, account: Account, least_e10: int) -> Refusal | None:
        return account.known_refusal(least_e10, self.clock.boot_s())

    def _start(
        self, account: Account, least_e10: int, amount_e10: int, overdraft_e10: int
    ) -> asyncio.Task[LeaseAnswer]:
        account.wanted_e10 = amount_e10
        wants_e10 = max(amount_e10, account.demand_e10)
        return self.under_way(account, self._go(account, least_e10, wants_e10, overdraft_e10))

    async def _go(
        self, account: Account, least_e10: int, amount_e10: int, overdraft_e10: int
    ) -> LeaseAnswer:
        try:
            while True:
                if account.expires_s and not self.in_grace(account):
                    await self._back(account.owner_id)  # nobody has it, whether it was taken or not
                    account.lapse()
                asked_s = self.clock.boot_s()
                wants = least_e10, amount_e10, overdraft_e10
                ask = account.ask(self._holder_id, self.lease_s, *wants)
                self.trips += 1
                answer = await self._trip(ask)
                if not account.expires_s or self.in_grace(account):
                    break  # else we were stopped: what we had before may have been taken back
        finally:
            account.trip = None
        account.free_e10 += answer.amount_e10
        account.granted_e10 = answer.amount_e10  # 0, nothing to be had: no refill until one asks
        account.expires_s = asked_s + self.lease_s  # a trip renews whatever we have
        if answer.amount_e10:
            account.refused = None
        return answer

    def under_way(
        self, account: Account, going: Coroutine[object, object, LeaseAnswer]
    ) -> asyncio.Task[LeaseAnswer]:
        """Who wants more of the account waits for this trip, which takes itself off at its end."""
        account.trip = task = asyncio.get_running_loop().create_task(going)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[LeaseAnswer]) -> None:
        """Whoever waits for the task hears of its error; a refill has nobody who does."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()
