"""Auto top-up: one payment per need, a pause after a decline, never more than the month's cap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from books_kit import fetch
from plans_kit import DECLINED, USD, Club, open_club

from lava_proxy.payments.seam import ChargeAnswer
from lava_proxy.store.database import Database

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
