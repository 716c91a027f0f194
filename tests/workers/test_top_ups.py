"""Auto top-up: one payment per need, a pause after a decline, never more than the month's cap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from books_kit import fetch, make_books, row, until
from plans_kit import DECLINED, USD, Club, open_club

from lava_proxy.books.leases import Hold
from lava_proxy.core.ids import new_id
from lava_proxy.payments.seam import ChargeAnswer, PaymentsDown
from lava_proxy.store import customers, payments, plans, reversals, subscriptions
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database
from lava_proxy.store.plans import BundleChange, BundleRow
from lava_proxy.workers import top_ups

NEEDS_ACTION = ChargeAnswer("requires_action", "pi_1", "authentication_required")


@pytest.fixture
async def club(database: Database, tmp_path: Path) -> AsyncIterator[Club]:
    async with open_club(database, tmp_path) as made:
        yield made


async def empty(club: Club) -> tuple[str, str]:
    """A customer whose plan grants nothing and tops up 15 USD for 10: (customer, subscription)."""
    return await club.member(await club.plan(0, bundle=(10, 15)))


async def statuses(club: Club, customer: str) -> list[object]:
    return [payment["status"] for payment in await club.payments(customer, "top_up")]


async def test_one_that_waits_for_its_payer_is_asked_about_and_not_bought_twice(
    club: Club,
) -> None:
    customer, _ = await empty(club)
    club.till.answers.extend([NEEDS_ACTION, NEEDS_ACTION])
    pauses_h = []
    for _ in range(2):
        assert not (await club.lease(customer, 1)).amount_e10
        await club.top_up()
        assert await statuses(club, customer) == ["requires_action"]
        (payment,) = await club.payments(customer, "top_up")
        pauses_h.append((payment["next_attempt_at"] - club.books.now()).total_seconds() / 3600)  # type: ignore[operator]
        club.later(hours=2)
    assert pauses_h == [1, 2]
    assert not (await club.lease(customer, 1)).coming  # nobody can say when
    await club.top_up()
    assert await statuses(club, customer) == ["succeeded"]
    assert [ask.provider_ref for ask in club.till.asked] == [None, "pi_1", "pi_1"]
    assert len({ask.payment_id for ask in club.till.asked}) == 1
    assert await club.credit(customer) == (0, 15 * USD)


async def test_a_removed_bundle_is_bought_by_nobody(club: Club) -> None:
    customer, _ = await empty(club)
    await fetch(club.database, "UPDATE credit_bundles SET deleted_at = $1", club.books.now())
    assert not (await club.lease(customer, 1)).coming
    await club.top_up()
    assert club.till.asked == []


async def test_a_decline_makes_the_next_wait_twice_as_long(club: Club) -> None:
    customer, _ = await empty(club)
    club.till.usual = DECLINED
    waited = 0
    asked_h = []
    for hour in range(40):
        await club.lease(customer, 1)
        await club.top_up()
        if len(club.till.asked) > waited:
            waited = len(club.till.asked)
            asked_h.append(hour)
        club.later(hours=1)
    assert asked_h == [0, 1, 3, 7, 15, 31]
    club.later(days=2)
    club.till.usual = ChargeAnswer("succeeded")
    await club.lease(customer, 1)
    await club.top_up()
    assert (await statuses(club, customer)).count("succeeded") == 1
    assert await club.credit(customer) == (0, 15 * USD)
    keys = [ask.payment_id for ask in club.till.asked]
    assert len(keys) == len(set(keys)) == 7


async def test_twenty_needs_at_once_are_one_payment(club: Club) -> None:
    customer, _ = await empty(club)
    answers = await asyncio.gather(*[club.lease(customer, 1, f"hld_{n}") for n in range(20)])
    assert all(answer.coming and not answer.amount_e10 for answer in answers)
    await asyncio.gather(*[club.top_up() for _ in range(5)])
    assert await statuses(club, customer) == ["succeeded"]
    assert len(club.till.asked) == 1
    assert await club.credit(customer) == (0, 15 * USD)
    assert (await club.lease(customer, 1)).amount_e10 == 1 * USD
    assert (await audit(club.database)).sound


async def test_a_payment_is_coming_whoevers_clock_is_ahead(club: Club) -> None:
    customer, _ = await empty(club)
    await club.lease(customer, 1)
    ahead = club.books.now() + timedelta(seconds=1)
    async with club.database.transaction() as conn:
        (due,) = await payments.claim(conn, "top_up", "manual", ahead, 20)
    assert due.customer_id == customer
    assert (await club.lease(customer, 1)).coming


async def test_a_crash_after_the_charge_asks_again_under_the_same_key(club: Club) -> None:
    customer, _ = await empty(club)
    await club.lease(customer, 1)
    club.till.answers.append(PaymentsDown)  # charged, and then nobody heard the answer
    await club.top_up()
    await club.top_up()
    assert len(club.till.asked) == 1  # not within the same minute
    club.later(seconds=61)
    await club.lease(customer, 1)  # needs it still, and opens no other
    await club.top_up()
    first, second = club.till.asked
    assert (first.payment_id, first.attempt) == (second.payment_id, second.attempt)
    assert await club.credit(customer) == (0, 15 * USD)


async def test_an_answer_is_written_down_though_others_are_in_the_way(club: Club) -> None:
    customer, _ = await empty(club)
    await club.lease(customer, 1)
    async with club.database.transaction() as conn:
        await subscriptions.lock_account(conn, customer)
        buying = asyncio.create_task(club.top_up())
        await until(lambda: bool(club.till.asked))
        await asyncio.sleep(0.6)  # longer than anybody waits for a lock
    await buying
    assert await club.credit(customer) == (0, 15 * USD)


async def test_the_mark_is_a_part_of_the_bundle(club: Club) -> None:
    customer, _ = await club.member(await club.plan(0, included=20, bundle=(10, 15)))
    assert (await club.lease(customer, 17)).amount_e10 == 17 * USD
    await club.shop.settle(row(customer, 17 * USD, shop=club.shop, holder_id="hld_1"))
    await club.lease(customer, 1)  # 3 USD are left: a fifth of 15, and not below it
    assert await statuses(club, customer) == []
    await club.shop.settle(row(customer, 1, shop=club.shop))
    await club.lease(customer, 1)
    assert await statuses(club, customer) == ["pending"]


async def test_reports_that_spend_all_are_followed_by_a_top_up(club: Club) -> None:
    customer, _ = await empty(club)
    club.books.spent_free.add(customer)
    await club.top_up()
    assert await club.credit(customer) == (0, 15 * USD)


async def test_one_who_is_in_the_way_delays_only_their_own_top_up(club: Club) -> None:
    (busy, _), (other, _), gone = await empty(club), await empty(club), "con_0_gone"
    club.books.spent_free |= {busy, other, gone}
    async with club.database.transaction() as conn:
        await subscriptions.lock_account(conn, busy)
        await club.top_up()
        assert await statuses(club, other) == ["succeeded"]
        assert club.books.spent_free == {busy}
    await club.top_up()
    assert await statuses(club, busy) == ["succeeded"]
    assert club.books.spent_free == set()


@pytest.mark.parametrize("limit", [25])
async def test_the_months_cap_blocks_until_the_next_month(
    database: Database, tmp_path: Path, limit: int
) -> None:
    async with open_club(database, tmp_path, top_up_monthly_max=limit) as club:
        customer, _ = await empty(club)
        for bought in range(2):  # two of 10 USD fit into 25
            assert (await club.lease(customer, 15)).coming
            await club.top_up()
            assert (await club.lease(customer, 15)).amount_e10 == 15 * USD
            await club.shop.settle(row(customer, 15 * USD, shop=club.shop, holder_id="hld_1"))
            assert len(await statuses(club, customer)) == bought + 1
        answer = await club.lease(customer, 1)
        assert (answer.amount_e10, answer.coming) == (0, False)
        await club.top_up()
        assert len(club.till.asked) == 2
        club.later(hours=14)  # 1 February, UTC
        assert (await club.lease(customer, 1)).coming
        assert len(await statuses(club, customer)) == 3


async def cap(club: Club, customer: str, usd: int | None) -> None:
    most = None if usd is None else usd * USD
    async with club.database.transaction() as conn:
        change = {"top_up_max_e10": most}
        await customers.update(conn, club.shop.merchant_id, customer, change)


async def test_a_customers_own_cap_goes_before_the_setting(
    database: Database, tmp_path: Path
) -> None:
    async with open_club(database, tmp_path, top_up_monthly_max=15) as club:
        customer, _ = await empty(club)
        (other, _), bought = await empty(club), 0
        for usd, fits in ((9, 0), (0, 0), (10, 1), (19, 1), (None, 1), (30, 3)):
            await cap(club, customer, usd)
            while bought < fits:
                assert (await club.lease(customer, 15)).coming
                await club.top_up()
                assert (await club.lease(customer, 15)).amount_e10 == 15 * USD
                await club.shop.settle(row(customer, 15 * USD, shop=club.shop, holder_id="hld_1"))
                bought += 1
            answer = await club.lease(customer, 1)
            assert (answer.amount_e10, answer.coming) == (0, False), usd
            assert len(await statuses(club, customer)) == bought
        assert (await club.lease(other, 1)).coming  # one's cap is not another's


async def test_two_workers_at_the_cap_buy_what_fits_and_no_more(
    database: Database, tmp_path: Path
) -> None:
    async with open_club(database, tmp_path) as club:
        second = make_books(database, club.clock, tmp_path / "second")
        await second.open()
        customer, _ = await empty(club)
        await cap(club, customer, 25)
        for _ in range(4):  # two bundles of 10 fit
            for books in (club.books, second):
                books.spent_free.add(customer)
            await asyncio.gather(
                *[top_ups.run_once(books, club.till) for books in (club.books, second) * 2],
                *[club.lease(customer, 15, f"hld_{n}") for n in range(4)],
            )
            await club.shop.settle(row(customer, 15 * USD, shop=club.shop))
            for n in range(4):
                await club.shop.give_back(customer, None, f"hld_{n}")
        await second.close()
        assert await statuses(club, customer) == ["succeeded", "succeeded"]
        assert [ask.amount_e10 for ask in club.till.asked] == [10 * USD, 10 * USD]
        assert (await audit(club.database)).sound


async def test_no_top_up_while_the_plan_is_not_paid_for_or_after_it(club: Club) -> None:
    customer, subscription = await club.member(await club.plan(20, bundle=(10, 15)))
    club.till.usual = DECLINED
    club.later(days=40)
    await club.renew()
    await club.lease(customer, 1)
    assert await statuses(club, customer) == []
    club.later(days=8)
    await club.renew()
    assert (await club.subscription(subscription))["status"] == "cancelled"
    assert not (await club.lease(customer, 1)).coming
    assert await statuses(club, customer) == []


async def test_what_was_offered_for_a_price_is_what_it_buys(club: Club) -> None:
    """The merchant makes the bundle ten times as large, and as dear, while a payment is open."""
    plan = await club.plan(0, bundle=(10, 15))
    customer, _ = await club.member(plan)
    assert (await club.lease(customer, 1)).coming
    larger = BundleChange(plan.bundles[0].credit_bundle_id, None, 100 * USD, 150 * USD)
    async with club.database.transaction() as conn:
        change = plans.PlanChange(bundles=(larger,))
        await plans.update(conn, club.shop.merchant_id, plan.plan_id, change, club.books.now())
    await club.top_up()
    assert [ask.amount_e10 for ask in club.till.asked] == [10 * USD]
    assert await club.credit(customer) == (0, 15 * USD)


async def test_the_subscriptions_own_bundle_goes_before_the_plans(club: Club) -> None:
    plan = await club.plan(0, bundle=(10, 15))
    other = BundleRow(new_id("credit_bundle"), plan.plan_id, "o", USD, 2 * USD, club.books.now())
    async with club.database.transaction() as conn:
        change = plans.PlanChange(new_bundles=(other,))
        await plans.update(conn, club.shop.merchant_id, plan.plan_id, change, club.books.now())
    customer, subscription = await club.member(plan)
    for bundle_id, left in ((other.credit_bundle_id, 2), (None, 2)):
        async with club.database.transaction() as conn:
            assert await subscriptions.set_top_up(
                conn,
                subscription_id=subscription,
                merchant_id=club.shop.merchant_id,
                bundle_id=bundle_id,
                now=club.books.now(),
            )
        await club.lease(customer, 5)
        await club.top_up()
        assert await club.credit(customer) == (0, left * USD)


async def asked_for(club: Club) -> tuple[str, str]:
    """A customer whose first top-up is paid and spent, and whose second is written down and asked
    for by nobody yet."""
    customer, subscription = await empty(club)
    club.till.answers.append(ChargeAnswer("succeeded", "pi_1"))
    await club.lease(customer, 15)
    await club.top_up()
    await club.shop.settle(row(customer, 15 * USD, shop=club.shop))
    assert (await club.lease(customer, 1)).coming
    assert await statuses(club, customer) == ["succeeded", "pending"]
    return customer, subscription


async def test_money_that_went_back_is_not_charged_for_anew(club: Club) -> None:
    """Not by a top-up either that was due when it went."""
    customer, _ = await asked_for(club)
    first, _ = await club.payments(customer, "top_up")
    async with club.database.transaction() as conn:
        await reversals.note(
            conn,
            provider="till",
            ref="dp_1",
            payment_ref="pi_1",
            kind="dispute",
            amount_e10=10 * USD,
            over=False,
        )
        await reversals.settle_up(conn, str(first["payment_id"]), club.books.now())
    await club.top_up()
    assert len(club.till.asked) == 1
    assert await statuses(club, customer) == ["succeeded", "cancelled"]
    assert not (await club.lease(customer, 1)).coming
    assert (await audit(club.database)).sound


async def test_who_turns_top_ups_off_is_charged_for_none(club: Club) -> None:
    customer, subscription = await asked_for(club)
    async with club.database.transaction() as conn:
        assert await subscriptions.set_top_up(
            conn,
            subscription_id=subscription,
            merchant_id=club.shop.merchant_id,
            bundle_id=None,
            now=club.books.now(),
        )
    await club.top_up()
    assert len(club.till.asked) == 1
    assert await statuses(club, customer) == ["succeeded", "cancelled"]


# Streams ----------------------------------------------------------------------------------------


async def held(club: Club, customer: str) -> Hold:
    """A running call that holds all of its customer's credit (1 USD)."""
    await club.shop.grant(customer, 1 * USD, kind="bundle")
    hold = await club.books.leases.hold(club.books.leases.account(customer), USD, USD, 0)
    assert isinstance(hold, Hold)
    return hold


async def more(hold: Hold) -> bool:
    """The stream's next extension; it waits for a lease half a second at most."""
    return await hold.extend_soon(USD // 2, USD, 0.5)


async def test_a_stream_waits_for_a_top_up_under_way_and_goes_on(club: Club) -> None:
    customer, _ = await empty(club)
    hold = await held(club, customer)
    extended = asyncio.create_task(more(hold))
    await waits(club, customer)
    assert not extended.done()
    await club.top_up()
    club.books.leases.credit_changed(customer)  # as LISTEN would say
    assert await extended
    assert hold.amount_e10 == 2 * USD
    hold.release(2 * USD)


async def test_a_stream_is_cut_when_the_top_up_is_declined_or_too_slow(
    database: Database, tmp_path: Path
) -> None:
    async with open_club(database, tmp_path, top_up_wait_s=7.0) as club:
        declined, _ = await empty(club)
        hold = await held(club, declined)
        extended = asyncio.create_task(more(hold))
        await waits(club, declined)
        club.till.answers.append(DECLINED)
        await club.top_up()
        club.books.leases.credit_changed(declined)
        assert not await extended
        hold.release(0)
        slow, _ = await empty(club)
        hold = await held(club, slow)
        extended = asyncio.create_task(more(hold))
        await waits(club, slow)
        club.clock.advance(6.9)
        club.books.leases.credit_changed(slow)
        await waits(club, slow)  # it looked again, and waits on
        assert not extended.done()
        club.clock.advance(0.2)
        club.books.leases.credit_changed(slow)
        assert not await extended
        hold.release(0)


async def waits(club: Club, customer: str) -> None:
    """Until somebody waits for the top-up, which is written down by then."""
    account = club.books.leases.account(customer)
    await until(lambda: account.news is not None)
    assert await statuses(club, customer) == ["pending"]
