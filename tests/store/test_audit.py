"""The books check finds nothing in good books, and every planted error of one unit."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from books_kit import NOW, Shop, fetch, meter, open_shop, row, sound

from lava_proxy.store import wallets
from lava_proxy.store.audit import CHECKS, LastAudit, Q, audit, audit_alone, last_audit
from lava_proxy.store.database import Database
from lava_proxy.store.settle import settle


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await some_books(database)


async def some_books(database: Database) -> Shop:
    """Books with some of everything in them."""
    shop = await open_shop(database)
    tiers = meter((0, 100_000_000), (10, 300_000_000))
    owner, other = await shop.customer(1000), await shop.customer()
    await shop.grant(owner, 500, expires_at=NOW + timedelta(days=1))
    await shop.lease(owner, 200)
    await shop.lease(other, 20, overdraft_e10=100)
    await shop.settle(
        row(owner, 15, shop=shop, by=tiers, cost_e10=9),
        row(owner, 15, shop=shop, by=tiers, billable=False),
        row(other, 5, shop=shop, by=tiers),
        row(other, 40, shop=shop, by=tiers, holder_id="hld_gone", cost_e10=None),
        row(other, 40, shop=shop, by=tiers, status="error"),
        row(shop.merchant_id, 7, shop=shop, by=tiers, customer=False),
    )
    await shop.give_back(owner, 20)
    shop.now = NOW + timedelta(days=2)
    await shop.lease(owner, 3)
    await shop.withdraw(owner, 11)
    async with database.transaction() as conn:
        await wallets.fund(
            conn,
            merchant_id=shop.merchant_id,
            test=False,
            amount_e10=700,
            source="payments:manual",
            now=NOW,
        )
    return shop


async def _unlock(shop: Shop) -> None:
    """Take down what protects the books: a superuser can, which is why there is an audit."""
    async with shop.database.connection() as conn:
        for table in (
            "ledger_entries",
            "reratings",
            "credit_grants",
            "leases",
            "lease_parts",
            "accounts",
        ):
            await conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            names = await conn.fetch(
                "SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'c'",
                table,
            )
            for (name,) in names:
                await conn.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')


async def _run(shop: Shop, statements: list[str]) -> None:
    async with shop.database.connection() as conn:
        for statement in statements:
            tag = await conn.execute(statement)
            assert tag.split()[-1] == "1", f"{statement} changes one row: {tag}"


async def test_good_books_are_sound(shop: Shop) -> None:
    found = await sound(shop.database)
    assert found.requests == 6
    assert found.granted_e10 == 1000 + 500 - 11
    assert found.granted_e10 == (
        found.available_e10 + found.leased_e10 + found.spent_e10 + found.expired_e10
    )
    assert found.expired_e10 > 0
    assert found.leased_e10 > 0
    assert found.debt_e10 > 0


async def test_empty_books_are_sound(database: Database) -> None:
    assert (await sound(database)).requests == 0


ONE_GRANT = "WHERE grant_id = (SELECT min(grant_id) FROM credit_grants WHERE leased_e10 > 9)"
ONE_LEASE = "WHERE lease_id = (SELECT min(lease_id) FROM leases WHERE spent_e10 > 9)"
ONE_ENTRY = "WHERE entry_id = (SELECT min(entry_id) FROM ledger_entries WHERE {})"


ONE_QUARTER = (
    "WHERE (customer_id, bucket) = (SELECT customer_id, bucket FROM usage_rollups "
    "WHERE charge_e10 > 9 ORDER BY customer_id, bucket LIMIT 1)"
)


def one(update: str) -> tuple[list[str], list[str]]:
    """The change of a row by one unit, and its undoing."""
    return [update.format("+ 1")], [update.format("- 1")]


def entry(account: str, amount_e10: int) -> tuple[list[str], list[str]]:
    return [
        "INSERT INTO ledger_entries (transaction_id, merchant_id, account, amount_e10, kind, "
        f"created_at) VALUES ('t{account}', 'm', '{account}', {amount_e10}, 'grant', now())"
    ], [f"DELETE FROM ledger_entries WHERE transaction_id = 't{account}'"]


PLANTED = [
    ("grants_unbalanced", one(f"UPDATE credit_grants SET spent_e10 = spent_e10 {{}} {ONE_GRANT}")),
    (
        "grants_unbalanced",
        one(f"UPDATE credit_grants SET leased_e10 = leased_e10 {{}} {ONE_GRANT}"),
    ),
    ("leases_unbalanced", one(f"UPDATE leases SET spent_e10 = spent_e10 {{}} {ONE_LEASE}")),
    ("leases_unbalanced", one(f"UPDATE leases SET amount_e10 = amount_e10 {{}} {ONE_LEASE}")),
    (
        "leases_unbalanced",
        one("UPDATE lease_parts SET left_e10 = left_e10 {} WHERE grant_id IS NULL"),
    ),
    (
        "overdrafts_unbalanced",
        one(
            "UPDATE accounts SET overdraft_leased_e10 = overdraft_leased_e10 {} "
            "WHERE overdraft_leased_e10 > 9"
        ),
    ),
    (
        "accounts_unbalanced",
        one("UPDATE accounts SET debt_e10 = debt_e10 {} WHERE debt_e10 > 9"),
    ),
    (
        "accounts_unbalanced",
        (
            [
                f"UPDATE credit_grants SET amount_e10 = amount_e10 + 1, "
                f"available_e10 = available_e10 + 1 {ONE_GRANT}"
            ],
            [
                f"UPDATE credit_grants SET amount_e10 = amount_e10 - 1, "
                f"available_e10 = available_e10 - 1 {ONE_GRANT}"
            ],
        ),
    ),
    ("accounts_unbalanced", entry("customer:con_nobody", 1)),
    ("transactions_unbalanced", entry("expired", 1)),
    (
        "charges_unbalanced",
        one(
            "UPDATE requests SET charge_e10 = charge_e10 {} WHERE request_id = (SELECT "
            "min(request_id) FROM requests WHERE charge_e10 > 9 AND customer_id IS NOT NULL)"
        ),
    ),
    (
        "charges_unbalanced",
        one(
            "UPDATE ledger_entries SET amount_e10 = amount_e10 {} "
            + ONE_ENTRY.format("kind = 'charge' AND account LIKE 'customer:%'")
        ),
    ),
    (
        "costs_unbalanced",
        one("UPDATE requests SET cost_e10 = cost_e10 {} WHERE cost_e10 > 5"),
    ),
    (
        "costs_unbalanced",
        one(
            "UPDATE ledger_entries SET amount_e10 = amount_e10 {} "
            + ONE_ENTRY.format("account LIKE 'provider:%'")
        ),
    ),
    (
        "reratings_unbalanced",
        (
            [
                "INSERT INTO reratings SELECT merchant_id, request_id, created_at, 'txn_none', "
                "'v', 1, charge_e10, 1, 0, now() FROM requests ORDER BY request_id LIMIT 1"
            ],
            ["DELETE FROM reratings WHERE transaction_id = 'txn_none'"],
        ),
    ),
    (
        "counters_unbalanced",
        one("UPDATE usage_counters SET units = units {} WHERE units IN (15, 16)"),
    ),
    (
        "counters_unbalanced",
        (
            ["UPDATE usage_counters SET units = 0 WHERE units = 15"],
            ["UPDATE usage_counters SET units = 15 WHERE units = 0"],
        ),
    ),
    (
        "counters_unbalanced",
        (
            ["UPDATE usage_counters SET cycle = 'lost' WHERE units = 15"],
            ["UPDATE usage_counters SET cycle = '2026-11' WHERE units = 15"],
        ),
    ),
    (
        "rollups_unbalanced",
        one(f"UPDATE usage_rollups SET charge_e10 = charge_e10 {{}} {ONE_QUARTER}"),
    ),
    (
        "rollups_unbalanced",
        one(f"UPDATE usage_rollups SET output_tokens = output_tokens {{}} {ONE_QUARTER}"),
    ),
    (
        "rollups_unbalanced",
        (
            [f"UPDATE usage_rollups SET meter_id = 'lost' {ONE_QUARTER}"],
            ["UPDATE usage_rollups SET meter_id = 'prd_1' WHERE meter_id = 'lost'"],
        ),
    ),
    ("wallets_unbalanced", one("UPDATE wallets SET funded_e10 = funded_e10 {}")),
    ("wallets_unbalanced", entry("wallet:wal_nobody", 1)),
    ("wallet_costs_unbalanced", one("UPDATE wallet_costs SET cost_e10 = cost_e10 {}")),
    (
        "wallet_costs_unbalanced",
        (
            ["INSERT INTO wallet_costs VALUES ('m', 0, 1)"],
            ["DELETE FROM wallet_costs WHERE merchant_id = 'm'"],
        ),
    ),
]
FULL_ONLY = {"wallet_costs_unbalanced"}
"""Checks that look at everything or nothing."""


async def test_one_unit_is_found(shop: Shop) -> None:
    """Each of many errors alone; the books are sound again without it."""
    assert {check for check, _ in PLANTED} == set(CHECKS)
    await _unlock(shop)
    for check, (plant, undo) in PLANTED:
        await _run(shop, plant)
        found = await audit(shop.database)
        assert check in {difference.check for difference in found.differences}, plant
        assert not found.sound
        await _run(shop, undo)
        await sound(shop.database)


async def test_since_the_last_audit_every_unit_is_found_too(database: Database) -> None:
    """A checkpoint before the rows: what is planted is in new rows, or in balances."""
    await sound(database)
    shop = await some_books(database)
    await _unlock(shop)
    for check, (plant, undo) in PLANTED:
        if check in FULL_ONLY:
            continue
        await _run(shop, plant)
        found = await audit(database, full=False)
        assert not found.full
        assert check in {difference.check for difference in found.differences}, plant
        await _run(shop, undo)
    found = await audit(database, full=False)
    assert (found.sound, found.requests) == (True, 6)
    assert (await audit(database, full=False)).requests == 0  # they are behind the checkpoint now


BALANCES = [
    "UPDATE accounts SET debt_e10 = debt_e10 {} WHERE debt_e10 > 9",
    "UPDATE usage_counters SET units = units {} WHERE units IN (15, 16)",
    "UPDATE lease_parts SET left_e10 = left_e10 {} WHERE grant_id IS NULL",
    "UPDATE wallets SET funded_e10 = funded_e10 {}",
]


@pytest.mark.parametrize("change", BALANCES)
async def test_an_old_balance_is_checked_every_time(shop: Shop, change: str) -> None:
    """The rows behind it are long verified; the balance is compared with their sums all the same,
    and the difference is found until it is mended."""
    await sound(shop.database)
    await _unlock(shop)
    await _run(shop, [change.format("+ 1")])
    for _ in range(2):
        found = await audit(shop.database, full=False)
        assert not found.sound
        assert (await last(shop.database)).differences == len(found.differences) > 0
    await _run(shop, [change.format("- 1")])
    assert (await audit(shop.database, full=False)).sound
    assert (await last(shop.database)).differences == 0


async def test_an_old_row_changed_behind_the_triggers_takes_a_full_audit(shop: Shop) -> None:
    await sound(shop.database)
    await _unlock(shop)
    await _run(
        shop,
        [
            "UPDATE ledger_entries SET amount_e10 = amount_e10 + 1 "
            + ONE_ENTRY.format("account LIKE 'provider:%'")
        ],
    )
    assert (await audit(shop.database, full=False)).sound
    assert not (await audit(shop.database)).sound


async def test_a_late_commit_is_not_skipped(shop: Shop) -> None:
    """It began before the audit and was committed after it: its transaction id is the older one."""
    database = shop.database
    await sound(database)
    late = row(shop.owners[0], 3, shop=shop, by=meter((0, 100_000_000)))
    async with database.transaction() as conn:
        await settle(conn, [late], NOW)
        async with database.transaction() as other:  # younger, and committed first
            await settle(other, [row(shop.owners[1], 2, shop=shop)], NOW)
        between = await audit(database, full=False)
        assert (between.sound, between.requests) == (True, 1)
    after = await audit(database, full=False)
    assert after.sound
    assert after.requests == 2  # the younger one is looked at again: it was above the horizon
    assert (await audit(database, full=False)).requests == 0


async def test_a_restored_copy_begins_anew(shop: Shop) -> None:
    await sound(shop.database)
    assert (await audit(shop.database, full=False)).requests == 0
    await _run(shop, ["UPDATE audit_state SET server = 'another one'"])
    found = await audit(shop.database, full=False)
    assert (found.full, found.requests, found.sound) == (True, 6, True)
    await _run(shop, ["UPDATE audit_state SET upto_xid = upto_xid + 1000000"])
    assert (await audit(shop.database, full=False)).full


async def test_two_audits_at_once_keep_the_sums_right(shop: Shop) -> None:
    await sound(shop.database)
    await shop.settle(row(shop.owners[0], 3, shop=shop))
    await asyncio.gather(*[audit(shop.database, full=False) for _ in range(4)])
    assert (await audit(shop.database, full=False)).sound


async def test_a_routine_audit_runs_in_one_process_at_a_time(shop: Shop) -> None:
    async with shop.database.apart(10) as other, other.transaction():
        assert await Q["alone"].fetchval(other)
        assert await audit_alone(shop.database) is None
    found = await audit_alone(shop.database)
    assert found is not None
    assert found.sound


async def test_a_restore_of_sums_is_what_full_does(shop: Shop) -> None:
    await sound(shop.database)
    await _run(shop, ["UPDATE audit_ledger SET amount_e10 = amount_e10 + 1 WHERE amount_e10 > 799"])
    assert not (await audit(shop.database, full=False)).sound
    await sound(shop.database)
    assert (await audit(shop.database, full=False)).sound


async def last(database: Database) -> LastAudit:
    async with database.connection() as conn:
        return await last_audit(conn)


async def test_no_more_than_a_screenful_is_shown(shop: Shop) -> None:
    for _ in range(25):
        await shop.customer(10)
    await fetch(shop.database, "UPDATE accounts SET debt_e10 = debt_e10 + 1")
    found = await audit(shop.database)
    assert len(found.differences) == 20
