"""The books check finds nothing in good books, and every planted error of one unit."""

from __future__ import annotations

from datetime import timedelta

import pytest
from books_kit import NOW, Shop, fetch, meter, open_shop, row, sound

from lava_proxy.store.audit import CHECKS, audit
from lava_proxy.store.database import Database


@pytest.fixture
async def shop(database: Database) -> Shop:
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
    return shop


async def _plant(shop: Shop, *statements: str) -> None:
    """Change what the schema protects: superusers can, which is why there is an audit."""
    async with shop.database.connection() as conn:
        for table in ("ledger_entries", "credit_grants", "leases", "lease_parts", "accounts"):
            await conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            names = await conn.fetch(
                "SELECT conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'c'",
                table,
            )
            for (name,) in names:
                await conn.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
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


ONE_GRANT = "WHERE grant_id = (SELECT grant_id FROM credit_grants WHERE leased_e10 > 0 LIMIT 1)"
ONE_LEASE = "WHERE lease_id = (SELECT lease_id FROM leases WHERE spent_e10 > 0 LIMIT 1)"
ONE_CHARGE = (
    "WHERE (merchant_id, request_id) = (SELECT merchant_id, request_id FROM requests "
    "WHERE charge_e10 > 0 AND customer_id IS NOT NULL LIMIT 1)"
)
ONE_ENTRY = "WHERE entry_id = (SELECT min(entry_id) FROM ledger_entries WHERE {})"
NEW_ENTRY = (
    "INSERT INTO ledger_entries (transaction_id, merchant_id, account, amount_e10, kind, "
    "created_at) VALUES ('t', 'm', '{}', {}, 'grant', now())"
)


@pytest.mark.parametrize(
    ("check", "statements"),
    [
        ("grants_unbalanced", [f"UPDATE credit_grants SET spent_e10 = spent_e10 + 1 {ONE_GRANT}"]),
        (
            "grants_unbalanced",
            [
                "UPDATE credit_grants SET leased_e10 = leased_e10 - 1, "
                f"available_e10 = available_e10 + 1 {ONE_GRANT}"
            ],
        ),
        ("leases_unbalanced", [f"UPDATE leases SET spent_e10 = spent_e10 + 1 {ONE_LEASE}"]),
        ("leases_unbalanced", [f"UPDATE leases SET amount_e10 = amount_e10 + 1 {ONE_LEASE}"]),
        (
            "leases_unbalanced",
            ["UPDATE lease_parts SET left_e10 = left_e10 + 1 WHERE grant_id IS NULL"],
        ),
        (
            "overdrafts_unbalanced",
            [
                "UPDATE accounts SET overdraft_leased_e10 = overdraft_leased_e10 + 1 "
                "WHERE overdraft_leased_e10 > 0"
            ],
        ),
        (
            "accounts_unbalanced",
            ["UPDATE accounts SET debt_e10 = debt_e10 + 1 WHERE debt_e10 > 0"],
        ),
        (
            "accounts_unbalanced",
            [
                "UPDATE credit_grants SET amount_e10 = amount_e10 + 1, "
                f"available_e10 = available_e10 + 1 {ONE_GRANT}"
            ],
        ),
        (
            "accounts_unbalanced",
            [NEW_ENTRY.format("customer:con_nobody", 1), NEW_ENTRY.format("operator:grants", -1)],
        ),
        ("transactions_unbalanced", [NEW_ENTRY.format("expired", 1)]),
        (
            "charges_unbalanced",
            [f"UPDATE requests SET charge_e10 = charge_e10 + 1 {ONE_CHARGE}"],
        ),
        (
            "charges_unbalanced",
            [
                "UPDATE ledger_entries SET amount_e10 = amount_e10 - 1 "
                + ONE_ENTRY.format("kind = 'charge' AND account LIKE 'customer:%'")
            ],
        ),
        (
            "costs_unbalanced",
            ["UPDATE requests SET cost_e10 = cost_e10 + 1 WHERE cost_e10 > 0"],
        ),
        (
            "costs_unbalanced",
            [
                "UPDATE ledger_entries SET amount_e10 = amount_e10 - 1 "
                + ONE_ENTRY.format("account LIKE 'provider:%'")
            ],
        ),
        (
            "counters_unbalanced",
            ["UPDATE usage_counters SET units = units + 1 WHERE units = 15"],
        ),
        ("counters_unbalanced", ["DELETE FROM usage_counters WHERE units = 15"]),
        (
            "counters_unbalanced",
            ["INSERT INTO usage_counters SELECT owner_id, 'prd_x', 'c', 1 FROM accounts LIMIT 1"],
        ),
    ],
)
async def test_one_unit_is_found(shop: Shop, check: str, statements: list[str]) -> None:
    await _plant(shop, *statements)
    found = await audit(shop.database)
    assert check in {difference.check for difference in found.differences}
    assert not found.sound


def test_every_check_has_a_planted_error() -> None:
    marks = test_one_unit_is_found.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(CHECKS)


async def test_no_more_than_a_screenful_is_shown(shop: Shop) -> None:
    for _ in range(25):
        await shop.customer(10)
    await fetch(shop.database, "UPDATE accounts SET debt_e10 = debt_e10 + 1")
    found = await audit(shop.database)
    assert len(found.differences) == 20
