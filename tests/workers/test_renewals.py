"""Renewals: late, twice, declined, waiting; a cycle is begun once and money is never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from plans_kit import DECLINED, PENDING, USD, Club, open_club

from lava_proxy.payments.seam import ChargeAnswer, PaymentsDown
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database


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
