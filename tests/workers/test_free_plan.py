"""Who leaves a plan is on the merchant's Free plan, once, whoever looks first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from books_kit import fetch
from plans_kit import DECLINED, PENDING, USD, Club, open_club

from lava_proxy.store import customers, free_plan, plans, subscriptions
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database


@pytest.fixture
async def club(database: Database, tmp_path: Path) -> AsyncIterator[Club]:
    async with open_club(database, tmp_path) as made:
        yield made


async def free(club: Club) -> str:
    """The merchant's Free plan, which gives 1 USD a month."""
    async with club.database.transaction() as conn:
        newcomer = await club.shop.customer()
        await free_plan.put_on(conn, club.shop.merchant_id, newcomer, club.books.now())
    ((plan_id,),) = await fetch(club.database, "SELECT free_plan_id FROM merchants")
    await fetch(club.database, "UPDATE plans SET included_credit_e10 = $1", USD)
    return str(plan_id)


async def cancel(club: Club, subscription_id: str) -> None:
    async with club.database.transaction() as conn:
        await subscriptions.cancel(
            conn,
            subscription_id=subscription_id,
            merchant_id=club.shop.merchant_id,
            now=club.books.now(),
        )


async def on(club: Club, customer: str) -> list[tuple[object, ...]]:
    """(plan, status) of a customer's subscriptions, oldest first."""
    return await fetch(
        club.database,
        "SELECT plan_id, status FROM subscriptions WHERE customer_id = $1 "
        "ORDER BY started_at, subscription_id",
        customer,
    )


async def test_who_cancelled_is_on_the_free_plan_from_the_cycles_end(club: Club) -> None:
    free_id, paid = await free(club), await club.plan(20)
    customer, subscription = await club.member(paid)
    club.later(days=3)
    await cancel(club, subscription)
    assert await on(club, customer) == [(paid.plan_id, "active")]
    club.later(days=26)
    await asyncio.gather(
        *[club.renew() for _ in range(2)], *[club.lease(customer, 1) for _ in range(2)]
    )
    assert await on(club, customer) == [(paid.plan_id, "cancelled"), (free_id, "active")]
    assert (await club.credit(customer))[0] == USD
    assert club.till.asked == []
    await club.shop.give_back(customer, None, "hld_1")
    club.later(days=31)
    await club.renew()
    assert (await club.credit(customer))[0] == USD  # and goes on there
    assert (await audit(club.database)).sound


@pytest.mark.parametrize("how", ["declined", "unanswered", "left unpaid"])
async def test_who_did_not_pay_is_on_the_free_plan(club: Club, how: str) -> None:
    free_id, paid = await free(club), await club.plan(20)
    customer, subscription = await club.member(paid)
    club.till.usual = DECLINED if how == "declined" else PENDING
    club.later(days=29)
    await club.renew()
    if how == "left unpaid":
        await cancel(club, subscription)
    else:
        club.later(days=8)
        await asyncio.gather(*[club.renew() for _ in range(2)])
    assert await on(club, customer) == [(paid.plan_id, "cancelled"), (free_id, "active")]
    assert (await club.credit(customer))[0] == USD
    (payment,) = await club.payments(customer, "renewal")
    await club.paid(str(payment["payment_id"]))  # late money is credit, and changes no plan
    assert await club.credit(customer) == (USD, 20 * USD)
    assert (await on(club, customer))[-1] == (free_id, "active")
    assert (await audit(club.database)).sound


async def test_who_leaves_the_free_plan_is_on_none(club: Club) -> None:
    await free(club)
    ((customer, subscription),) = await fetch(
        club.database, "SELECT customer_id, subscription_id FROM subscriptions"
    )
    await cancel(club, str(subscription))
    club.later(days=40)
    await club.renew()
    assert [status for _, status in await on(club, str(customer))] == ["cancelled"]


async def test_nobody_is_put_on_what_is_gone(club: Club) -> None:
    """A Free plan that was deleted; a customer who was."""
    free_id, paid = await free(club), await club.plan(20)
    gone, _ = await club.member(paid)
    left, subscription = await club.member(paid)
    now = club.books.now()
    async with club.database.transaction() as conn:
        await customers.delete(conn, club.shop.merchant_id, gone, now)
    leave = "UPDATE subscriptions SET status = 'cancelled' WHERE plan_id = $1"
    await fetch(club.database, leave, free_id)
    async with club.database.transaction() as conn:
        await plans.delete(conn, club.shop.merchant_id, free_id, now)
    await cancel(club, subscription)
    club.later(days=29)
    await club.renew()
    assert await on(club, left) == [(paid.plan_id, "cancelled")]


async def test_who_buys_as_their_plan_ends_is_on_what_they_bought(club: Club) -> None:
    await free(club)
    paid, other = await club.plan(20), await club.plan(30)
    customer, subscription = await club.member(paid)
    await cancel(club, subscription)
    club.later(days=29)
    payment = await club.pay(customer, "subscription", 30, plan_id=other.plan_id)
    await asyncio.gather(club.paid(payment), club.renew())
    await club.renew()
    assert (await on(club, customer))[-1] == (other.plan_id, "active")
    assert await club.credit(customer) == (30 * USD, 0)
    assert (await audit(club.database)).sound


async def test_who_is_deleted_is_on_no_plan_whatever_begins_meanwhile(club: Club) -> None:
    """The subscription that the caller saw has ended, and the Free plan begun, by then."""
    free_id, paid = await free(club), await club.plan(20)
    customer, subscription = await club.member(paid)
    club.later(seconds=1)
    now = club.books.now()
    async with club.database.transaction() as conn:
        await subscriptions.lock_account(conn, customer)
        await subscriptions.leave(conn, customer, subscription, now, now)
    async with club.database.transaction() as conn:
        await subscriptions.lock_account(conn, customer)
        await subscriptions.end(conn, customer, None, now)
    assert await on(club, customer) == [(paid.plan_id, "cancelled"), (free_id, "cancelled")]
    assert await club.credit(customer) == (0, 0)
