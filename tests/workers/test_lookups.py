"""What workers charged and nobody told the end of: looked up, booked once, or ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from books_kit import fetch
from plans_kit import USD, Club, open_club

from lava_proxy.payments.seam import ChargeAnswer, Standing
from lava_proxy.store import subscriptions
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database

WAITING = ChargeAnswer("pending", "pi_1")


@pytest.fixture
async def club(database: Database, tmp_path: Path) -> AsyncIterator[Club]:
    async with open_club(database, tmp_path) as made:
        yield made


async def bought(club: Club) -> str:
    """A customer whose top-up is at the bank, and whose end nobody tells."""
    customer, _ = await club.member(await club.plan(0, bundle=(10, 15)))
    club.till.answers.append(WAITING)
    await club.lease(customer, 1)
    await club.top_up()
    return customer


async def test_a_top_up_at_the_bank_is_found_paid(club: Club) -> None:
    customer = await bought(club)
    await club.look_up()
    assert club.till.looked == []  # too early
    club.later(minutes=11)
    club.till.standing = Standing("pending", "pi_1")
    await club.look_up()
    assert await club.credit(customer) == (0, 0)
    club.later(minutes=11)
    club.till.standing = Standing("succeeded", "pi_1", "cus_1", 10 * USD)
    await asyncio.gather(*[club.look_up() for _ in range(3)])
    assert await club.credit(customer) == (0, 15 * USD)
    assert len(club.till.looked) == 2
    assert await fetch(club.database, "SELECT payer_ref FROM payers") == [("cus_1",)]
    assert not await club.paid(club.till.asked[0].payment_id)
    club.later(days=1)
    await club.look_up()
    assert len(club.till.looked) == 2
    assert (await audit(club.database)).sound


@pytest.mark.parametrize("state", ["declined", "over"])
async def test_one_that_was_declined_makes_the_next_one_wait(club: Club, state: str) -> None:
    customer = await bought(club)
    club.later(minutes=11)
    club.till.standing = Standing(state, "pi_1", code="card_declined")  # type: ignore[arg-type]
    await club.look_up()
    (payment,) = await club.payments(customer, "top_up")
    assert (payment["status"], payment["attempts"]) == ("failed", 1)
    await club.lease(customer, 1)
    assert len(await club.payments(customer, "top_up")) == 1  # the pause runs
    club.later(hours=2)
    await club.lease(customer, 1)
    assert len(await club.payments(customer, "top_up")) == 2


async def test_a_renewal_that_waits_for_its_payer_is_asked_for_again(club: Club) -> None:
    customer, _ = await club.member(await club.plan(20))
    club.till.answers.append(WAITING)
    club.later(days=31)
    await club.renew()
    club.later(minutes=11)
    club.till.standing = Standing("waits", "pi_1")
    await club.look_up()
    club.later(hours=2)
    await club.renew()
    assert [ask.attempt for ask in club.till.asked] == [1, 2]
    assert await club.credit(customer) == (20 * USD, 0)


@pytest.mark.parametrize("paid", [False, True])
async def test_what_nobody_is_to_pay_any_more_ends_at_the_provider(club: Club, paid: bool) -> None:
    """The subscription ends while its top-up waits for the payer's bank."""
    customer = await bought(club)
    club.till.standing = Standing("waits", "pi_1")
    if paid:
        club.till.standing = Standing("succeeded", "pi_1", amount_e10=10 * USD)
    async with club.database.transaction() as conn:
        (row,) = await fetch(club.database, "SELECT subscription_id FROM subscriptions")
        await subscriptions.end(conn, customer, str(row[0]), club.books.now())
    for _ in range(2):
        await club.look_up()
        club.later(days=1)
    (payment,) = await club.payments(customer, "top_up")
    assert payment["status"] == ("succeeded" if paid else "cancelled")
    assert await club.credit(customer) == (0, 15 * USD if paid else 0)
    assert [ask.provider_ref for ask in club.till.called_off] == ([] if paid else ["pi_1"])
    assert len(club.till.looked) == 1
    assert (await audit(club.database)).sound


async def test_too_little_is_not_paid(club: Club, caplog: pytest.LogCaptureFixture) -> None:
    customer = await bought(club)
    club.later(minutes=11)
    club.till.standing = Standing("succeeded", "pi_1", amount_e10=10 * USD - 1)
    await club.look_up()
    assert await club.credit(customer) == (0, 0)
    assert "instead of" in caplog.text
