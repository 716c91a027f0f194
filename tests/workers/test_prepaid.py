"""A cheaper plan that is paid for while a dearer one runs: it begins with the end of the cycle, is
not charged for again, and its money is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from books_kit import fetch
from plans_kit import USD, Club, open_club

from lava_proxy.store import payments, reversals, subscribed, subscription_view, subscriptions
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database
from lava_proxy.store.plans import PlanRow


@pytest.fixture
async def club(database: Database, tmp_path: Path) -> AsyncIterator[Club]:
    async with open_club(database, tmp_path) as made:
        yield made


async def prepaid(club: Club, *, interval: str = "month") -> tuple[str, str, PlanRow, str]:
    """A customer on a plan of 50 who paid for one of 20 as well: (customer, subscription, the plan
    of 20, its payment)."""
    large, small = await club.plan(50), await club.plan(20, interval=interval)  # type: ignore[arg-type]
    customer, subscription = await club.member(large)
    club.later(days=3)
    payment = await club.pay(customer, "subscription", 20, plan_id=small.plan_id)
    for _ in range(2):
        await club.paid(payment)
    return customer, subscription, small, payment


async def pending(club: Club, customer: str) -> dict[str, object] | None:
    """The change that the API and webhooks show."""
    async with club.database.connection() as conn:
        row = await subscribed.active(conn, club.shop.merchant_id, customer)
    assert row is not None
    return subscription_view.view(row)["pending_change"]  # type: ignore[return-value]


async def test_it_gives_what_was_offered_when_it_was_begun(club: Club) -> None:
    large, small = await club.plan(50), await club.plan(20)
    customer, _ = await club.member(large)
    payment = await club.pay(
        customer, "subscription", 20, plan_id=small.plan_id, credit_e10=12 * USD
    )
    assert await club.paid(payment)
    club.later(days=31)
    await club.renew()
    assert club.till.asked == []
    assert await club.credit(customer) == (12 * USD, 0)


@pytest.mark.parametrize("interval", ["month", "week"])
async def test_it_begins_with_the_end_of_the_cycle_and_is_paid(club: Club, interval: str) -> None:
    customer, subscription, small, payment = await prepaid(club, interval=interval)
    assert await club.credit(customer) == (50 * USD, 0)
    change = await pending(club, customer)
    assert change is not None
    assert (change["type"], change["plan_id"]) == ("downgrade", small.plan_id)
    assert (change["effective_at"], change["payment_id"]) == ("2026-02-28T10:00:00.000Z", payment)
    club.later(days=26)
    await asyncio.gather(club.renew(), club.renew(), club.lease(customer, 1))
    await club.shop.give_back(customer, None, "hld_1")
    assert club.till.asked == []
    assert await club.credit(customer) == (20 * USD, 0)
    on = await club.subscription(subscription)
    assert (on["plan_id"], on["pending_type"]) == (small.plan_id, None)
    assert await pending(club, customer) is None
    end = on["cycle_end_at"]
    assert isinstance(end, datetime)
    club.at(end)
    await club.renew()
    assert [ask.amount_e10 for ask in club.till.asked] == [20 * USD]  # the one after is charged
    assert (await audit(club.database)).sound


@pytest.mark.parametrize("how", ["cancelled", "upgraded", "free", "paid again", "ended"])
async def test_another_change_makes_its_money_credit(club: Club, how: str) -> None:
    customer, subscription, small, payment = await prepaid(club)
    now, cycle_e10 = club.books.now(), 50 * USD
    if how in ("upgraded", "paid again"):
        plan = small if how == "paid again" else await club.plan(90)
        price = plan.period_amount_e10 // USD
        await club.paid(await club.pay(customer, "subscription", price, plan_id=plan.plan_id))
        cycle_e10 = 90 * USD if how == "upgraded" else cycle_e10
    elif how == "free":
        free = await club.plan(0)
        async with club.database.transaction() as conn:
            await subscriptions.subscribe_free(
                conn, customer_id=customer, plan_id=free.plan_id, now=now
            )
    elif how == "cancelled":
        async with club.database.transaction() as conn:
            await subscriptions.cancel(
                conn, subscription_id=subscription, merchant_id=club.shop.merchant_id, now=now
            )
    else:
        async with club.database.transaction() as conn:
            await subscriptions.lock_account(conn, customer)
            await subscriptions.end(conn, customer, None, now)
        cycle_e10 = 0
    assert await club.credit(customer) == (cycle_e10, 20 * USD)
    assert not await club.paid(payment)
    club.later(days=26)
    await club.renew()
    assert (await club.credit(customer))[1] == 20 * USD
    assert (await audit(club.database)).sound


@pytest.mark.parametrize("when", ["before it begins", "after"])
async def test_what_goes_back_goes_from_its_credit(club: Club, when: str) -> None:
    customer, _, _, payment = await prepaid(club)
    ref, now = "pi_1", club.books.now()
    await fetch(club.database, "UPDATE payments SET provider_ref = $1", ref)

    async def refund() -> None:
        async with club.database.transaction() as conn:
            await reversals.note(
                conn,
                provider=club.till.name,
                ref="re_1",
                payment_ref=ref,
                kind="refund",
                amount_e10=5 * USD,
                over=False,
            )
            await reversals.settle_up(conn, payment, club.books.now())

    if when == "before it begins":
        await refund()
    club.later(days=26)
    await club.renew()
    if when == "after":
        await refund()
    assert await club.credit(customer) == (15 * USD, 0)
    async with club.database.connection() as conn:
        row = await payments.find(conn, club.shop.merchant_id, payment)
    assert row is not None
    assert (row.refunded_e10, row.created_at) == (5 * USD, now)
    assert (await audit(club.database)).sound


async def test_where_the_next_cycle_is_owed_for_there_is_nothing_to_wait_for(club: Club) -> None:
    large, small = await club.plan(50), await club.plan(20)
    customer, _ = await club.member(large)
    club.later(days=29)
    payment = await club.pay(customer, "subscription", 20, plan_id=small.plan_id)
    await club.paid(payment)
    assert await club.credit(customer) == (20 * USD, 0)
    await club.renew()
    assert club.till.asked == []
