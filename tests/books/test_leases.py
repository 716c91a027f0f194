"""Leased credit in memory: sums stay exact whatever happens at the same time, and after it."""

from __future__ import annotations

import asyncio
import random

import pytest

from lava_proxy.books.leases import Account, Hold, Leases, Refusal
from lava_proxy.books.renewal import renewed, to_renew
from lava_proxy.core.clock import ManualClock
from lava_proxy.core.errors import LavaError
from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk

OWNER = "con_1"
LEASE_S, GRACE_S = 300.0, 60.0


WAIT_S = 10.0


class Bank:
    """A database in a few lines: free credit, what we have of it, and a door that can be shut."""

    def __init__(self, free_e10: int, clock: ManualClock) -> None:
        self.free_e10 = free_e10
        self.ours_e10 = 0
        self.asks: list[LeaseAsk] = []
        self.backs = 0
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.arrived = asyncio.Event()
        self.leases = Leases(
            self.trip,
            self.back,
            clock,
            holder_id="hld_1",
            lease_s=LEASE_S,
            grace_s=GRACE_S,
            burn_s=60.0,
            refusal_s=1.0,
            wait_s=WAIT_S,
        )

    @property
    def account(self) -> Account:
        return self.leases.account(OWNER)

    async def trip(self, ask: LeaseAsk) -> LeaseAnswer:
        self.asks.append(ask)
        self.arrived.set()
        await self.open.wait()
        if self.away:
            raise LavaError("unavailable")
        free = self.free_e10
        amount = 0
        if free >= max(1, ask.least_e10):
            amount = min(free, max(ask.hold_e10, min(ask.burn_e10, free // 4)))
        self.free_e10 -= amount
        self.ours_e10 += amount
        return LeaseAnswer(amount, free, 0)

    async def back(self, owner_id: str) -> None:
        assert owner_id == OWNER
        self.arrived.set()
        await self.open.wait()
        self.backs += 1
        self.free_e10 += self.ours_e10
        self.ours_e10 = 0

    def book(self, estimate_e10: int, charge_e10: int) -> None:
        """The writer committed a charge."""
        leased = min(charge_e10, self.ours_e10)
        self.ours_e10 -= leased
        self.leases.booked(OWNER, estimate_e10, leased)

    async def hold(self, amount_e10: int, least_e10: int | None = None) -> Hold | Refusal:
        least = amount_e10 if least_e10 is None else least_e10
        return await self.leases.hold(self.account, least, amount_e10, 0)

    async def held(self, amount_e10: int) -> Hold:
        hold = await self.hold(amount_e10)
        assert isinstance(hold, Hold)
        return hold

    async def settled(self) -> None:
        """Trips in the background are over."""
        await self.leases.close()
        await asyncio.sleep(0)

    def check(self) -> None:
        account = self.account
        assert account.free_e10 + account.held_e10 + account.pending_e10 == self.ours_e10


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


# Sums ------------------------------------------------------------------------------------------


async def test_a_hold_from_its_opening_to_its_booking(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    hold = await bank.held(100)
    account = bank.account
    assert (account.held_e10, account.pending_e10) == (100, 0)
    assert hold.extend(0)
    hold.release(60)
    assert (account.held_e10, account.pending_e10) == (0, 60)
    bank.check()
    bank.book(60, 55)
    assert account.pending_e10 == 0
    await bank.settled()
    bank.check()


async def test_a_hold_is_released_once(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    hold = await bank.held(10)
    hold.release(5)
    with pytest.raises(InvariantBroken):
        hold.release(5)
    await bank.settled()
    bank.check()


async def test_overshoot_makes_free_negative_until_a_lease_covers_it(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    hold = await bank.held(100)
    await bank.settled()
    free = bank.account.free_e10
    hold.release(free + 140)  # 40 more than everything we have
    assert bank.account.free_e10 == -40
    bank.check()
    next_hold = await bank.held(10)
    assert bank.asks[-1].least_e10 == 50
    bank.check()
    bank.book(free + 140, free + 140)
    next_hold.release(0)
    await bank.settled()
    bank.check()


@pytest.mark.parametrize("seed", range(3))
async def test_many_calls_at_once_never_hold_more_than_there_is(
    clock: ManualClock, seed: int
) -> None:
    rng = random.Random(seed)
    bank = Bank(5000, clock)
    admitted: list[int] = []

    async def one_call() -> None:
        amount = rng.randrange(1, 80)
        held = await bank.hold(amount, rng.choice((amount, 1)))
        if isinstance(held, Refusal):
            return
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
            if not held.extend(amount) and not await held.extend_soon(1, amount, 1.0):
                break
        charge = rng.randrange(held.amount_e10 + 1)
        held.release(charge)
        await asyncio.sleep(0)
        bank.book(charge, charge)
        admitted.append(charge)
        bank.check()

    await asyncio.gather(*(one_call() for _ in range(300)))
    await bank.settled()
    bank.check()
    assert bank.free_e10 + bank.ours_e10 + sum(admitted) == 5000
    assert sum(admitted) <= 5000
    assert bank.account.held_e10 == bank.account.pending_e10 == 0


async def test_checking_and_taking_is_one_step(clock: ManualClock) -> None:
    """A thousand calls want a thousandth each of what is there: all get it, none twice."""
    bank = Bank(1000, clock)
    first = await bank.held(1000)
    first.release(0)
    holds = await asyncio.gather(*(bank.hold(1) for _ in range(1100)))
    assert sum(isinstance(hold, Hold) for hold in holds) == 1000
    assert bank.account.free_e10 == 0
    bank.check()
    await bank.settled()


# Trips -----------------------------------------------------------------------------------------


async def test_callers_share_a_trip(clock: ManualClock) -> None:
    bank = Bank(10_000, clock)
    bank.open.clear()
    bank.account.spent(400_000, clock.boot_s(), 60.0)
    waiting = [asyncio.create_task(bank.hold(10)) for _ in range(50)]
    await bank.arrived.wait()
    bank.open.set()
    holds = await asyncio.gather(*waiting)
    assert all(isinstance(hold, Hold) for hold in holds)
    await bank.settled()
    assert len(bank.asks) == 1  # a quarter of all is plenty
    bank.check()


async def test_a_burst_on_a_cold_account_costs_two_trips(clock: ManualClock) -> None:
    """Nobody knows yet how fast this customer burns: the second trip is for all who still wait."""
    bank = Bank(1_000_000, clock)
    holds = await asyncio.gather(*(bank.hold(10) for _ in range(200)))
    assert all(isinstance(hold, Hold) for hold in holds)
    assert [ask.hold_e10 for ask in bank.asks[:2]] == [10, 1990]
    assert bank.account.demand_e10 == bank.account.waiting == 0
    await bank.settled()
    assert len(bank.asks) <= 3  # and one in the background, for the next
    bank.check()


async def test_what_one_trip_brought_may_be_taken_by_a_later_call(clock: ManualClock) -> None:
    """The trip's own caller goes again instead of telling its customer that there is no money."""
    bank = Bank(1000, clock)
    bank.open.clear()
    first = asyncio.create_task(bank.hold(100))
    await bank.arrived.wait()
    account = bank.account
    trip = account.trip
    assert trip is not None
    thieves: list[Hold | None] = []
    trip.add_done_callback(lambda _: thieves.append(bank.leases.try_hold(account, 100, 0)))
    bank.open.set()
    assert isinstance(await first, Hold)
    assert isinstance(thieves[0], Hold)
    await bank.settled()
    bank.check()


async def test_half_used_is_refilled_in_the_background(clock: ManualClock) -> None:
    bank = Bank(100_000, clock)
    bank.account.spent(1000, clock.boot_s(), 60.0)
    hold = await bank.held(100)
    assert bank.account.free_e10 == 900
    assert bank.leases.try_hold(bank.account, 400, 0)
    assert bank.account.trip is None  # exactly half is left
    assert bank.leases.try_hold(bank.account, 1, 0)
    assert bank.account.trip is not None
    await bank.settled()
    assert bank.account.free_e10 == 1499
    assert len(bank.asks) == 2
    assert hold.extend(1000)
    await bank.settled()
    assert len(bank.asks) == 3
    bank.check()


async def test_a_refusal_is_answered_from_memory_for_a_second(clock: ManualClock) -> None:
    bank = Bank(30, clock)
    assert await bank.hold(50) == Refusal(50, 30)
    for _ in range(20):
        assert await bank.hold(50) == Refusal(50, 30)
    assert len(bank.asks) == 1
    assert isinstance(await bank.hold(30), Hold)  # what there is can be had at any time
    await bank.settled()
    clock.advance(1.1)
    bank.free_e10 = 500
    assert isinstance(await bank.hold(50), Hold)
    await bank.settled()
    bank.check()


async def test_new_credit_ends_a_refusal(clock: ManualClock) -> None:
    bank = Bank(0, clock)
    assert await bank.hold(50) == Refusal(50, 0)
    bank.free_e10 = 1000
    assert await bank.hold(50) == Refusal(50, 0)
    bank.leases.credit_changed(OWNER)
    bank.leases.credit_changed("con_unknown")
    assert isinstance(await bank.hold(50), Hold)
    await bank.settled()


async def test_what_a_call_gives_back_ends_a_refusal_too(clock: ManualClock) -> None:
    bank = Bank(100, clock)
    hold = await bank.held(100)
    await bank.settled()
    assert await bank.hold(50, 20) == Refusal(20, 0)
    hold.release(0)
    smaller = await bank.hold(150, 20)
    assert isinstance(smaller, Hold)
    assert smaller.amount_e10 == 100
    bank.check()


async def test_a_call_that_costs_nothing_needs_no_credit(clock: ManualClock) -> None:
    bank = Bank(0, clock)
    hold = await bank.held(0)
    hold.release(0)
    assert bank.asks == []


async def test_with_the_database_away_what_we_have_is_good(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    (await bank.held(200)).release(0)
    await bank.settled()
    bank.away = True
    free = bank.account.free_e10
    hold = await bank.hold(free + 100, 50)
    assert isinstance(hold, Hold)
    assert hold.amount_e10 == free
    with pytest.raises(LavaError, match="unavailable"):  # 503, never 402
        await bank.hold(50)
    assert not await hold.extend_soon(10, 20, 0.2)
    bank.away = False
    assert isinstance(await bank.hold(50), Hold)
    await bank.settled()
    bank.check()


async def test_an_extension_waits_no_longer_than_told(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    hold = await bank.held(100)
    await bank.settled()
    bank.open.clear()
    assert not await hold.extend_soon(500, 500, 0.01)
    bank.open.set()
    await bank.settled()
    assert hold.extend(500)  # the trip went on without us
    bank.check()


async def test_callers_may_leave_while_a_trip_is_under_way(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    bank.open.clear()
    waiting = [asyncio.create_task(bank.hold(10)) for _ in range(3)]
    await bank.arrived.wait()
    for task in waiting[:2]:
        task.cancel()
    bank.open.set()
    left = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(left[2], Hold)
    assert bank.account.waiting == 0
    await bank.settled()
    bank.check()


# Time ------------------------------------------------------------------------------------------


async def test_nothing_new_after_expiry_and_a_trip_gives_new_time(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    hold = await bank.held(100)
    await bank.settled()
    clock.advance(LEASE_S - 1)
    assert hold.extend(1)
    clock.advance(2)
    free = bank.account.free_e10
    assert not hold.extend(1)
    assert bank.leases.try_hold(bank.account, 1, 0) is None
    assert bank.leases.in_grace(bank.account)
    assert bank.leases.idle_accounts(0.0) == []
    assert bank.account.free_e10 == free
    assert await hold.extend_soon(1, 1, 1.0)
    bank.check()


async def test_who_waited_while_another_was_refused_is_refused_without_a_trip(
    clock: ManualClock,
) -> None:
    """Many calls at once for a customer without credit are one trip, not one each."""
    bank = Bank(0, clock)
    asked = await asyncio.gather(*(bank.leases.hold(bank.account, 10, 10, 0) for _ in range(50)))
    assert all(isinstance(one, Refusal) for one in asked)
    assert len(bank.asks) <= 2
    assert bank.account.refused_until_s == clock.boot_s() + 1.0  # and its memory is not prolonged


async def test_a_hold_covers_nothing_once_the_grace_is_over(clock: ManualClock) -> None:
    """Another worker may have that money by then: a process that was stopped must not send on."""
    bank = Bank(1000, clock)
    hold, free = await bank.held(100), bank.leases.try_hold(bank.account, 0, 0)
    await bank.settled()
    clock.advance(LEASE_S + GRACE_S - 1)
    assert hold.covered_at(clock.boot_s())
    clock.advance(2)
    assert not hold.covered_at(clock.boot_s())
    assert free is not None
    assert free.covered_at(clock.boot_s())  # it costs nothing


async def test_a_refused_trip_renews_what_we_have(clock: ManualClock) -> None:
    """All of the customer's credit is ours, and the database was away while its time ran out."""
    bank = Bank(100, clock)
    (await bank.held(100)).release(0)
    await bank.settled()
    clock.advance(LEASE_S + 1)
    assert isinstance(await bank.hold(60), Hold)
    bank.check()


async def test_a_lapse_counts_what_is_held_as_owed(clock: ManualClock) -> None:
    """Stopped for an hour: the database has given our leases away, and the rows of calls that ran
    meanwhile must not turn into credit."""
    bank = Bank(1000, clock)
    running = await bank.held(300)
    ended = await bank.held(200)
    ended.release(150)
    await bank.settled()
    clock.advance(LEASE_S + GRACE_S + 1)
    bank.free_e10 += bank.ours_e10  # reclaimed
    bank.ours_e10 = 0
    new = await bank.held(100)
    assert bank.asks[-1].least_e10 == 100 + 300 + 150
    bank.check()
    bank.book(150, 150)
    bank.check()
    running.release(250)
    bank.book(250, 250)
    new.release(100)
    bank.book(100, 100)
    await bank.settled()
    bank.check()
    assert bank.free_e10 + bank.ours_e10 == 1000 - 150 - 250 - 100


async def test_after_a_lapse_the_old_lease_goes_back_before_a_new_one(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    (await bank.held(900)).release(0)
    await bank.settled()
    clock.advance(LEASE_S + GRACE_S + 1)
    assert bank.leases.idle_accounts(1e9) == []
    assert isinstance(await bank.hold(950), Hold)
    assert bank.backs == 1
    bank.check()


async def test_leases_in_use_are_renewed_at_half_of_their_time(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    hold = await bank.held(100)
    await bank.settled()
    assert to_renew(bank.leases) == []
    clock.advance(LEASE_S / 2 + 1)
    assert to_renew(bank.leases) == [OWNER]
    renewed(bank.leases, OWNER, clock.boot_s(), 1)
    renewed(bank.leases, "con_unknown", clock.boot_s(), 0)
    assert to_renew(bank.leases) == []
    clock.advance(LEASE_S + 1)
    assert to_renew(bank.leases) == []  # too late
    hold.release(0)


async def test_a_renewal_that_is_answered_after_the_grace_does_not_count(
    clock: ManualClock,
) -> None:
    bank = Bank(1000, clock)
    hold = await bank.held(100)
    await bank.settled()
    clock.advance(LEASE_S - 1)
    asked_s = clock.boot_s()
    clock.advance(GRACE_S + 2)
    renewed(bank.leases, OWNER, asked_s, 1)
    assert bank.leases.try_hold(bank.account, 1, 0) is None
    assert not hold.covered_at(clock.boot_s())
    clock.advance(-2)  # within the grace nobody can have taken anything back
    renewed(bank.leases, OWNER, asked_s, 1)
    assert hold.covered_at(clock.boot_s())
    renewed(bank.leases, OWNER, asked_s - 50, 1)  # an older answer takes nothing away
    assert bank.account.expires_s == asked_s + LEASE_S


async def test_leases_that_the_database_does_not_know_lapse(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    hold = await bank.held(100)
    await bank.settled()
    renewed(bank.leases, OWNER, clock.boot_s(), 0)
    assert not hold.covered_at(clock.boot_s())
    assert bank.leases.try_hold(bank.account, 1, 0) is None
    assert bank.account.claims_e10 == 0


async def test_a_process_that_stood_still_in_a_trip_gives_all_back_and_asks_again(
    clock: ManualClock,
) -> None:
    bank = Bank(1000, clock)
    (await bank.held(100)).release(0)
    await bank.settled()
    clock.advance(LEASE_S - 1)
    bank.open.clear()
    bank.arrived.clear()
    asked, holding = len(bank.asks), asyncio.create_task(bank.hold(900))
    await bank.arrived.wait()
    clock.advance(GRACE_S + 30)  # less than a lease: what the trip brings would still be in time
    bank.free_e10, bank.ours_e10 = 1000, 0  # what we had was taken back meanwhile
    bank.open.set()
    assert isinstance(await holding, Hold)
    assert (len(bank.asks) - asked >= 2, bank.backs) == (True, 1)
    bank.check()


# Giving back -----------------------------------------------------------------------------------


async def test_idle_credit_goes_back_and_the_account_is_forgotten(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    hold = await bank.held(100)
    await bank.settled()
    clock.advance(30)
    assert bank.leases.idle_accounts(20.0) == []
    hold.release(40)
    clock.advance(30)
    assert bank.leases.idle_accounts(20.0) == []  # not booked yet
    bank.book(40, 40)
    (idle,) = bank.leases.idle_accounts(20.0)
    await bank.leases.give_back(idle)
    assert bank.leases.accounts == {}
    assert (bank.free_e10, bank.ours_e10) == (960, 0)


async def test_an_account_in_use_cannot_be_given_back(clock: ManualClock) -> None:
    bank = Bank(1000, clock)
    await bank.held(100)
    with pytest.raises(InvariantBroken):
        await bank.leases.give_back(bank.account)
    await bank.settled()


async def test_a_call_that_comes_while_credit_goes_back(clock: ManualClock) -> None:
    """It waits, then leases anew, on the account that everybody else finds too."""
    bank = Bank(1000, clock)
    (await bank.held(100)).release(0)
    await bank.settled()
    account = bank.account
    bank.open.clear()
    bank.arrived.clear()
    giving = asyncio.create_task(bank.leases.give_back(account))
    await bank.arrived.wait()
    assert bank.leases.try_hold(bank.account, 1, 0) is None
    coming = asyncio.create_task(bank.hold(100))
    await asyncio.sleep(0)
    assert bank.leases.idle_accounts(-1.0) == []
    bank.open.set()
    await giving
    later = asyncio.create_task(bank.hold(50))
    hold, other = await coming, await later
    assert isinstance(hold, Hold)
    assert isinstance(other, Hold)
    assert hold.account is other.account is bank.account
    await bank.settled()
    bank.check()
    hold.release(70)
    bank.book(70, 70)
    other.release(0)
    bank.check()


async def test_two_burn_windows_are_remembered(clock: ManualClock) -> None:
    account = Account(OWNER, clock.boot_s())
    account.spent(100, clock.boot_s(), 60.0)
    assert account.burn_e10 == 100
    clock.advance(61)
    account.spent(5, clock.boot_s(), 60.0)
    assert account.burn_e10 == 100
    clock.advance(61)
    account.spent(7, clock.boot_s(), 60.0)
    assert account.burn_e10 == 7
    clock.advance(121)
    account.spent(1, clock.boot_s(), 60.0)
    assert account.burn_e10 == 1
