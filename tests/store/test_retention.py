"""Old months go whole, only after an audit has seen all of them, and the books still add up."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from books_kit import NOW, Shop, fetch, meter, open_shop, row, sound

from lava_proxy.rules.settlement import Settlement
from lava_proxy.store import requests, wallets
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database
from lava_proxy.store.retention import retire

OLD = datetime(2020, 1, 31, 23, 59, tzinfo=UTC)
NEXT = datetime(2020, 2, 1, 0, 1, tzinfo=UTC)
TIERS = meter((0, 100_000_000), (10, 300_000_000))


@pytest.fixture
async def shop(database: Database) -> Shop:
    """Books with three old rows: one booked after its month ended, and one in the month behind."""
    shop = await open_shop(database)
    for month, after in (("202001", "202002"), ("202002", "202003")):
        bounds = f"FROM ('{month}01 00:00+00') TO ('{after}01 00:00+00')"
        for parent in ("requests", "ledger_entries"):
            await fetch(
                database,
                f"CREATE TABLE {parent}_{month} PARTITION OF {parent} FOR VALUES {bounds}",
            )
    shop.now = OLD
    owner = await shop.customer(100_000)
    await shop.settle(old(shop, owner, 15, "req_1"))
    shop.now = NEXT
    await shop.settle(old(shop, owner, 4, "req_2"))
    await shop.settle(old(shop, owner, 4, "req_3", NEXT))
    shop.now = NOW
    await shop.settle(row(owner, 20, shop=shop, by=TIERS))
    return shop


def old(
    shop: Shop, owner: str, tokens: int, request_id: str, at: datetime = OLD, cycle: str = "2020-01"
) -> Settlement:
    made = row(owner, tokens, shop=shop, by=TIERS, cycle=cycle, request_id=request_id, cost_e10=3)
    return replace(made, call=replace(made.call, created_at=at))


async def test_what_is_kept_stays(shop: Shop) -> None:
    await sound(shop.database)
    assert await retire(shop.database, 82, NOW) == []
    assert (await sound(shop.database)).requests == 4


async def test_a_month_goes_with_its_sums_signed_off(shop: Shop) -> None:
    database = shop.database
    await sound(database)
    assert await retire(database, 81, NOW) == ["requests_202001", "ledger_entries_202001"]
    assert await retire(database, 81, NOW) == []  # once
    after = await sound(database)  # a full audit
    assert (after.full, after.requests) == (True, 2)
    assert (await audit(database, full=False)).sound
    async with database.connection() as conn:
        assert await requests.find(conn, shop.merchant_id, "req_1") is None
        assert await requests.find(conn, shop.merchant_id, "req_3") is not None
    account = f"customer:{shop.owners[0]}"
    kept = await fetch(
        database, "SELECT part, amount_e10 FROM retired_ledger WHERE account = $1", account
    )
    # The grant and req_1; req_2 was booked in February.
    assert kept == [("ledger_entries_202001", 100_000 - 10 - 5 * 3)]


async def test_an_id_of_a_month_that_went_stays_taken(shop: Shop) -> None:
    await sound(shop.database)
    await retire(shop.database, 81, NOW)
    [again] = await shop.settle(old(shop, shop.owners[0], 15, "req_1"))
    assert not again.fresh
    await sound(shop.database)


async def test_a_row_that_comes_after_its_month_went_is_charged_all_the_same(shop: Shop) -> None:
    await sound(shop.database)
    await retire(shop.database, 81, NOW)
    [late] = await shop.settle(old(shop, shop.owners[0], 1, "req_late"))
    assert late.charge_e10 == 3  # the tier counts on from the units that were signed off
    await sound(shop.database)
    assert (await audit(shop.database, full=False)).sound


async def test_a_month_with_rows_that_no_audit_saw_stays(shop: Shop) -> None:
    database = shop.database
    assert await retire(database, 81, NOW) == []  # no audit at all
    await sound(database)
    await shop.settle(old(shop, shop.owners[0], 1, "req_new"))
    assert await retire(database, 81, NOW) == []  # nor the ledger's month before its requests'
    await sound(database)
    assert len(await retire(database, 81, NOW)) == 2


async def test_a_month_stays_while_the_books_do_not_add_up(shop: Shop) -> None:
    database = shop.database
    await sound(database)
    await fetch(
        database, "UPDATE accounts SET debt_e10 = debt_e10 + 1 WHERE owner_id = $1", shop.owners[0]
    )
    assert not (await audit(database, full=False)).sound
    assert await retire(database, 81, NOW) == []


async def test_a_missing_row_of_a_signed_off_sum_is_found(shop: Shop) -> None:
    database = shop.database
    await sound(database)
    await retire(database, 81, NOW)
    with pytest.raises(Exception, match="append-only"):
        await fetch(database, "UPDATE retired_ledger SET amount_e10 = amount_e10 + 1")
    await fetch(database, "ALTER TABLE retired_ledger DISABLE TRIGGER USER")
    await fetch(database, "UPDATE retired_ledger SET amount_e10 = amount_e10 + 1")
    assert not (await audit(database)).sound


async def test_two_processes_drop_a_month_once(shop: Shop) -> None:
    await sound(shop.database)
    gone = await asyncio.gather(*[retire(shop.database, 81, NOW) for _ in range(3)])
    assert sorted(part for parts in gone for part in parts) == [
        "ledger_entries_202001",
        "requests_202001",
    ]
    await sound(shop.database)


async def test_what_was_paid_into_a_wallet_stays_in_the_sums(shop: Shop) -> None:
    database = shop.database
    async with database.transaction() as conn:
        for at in (OLD, NOW):
            await wallets.fund(
                conn,
                merchant_id=shop.merchant_id,
                test=False,
                amount_e10=500,
                source="payments:manual",
                now=at,
            )
    await sound(database)
    assert "ledger_entries_202001" in await retire(database, 81, NOW)
    assert await fetch(
        database, "SELECT amount_e10 FROM retired_ledger WHERE account LIKE 'wallet:%'"
    ) == [(500,)]
    assert (await sound(database)).full
    assert (await audit(database, full=False)).sound
