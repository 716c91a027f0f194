"""Renewals: late, twice, declined, waiting; a cycle is begun once and money is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from books_kit import fetch, row
from plans_kit import DECLINED, PENDING, USD, Club, open_club

from lava_proxy.core.invariant import invariant
from lava_proxy.payments.manual import Manual
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk, PaymentsDown
from lava_proxy.store import customers, plans, subscriptions
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Connection, Database
from lava_proxy.store.plans import Rollover
from lava_proxy.workers import charges, renewals


@pytest.fixture
async def club(database: Database, tmp_path: Path) -> AsyncIterator[Club]:
    async with open_club(database, tmp_path) as made:
        yield made


async def test_a_charge_that_waits_for_its_payer_is_not_made_twice(club: Club) -> None:
    await club.member(await club.plan())
    club.till.answers.append(ChargeAnswer("requires_action", "pi_1", "authentication_required"))
    club.later(days=31)
    await club.renew()
    club.later(hours=2)
    await club.renew()
    first, second = club.till.asked
    assert first.payment_id == second.payment_id
    assert (first.provider_ref, second.provider_ref) == (None, "pi_1")


async def test_a_renewal_that_waits_for_its_payer_says_so(club: Club) -> None:
    customer, subscription = await club.member(await club.plan())
    waits = ChargeAnswer("requires_action", "pi_1", "authentication_required")
    club.till.answers.extend([waits, DECLINED, waits])
    club.later(days=31)
    for status in ("requires_action", "pending", "requires_action"):
        await club.renew()
        (payment,) = await club.payments(customer, "renewal")
        assert (payment["status"], payment["provider_ref"]) == (status, "pi_1")
        assert not (await club.lease(customer, 1)).coming  # nobody can say when
        club.later(days=1)
    club.till.usual = waits
    club.later(days=5)
    await club.renew()
    assert (await club.subscription(subscription))["status"] == "cancelled"
    (payment,) = await club.payments(customer, "renewal")
    assert payment["status"] == "failed"
    assert await club.paid(str(payment["payment_id"]))  # they confirmed after all
    assert await club.credit(customer) == (0, 20 * USD)


async def test_a_renewal_that_nobody_answers_for_lapses_with_its_grace(club: Club) -> None:
    for said in (PENDING, PaymentsDown):
        customer, subscription = await club.member(await club.plan())
        club.till.usual = said
        club.later(days=32)
        await club.renew()
        club.later(days=6, hours=23)
        await club.renew()
        assert (await club.subscription(subscription))["status"] == "active"
        club.later(hours=2)
        await club.renew()
        assert (await club.subscription(subscription))["status"] == "cancelled"
        (payment,) = await club.payments(customer, "renewal")
        assert payment["status"] == "cancelled"
        assert await club.credit(customer) == (0, 0)
        assert await club.paid(str(payment["payment_id"]))  # it came all the same
        assert not await club.paid(str(payment["payment_id"]))
        assert await club.credit(customer) == (0, 20 * USD)
    assert (await audit(club.database)).sound


async def test_a_worker_that_was_away_for_long_leaves_the_whole_grace(club: Club) -> None:
    customer, subscription = await club.member(await club.plan(interval="day"))
    club.till.usual = DECLINED
    club.later(days=30)
    await club.renew()
    assert (await club.subscription(subscription))["status"] == "active"
    (payment,) = await club.payments(customer, "renewal")
    assert payment["status"] == "pending"
    club.later(days=6)
    club.till.usual = ChargeAnswer("succeeded")
    await club.renew()
    assert await club.credit(customer) == (20 * USD, 0)


async def test_a_renewal_gives_what_was_promised_for_its_price(club: Club) -> None:
    """The merchant lets the plan include less while a renewal's payer confirms."""
    plan = await club.plan(20, included=15)
    customer, _ = await club.member(plan)
    club.till.answers.append(ChargeAnswer("requires_action", "pi_1", "authentication_required"))
    club.later(days=31)
    await club.renew()
    async with club.database.transaction() as conn:
        change = plans.PlanChange(included_credit_e10=9 * USD)
        await plans.update(conn, club.shop.merchant_id, plan.plan_id, change, club.books.now())
    club.later(hours=2)
    await club.renew()
    assert [ask.amount_e10 for ask in club.till.asked] == [20 * USD, 20 * USD]
    assert await club.credit(customer) == (15 * USD, 0)
    club.later(days=31)
    await club.renew()
    assert await club.credit(customer) == (9 * USD, 0)


async def test_a_decline_is_tried_again_until_the_grace_is_over(club: Club) -> None:
    _, subscription = await club.member(await club.plan())
    club.till.usual = DECLINED
    club.later(days=28)
    tried = []
    while (await club.subscription(subscription))["status"] == "active":
        before = len(club.till.asked)
        await club.renew()
        if len(club.till.asked) > before:
            tried.append(club.clock.seconds)
        club.later(hours=1)
    hours = [round((at - tried[0]) / 3600) for at in tried]
    assert hours == [0, 1, 7, 31, 55, 79, 103, 127, 151, 168]
    assert [ask.attempt for ask in club.till.asked] == list(range(1, 11))


async def test_money_for_what_is_gone_meanwhile_becomes_credit(club: Club) -> None:
    plan = await club.plan()
    before, after = await club.shop.customer(), await club.shop.customer()
    wanted = [
        await club.pay(customer, "subscription", 20, plan_id=plan.plan_id)
        for customer in (before, after)
    ]
    async with club.database.transaction() as conn:
        await customers.delete(conn, club.shop.merchant_id, before, club.books.now())
        assert await plans.delete(conn, club.shop.merchant_id, plan.plan_id, club.books.now())
    for customer, payment in zip((before, after), wanted, strict=True):
        assert await club.paid(payment)
        assert await club.credit(customer) == (0, 20 * USD)
        assert await fetch(club.database, "SELECT 1 FROM subscriptions") == []
    assert (await audit(club.database)).sound


async def test_by_hand_a_payment_is_made_at_once_in_its_own_test_mode_only() -> None:
    for payment, customer, outcome in (
        ("pay_test_1", "con_1", "succeeded"),
        ("pay_1", "con_test_1", "pending"),
        ("pay_test_1", None, "succeeded"),
    ):
        ask = ChargeAsk(payment, "mer_1", customer, None, 5, "d")
        assert (await Manual().charge(ask)).outcome == outcome


async def test_a_months_end_is_not_twenty_payments_at_a_time(
    club: Club, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charges, "MOST", 2)
    plan = await club.plan(20)
    members = [(await club.member(plan))[0] for _ in range(5)]
    club.later(days=31)
    await club.renew()
    assert len(club.till.asked) == 5
    assert [await club.credit(customer) for customer in members] == [(20 * USD, 0)] * 5


async def test_one_broken_subscription_keeps_nobody_else_from_renewing(
    club: Club, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = await club.plan(20)
    broken, fine = [(await club.member(plan))[0] for _ in range(2)]
    plain = subscriptions.renew_due

    async def renew_due(conn: Connection, customer_id: str, now: datetime) -> None:
        invariant(customer_id != broken, "a defect")
        await plain(conn, customer_id, now)

    monkeypatch.setattr(renewals, "renew_due", renew_due)
    club.later(days=31)
    await club.renew()
    assert [ask.customer_id for ask in club.till.asked] == [fine]


# Cycles -----------------------------------------------------------------------------------------


def starts(cycles: list[tuple[int, datetime, datetime]]) -> list[str]:
    return [f"{begun:%d %b}" for _, begun, _ in cycles]


async def test_month_ends_keep_their_day(club: Club) -> None:
    customer, subscription = await club.member(await club.plan())
    for _ in range(5):
        end = (await club.subscription(subscription))["cycle_end_at"]
        assert isinstance(end, datetime)
        club.at(end - timedelta(microseconds=1))
        await club.renew()
        assert await club.credit(customer) == (20 * USD, 0)
        club.at(end)
        assert await club.credit(customer) == (0, 0)
        await club.renew()
    found = await club.cycles(subscription)
    assert starts(found) == ["31 Jan", "28 Feb", "31 Mar", "30 Apr", "31 May", "30 Jun"]
    assert [begun for _, begun, _ in found][1:] == [ended for *_, ended in found][:-1]


async def test_a_renewal_three_cycles_late_is_charged_once(club: Club) -> None:
    customer, subscription = await club.member(await club.plan())
    club.later(days=31 + 28 + 31 + 1)
    await club.renew()
    assert len(await club.payments(customer, "renewal")) == 1
    assert starts(await club.cycles(subscription)) == ["31 Jan", "30 Apr"]
    assert await club.credit(customer) == (20 * USD, 0)


@pytest.mark.parametrize(("rollover", "left"), [("none", 5), ("full", 20)])
async def test_free_cycles_that_were_missed_are_made_up_for(
    club: Club, rollover: Rollover, left: int
) -> None:
    plan = await club.plan(0, included=5, rollover=rollover)
    customer, subscription = await club.member(plan)
    club.later(days=31 + 28 + 31 + 1)
    await asyncio.gather(*[club.renew() for _ in range(4)])
    assert await club.credit(customer) == (left * USD, 0)
    assert len(await club.cycles(subscription)) == (4 if rollover == "full" else 2)
    assert (await audit(club.database)).sound


async def test_two_workers_and_a_lease_at_once_renew_once(club: Club) -> None:
    free, _ = await club.member(await club.plan(0, included=5))
    paid, _ = await club.member(await club.plan(20))
    club.later(days=40)
    await asyncio.gather(
        *[club.renew() for _ in range(4)], *[club.lease(free, 1) for _ in range(4)]
    )
    await club.renew()
    assert (await club.credit(free))[0] == 5 * USD
    assert (await club.credit(paid))[0] == 20 * USD
    assert len(club.till.asked) == 1
    assert (await audit(club.database)).sound


@pytest.mark.parametrize("rollover", ["none", "full"])
async def test_what_a_worker_holds_over_a_renewal_goes_by_its_own_cycle(
    club: Club, rollover: Rollover
) -> None:
    customer, _ = await club.member(await club.plan(0, included=20, rollover=rollover))
    assert (await club.lease(customer, 8)).amount_e10 == 8 * USD
    club.later(days=40)
    await club.renew()
    assert (await club.credit(customer))[0] == (28 if rollover == "none" else 40) * USD
    spent = row(customer, 3 * USD, shop=club.shop, holder_id="hld_1")
    await club.shop.settle(spent)  # the lease pays, the new cycle is untouched
    assert (await club.credit(customer))[0] == (25 if rollover == "none" else 37) * USD
    assert await club.shop.give_back(customer, None, "hld_1") == 5 * USD
    assert (await club.credit(customer))[0] == (20 if rollover == "none" else 37) * USD
    assert await club.shop.ledger("expired") == (17 * USD if rollover == "none" else 0)
    assert (await audit(club.database)).sound


async def test_bundles_end_with_their_cycle_only_if_their_plan_says_so(club: Club) -> None:
    for kept in ("none", "full"):
        plan = await club.plan(0, bundle_rollover=kept, bundle=(10, 15))  # type: ignore[arg-type]
        customer, _ = await club.member(plan)
        bundle = plan.bundles[0].credit_bundle_id
        await club.paid(await club.pay(customer, "bundle", 10, credit_bundle_id=bundle))
        assert await club.credit(customer) == (0, 15 * USD)
        club.later(days=40)
        await club.renew()
        assert await club.credit(customer) == (0, 15 * USD if kept == "full" else 0)


async def test_cycle_credit_burns_first_then_what_expires_soonest_then_the_oldest(
    club: Club,
) -> None:
    customer = await club.shop.customer()
    soon = club.books.now() + timedelta(days=3)
    for expires_at in (None, soon + timedelta(days=1), soon, None):
        await club.shop.grant(customer, 10, kind="bundle", expires_at=expires_at)
        club.later(seconds=1)
    await club.subscribe(customer, await club.plan(0, included=1))
    burned = []
    for tokens in (USD, 10, 10, 10, 10):
        before = await club.shop.grants(customer)
        await club.shop.settle(row(customer, tokens, shop=club.shop))
        after = await club.shop.grants(customer)
        burned += [n for n, was in enumerate(before) if was != after[n]]
    assert burned == [4, 2, 1, 0, 3]


# Changes ----------------------------------------------------------------------------------------


async def test_a_downgrade_and_a_cancellation_wait_for_the_end(club: Club) -> None:
    paid, free = await club.plan(20), await club.plan(0, included=1, interval="week")
    down, down_sub = await club.member(paid)
    gone, gone_sub = await club.member(paid)
    club.later(days=3)
    now = club.books.now()
    async with club.database.transaction() as conn:
        await subscriptions.subscribe_free(conn, customer_id=down, plan_id=free.plan_id, now=now)
        await subscriptions.cancel(
            conn, subscription_id=gone_sub, merchant_id=club.shop.merchant_id, now=now
        )
    await club.renew()
    for customer in (down, gone):
        assert await club.credit(customer) == (20 * USD, 0)
    club.later(days=26)  # a day late
    await asyncio.gather(club.renew(), club.renew())
    assert await club.credit(down) == (1 * USD, 0)
    assert await club.credit(gone) == (0, 0)
    assert club.till.asked == []
    on, off = await club.subscription(down_sub), await club.subscription(gone_sub)
    assert (on["plan_id"], on["pending_type"], on["status"]) == (free.plan_id, None, "active")
    assert f"{on['cycle_end_at']:%d %b}" == "07 Mar"  # counted from the old cycle's end
    assert (off["status"], f"{off['cancelled_at']:%d %b %H}") == ("cancelled", "28 Feb 10")
    assert (await audit(club.database)).sound


async def test_an_upgrade_acts_at_once_and_keeps_what_rolls_over(club: Club) -> None:
    small = await club.plan(0, included=2, rollover="full")
    middle, large = await club.plan(5), await club.plan(50)
    customer, subscription = await club.member(small)
    for plan, left in ((middle, 7), (large, 52)):
        club.later(days=3)
        price = plan.period_amount_e10 // USD
        payment = await club.pay(customer, "subscription", price, plan_id=plan.plan_id)
        assert await club.paid(payment)
        assert await club.credit(customer) == (left * USD, 0)
    on = await club.subscription(subscription)
    assert (on["plan_id"], on["cycle_seq"]) == (large.plan_id, 3)
    assert on["cycle_start_at"] == club.books.now()
    assert (await audit(club.database)).sound


async def test_a_plan_bought_twice_is_not_lost(club: Club) -> None:
    plan = await club.plan(20, included=25)
    customer = await club.shop.customer()
    for _ in range(2):
        await club.paid(await club.pay(customer, "subscription", 20, plan_id=plan.plan_id))
    assert await club.credit(customer) == (25 * USD, 20 * USD)


async def test_who_leaves_a_plan_that_is_not_paid_for_leaves_now(club: Club) -> None:
    free = await club.plan(0, included=1)
    customer, subscription = await club.member(await club.plan(20))
    club.till.usual = PENDING
    club.later(days=40)
    await club.renew()
    async with club.database.transaction() as conn:
        await subscriptions.subscribe_free(
            conn, customer_id=customer, plan_id=free.plan_id, now=club.books.now()
        )
    on = await club.subscription(subscription)
    assert (on["plan_id"], on["past_due_since"]) == (free.plan_id, None)
    (payment,) = await club.payments(customer, "renewal")
    assert payment["status"] == "cancelled"
    await club.paid(str(payment["payment_id"]))
    assert await club.credit(customer) == (1 * USD, 20 * USD)
