"""A change that waits for the cycle's end can be taken back until then: by the plan that the
customer is on, said again. At the end either that or the change itself happens, never both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from books_kit import fetch
from plans_kit import USD, Club, open_club

from lava_proxy.core.errors import LavaError
from lava_proxy.store import pending, subscriptions
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Connection, Database
from lava_proxy.store.plans import PlanRow

WAITING = """SELECT 1 FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'"""


@pytest.fixture
async def club(database: Database, tmp_path: Path) -> AsyncIterator[Club]:
    async with open_club(database, tmp_path) as made:
        yield made


async def say(club: Club, customer: str, plan: PlanRow, now: datetime | None = None) -> None:
    """`POST /v1/subscriptions`."""
    async with club.database.transaction() as conn:
        await subscriptions.subscribe_free(
            conn, customer_id=customer, plan_id=plan.plan_id, now=now or club.books.now()
        )


async def cancel(club: Club, subscription: str) -> None:
    async with club.database.transaction() as conn:
        merchant, now = club.shop.merchant_id, club.books.now()
        await subscriptions.cancel(
            conn, subscription_id=subscription, merchant_id=merchant, now=now
        )


async def test_a_cancellation_is_taken_back_and_nothing_else_moves(club: Club) -> None:
    for price in (0, 20):
        plan = await club.plan(price, included=20)
        customer, subscription = await club.member(plan)
        before = await club.subscription(subscription)
        await cancel(club, subscription)
        club.later(days=3)
        await say(club, customer, plan)
        assert await club.subscription(subscription) == before
        with pytest.raises(LavaError, match="is on this plan"):
            await say(club, customer, plan)
        assert isinstance(before["cycle_end_at"], datetime)
        club.at(before["cycle_end_at"])
        await club.renew()
        assert len(await club.cycles(subscription)) == 2
        assert await club.credit(customer) == (20 * USD, 0)
    assert (await audit(club.database)).sound


async def test_a_downgrade_is_taken_back_and_its_money_becomes_credit(club: Club) -> None:
    plan, small, free = [await club.plan(price) for price in (20, 5, 0)]
    customer, subscription = await club.member(plan)
    await say(club, customer, free)
    await say(club, customer, plan)
    assert (await club.subscription(subscription))["pending_type"] is None
    payment = await club.pay(customer, "subscription", 5, plan_id=small.plan_id)
    await club.paid(payment)  # begun before the dearer plan was
    assert (await club.subscription(subscription))["pending_payment_id"] == payment
    await say(club, customer, plan)
    assert await club.credit(customer) == (20 * USD, 5 * USD)
    club.later(days=28)
    await club.renew()
    assert [ask.amount_e10 for ask in club.till.asked] == [20 * USD]
    assert await club.credit(customer) == (20 * USD, 5 * USD)
    assert (await audit(club.database)).sound


async def test_after_the_end_there_is_nothing_to_take_back(club: Club) -> None:
    plan, free = await club.plan(20), await club.plan(0)
    (left, one), (down, other) = await club.member(plan), await club.member(plan)
    await cancel(club, one)
    await say(club, down, free)
    club.later(days=28)  # the worker has not looked yet
    for customer in (left, down):
        with pytest.raises(LavaError, match=r"on this plan|this plan is paid"):
            await say(club, customer, plan)
    await club.renew()
    assert (await club.subscription(one))["status"] == "cancelled"
    assert (await club.subscription(other))["plan_id"] == free.plan_id
    assert club.till.asked == []


@pytest.mark.parametrize("first", ["worker", "merchant"])
@pytest.mark.parametrize("change", ["cancellation", "downgrade"])
async def test_at_the_end_exactly_one_of_both_happens(club: Club, first: str, change: str) -> None:
    """The merchant's call comes a moment before the cycle's end, the worker a moment after it, and
    each waits for the other's transaction."""
    plan, small = await club.plan(20), await club.plan(5)
    customer, subscription = await club.member(plan)
    end = (await club.subscription(subscription))["cycle_end_at"]
    assert isinstance(end, datetime)
    if change == "cancellation":
        await cancel(club, subscription)
    else:
        async with club.database.transaction() as conn:
            await pending.change_later(conn, subscription, small.plan_id, club.books.now())
    moment = timedelta(seconds=1)

    async def undo(conn: Connection) -> None:
        await subscriptions.subscribe_free(
            conn, customer_id=customer, plan_id=plan.plan_id, now=end - moment
        )

    async def renew(conn: Connection) -> None:
        await subscriptions.renew_due(conn, customer, end + moment)

    works = (renew, undo) if first == "worker" else (undo, renew)

    async def second() -> None:
        async with club.database.transaction() as conn:
            await works[1](conn)

    async with club.database.transaction() as conn:
        await works[0](conn)
        waits = asyncio.create_task(second())
        while not await fetch(club.database, WAITING):
            await asyncio.sleep(0.01)
    if first == "worker":
        with pytest.raises(LavaError, match=r"on this plan|this plan is paid"):
            await waits
    else:
        await waits
    club.at(end + 2 * moment)
    await club.renew()
    now = await club.subscription(subscription)
    asked = [ask.amount_e10 for ask in club.till.asked]
    if first == "merchant":
        assert (now["status"], now["plan_id"], asked) == ("active", plan.plan_id, [20 * USD])
        assert await club.credit(customer) == (20 * USD, 0)
    elif change == "downgrade":
        assert (now["status"], now["plan_id"], asked) == ("active", small.plan_id, [5 * USD])
        assert await club.credit(customer) == (5 * USD, 0)
    else:
        assert (now["status"], asked) == ("cancelled", [])
        assert await club.credit(customer) == (0, 0)
    assert (await audit(club.database)).sound
