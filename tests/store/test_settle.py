"""Booking a batch: exact charges, burn order, exactly once, a ledger that nobody can change."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from books_kit import (
    E12,
    HOLDER,
    NOW,
    UNIT_METER,
    Shop,
    fetch,
    meter,
    open_shop,
    row,
    sound,
    total,
)

from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.core.money import MoneyError
from lava_proxy.rules.charge import charge
from lava_proxy.rules.price import Cost
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.database import (
    Database,
    StoreBroken,
    StoreConflict,
    StoreDown,
    StorePoison,
)
from lava_proxy.store.entries import Entries

DAY = timedelta(days=1)


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await open_shop(database)


# Charges ----------------------------------------------------------------------------------------


async def test_tiers_run_across_the_rows_of_one_batch_and_of_the_next(shop: Shop) -> None:
    tiers = meter((0, 333_333_333), (7, 1_000_000_007), (20, 5))
    owner = await shop.customer(10**9)
    rows = [row(owner, n, shop=shop, by=tiers) for n in (3, 5, 1, 30)]
    booked = await shop.settle(*rows)
    before, expected = 0, []
    for n in (3, 5, 1, 30):
        expected.append(charge(tiers.tariff, before, n).amount_e10)
        before += n
    assert [b.charge_e10 for b in booked] == expected
    (last,) = await shop.settle(row(owner, 2, shop=shop, by=tiers))
    assert last.charge_e10 == charge(tiers.tariff, 39, 2).amount_e10
    assert await shop.units(owner) == {("prd_1", "2026-11"): 41}
    await sound(shop.database)


async def test_charges_telescope_to_the_price_of_the_total(shop: Shop) -> None:
    third = meter((0, 33_333_333))  # a third of a unit per token: every single charge is rounded
    owner = await shop.customer(10**6)
    rows = [row(owner, 1, shop=shop, by=third) for _ in range(10)]
    booked = await shop.settle(*rows[:4]) + await shop.settle(*rows[4:])
    assert {b.charge_e10 for b in booked} == {0, 1}
    assert total(booked) == charge(third.tariff, 0, 10).amount_e10 == 3


async def test_each_cycle_and_meter_has_its_own_tiers(shop: Shop) -> None:
    owner, other = await shop.customer(10**9), await shop.customer(10**9)
    dear = meter((0, 100_000_000), (5, 900_000_000))
    booked = await shop.settle(
        row(owner, 5, shop=shop, by=dear),
        row(owner, 5, shop=shop, by=dear, cycle="2026-12"),
        row(owner, 5, shop=shop, by=replace(dear, meter_id="prd_2")),
        row(other, 5, shop=shop, by=dear),
        row(owner, 1, shop=shop, by=dear),
    )
    assert [b.charge_e10 for b in booked] == [5, 5, 5, 5, 9]


async def test_unbilled_and_failed_rows_cost_nothing_and_advance_nothing(shop: Shop) -> None:
    owner = await shop.customer(1000)
    dear = meter((0, 100_000_000), (5, 900_000_000))
    booked = await shop.settle(
        row(owner, 50, shop=shop, by=dear, billable=False),
        row(owner, 50, shop=shop, by=dear, status="error"),
        row(owner, 50, shop=shop, by=None),
        row(owner, 5, shop=shop, by=dear),
    )
    assert [b.charge_e10 for b in booked] == [0, 0, 0, 5]
    assert await shop.units(owner) == {("prd_1", "2026-11"): 5}
    flags = await fetch(
        shop.database, "SELECT flags FROM requests WHERE 'unbilled' = ANY(flags) ORDER BY units"
    )
    assert flags == [(["unbilled"],)]
    await sound(shop.database)


async def test_percentage_needs_a_cost(shop: Shop) -> None:
    percent = meter((0, 120 * E12), (100, 10 * E12), rate_type="percentage")
    owner = await shop.customer(10**6)
    booked = await shop.settle(
        row(owner, 99, shop=shop, by=percent, cost_e10=1005),
        row(owner, 2, shop=shop, by=percent, cost_e10=1000),
        row(owner, 7, shop=shop, by=percent, cost_e10=None),
        row(owner, 0, shop=shop, by=percent, cost_e10=5),
    )
    assert [b.charge_e10 for b in booked] == [1206, 650, 0, 1]
    assert await shop.units(owner) == {("prd_1", "2026-11"): 108}
    await sound(shop.database)


async def test_provider_cost_is_on_the_merchants_side_of_the_ledger(shop: Shop) -> None:
    owner = await shop.customer(1000)
    failed = replace(row(owner, shop=shop, status="error"), cost=Cost(3, 4, 7))
    await shop.settle(row(owner, 10, shop=shop, cost_e10=40), failed)
    assert await shop.ledger("provider:openai") == 47
    assert await shop.ledger(f"merchant:{shop.merchant_id}:cost") == -47
    assert await shop.ledger(f"merchant:{shop.merchant_id}:revenue") == 10
    assert await shop.ledger(f"customer:{owner}") == 990
    await sound(shop.database)


async def test_meter_only_traffic_is_charged_to_nobody(shop: Shop) -> None:
    merchant = shop.merchant_id
    booked = await shop.settle(row(merchant, 10, shop=shop, customer=False, cost_e10=3))
    assert booked[0].charge_e10 == 10
    assert booked[0].leased_e10 == 0
    assert await shop.units(merchant) == {("prd_1", "2026-11"): 10}
    assert await shop.debt(merchant) == (0, 0)
    assert await shop.ledger(f"customer:{merchant}") == 0
    assert await shop.ledger(f"merchant:{merchant}:revenue") == 0
    await sound(shop.database)


# Exactly once -----------------------------------------------------------------------------------


async def test_an_id_is_booked_once_within_a_batch_and_across_batches(shop: Shop) -> None:
    owner = await shop.customer(1000)
    first = row(owner, 10, shop=shop, content_hash=b"first")
    again = replace(first, content_hash=b"again")
    other = row(owner, 20, shop=shop)
    booked = await shop.settle(other, first, again, first, other)
    assert [b.fresh for b in booked] == [True, True, False, False, False]
    assert [b.charge_e10 for b in booked] == [20, 10, 0, 0, 0]
    late = await shop.settle(again, first)
    assert [(b.fresh, b.charge_e10, b.leased_e10) for b in late] == [(False, 0, 0)] * 2
    assert await shop.grants(owner) == [(970, 0, 30, 0, 0)]
    assert await fetch(
        shop.database,
        "SELECT content_hash FROM request_ids WHERE request_id = $1",
        first.call.request_id,
    ) == [(b"first",)]
    assert (await sound(shop.database)).requests == 2


async def test_two_merchants_may_use_the_same_request_id(shop: Shop) -> None:
    other = await open_shop(shop.database)
    mine, theirs = await shop.customer(100), await other.customer(100)
    booked = await shop.settle(
        row(mine, 1, shop=shop, request_id="same", content_hash=b"1"),
        row(theirs, 2, shop=other, request_id="same", content_hash=b"2"),
    )
    assert [(b.fresh, b.charge_e10) for b in booked] == [(True, 1), (True, 2)]
    await sound(shop.database)


async def test_a_batch_that_fails_leaves_nothing_behind(shop: Shop) -> None:
    owner = await shop.customer(1000)
    await shop.lease(owner, 500)
    good = row(owner, 10, shop=shop)
    before = await shop.grants(owner)
    for bad, fault in (
        (row(owner, shop=shop, model="nul\0"), StorePoison),
        (row(owner, shop=shop, model="\ud800"), StorePoison),
        (row(owner, shop=shop, metadata={"k": "\udfff"}), StorePoison),
        (row(owner, 2**63, shop=shop, billable=False), StorePoison),
        (row(owner, 2**80, shop=shop, billable=False), StorePoison),
        (row(owner, 10**18, shop=shop, by=meter((0, 10**18))), MoneyError),
        (row("con_nobody", shop=shop), StorePoison),
    ):
        with pytest.raises(fault):
            await shop.settle(good, bad)
        assert await shop.grants(owner) == before
    assert (await sound(shop.database)).requests == 0
    assert (await shop.settle(good))[0].fresh


# Where the money comes from ---------------------------------------------------------------------


async def test_leases_first_then_free_credit_in_burn_order_then_debt(shop: Shop) -> None:
    owner = await shop.customer()
    for grant_id, kind, expires in (
        ("crd_1_young", "operator", None),
        ("crd_2_late", "bundle", NOW + 9 * DAY),
        ("crd_3_soon", "operator", NOW + DAY),
        ("crd_4_cycle", "cycle", NOW + 20 * DAY),
    ):
        await shop.grant(owner, 100, kind=kind, expires_at=expires, grant_id=grant_id)
    await shop.lease(owner, 150)  # all of the cycle's credit and half of the soonest
    young, late, soon, cycle = range(4)

    async def spend(tokens: int) -> list[tuple[int, int, int]]:
        await shop.settle(row(owner, tokens, shop=shop))
        return [grant[:3] for grant in await shop.grants(owner)]

    grants = await spend(120)  # from the lease, in its order
    assert grants[cycle] == (0, 0, 100)
    assert grants[soon] == (50, 30, 20)
    grants = await spend(60)  # the lease's last 30, then free credit
    assert grants[soon] == (20, 0, 80)
    grants = await spend(130)
    assert grants[soon] == (0, 0, 100)
    assert grants[late] == (0, 0, 100)
    assert grants[young] == (90, 0, 10)
    await spend(100)
    assert await shop.debt(owner) == (10, 0)
    assert await shop.ledger(f"customer:{owner}") == -10
    await sound(shop.database)


async def test_only_the_admitting_process_leases_pay(shop: Shop) -> None:
    owner = await shop.customer(100)
    await shop.lease(owner, 60, holder_id="hld_other")
    (booked,) = await shop.settle(row(owner, 50, shop=shop))
    assert booked.leased_e10 == 0
    assert await shop.grants(owner) == [(0, 60, 40, 0, 0)]
    assert await shop.debt(owner) == (10, 0)
    (booked,) = await shop.settle(row(owner, 50, shop=shop, holder_id="hld_other"))
    assert booked.leased_e10 == 50
    await sound(shop.database)


async def test_credit_that_came_to_its_end_is_not_spent(shop: Shop) -> None:
    owner = await shop.customer()
    await shop.grant(owner, 100, expires_at=NOW)
    await shop.settle(row(owner, 30, shop=shop))
    assert await shop.debt(owner) == (30, 0)
    assert await shop.grants(owner) == [(100, 0, 0, 0, 0)]
    await sound(shop.database)


async def test_shares_of_the_overdraft_become_debt(shop: Shop) -> None:
    owner = await shop.customer(10)
    answer = await shop.lease(owner, 50, overdraft_e10=100)
    assert answer.amount_e10 == 50
    assert await shop.debt(owner) == (0, 40)
    (booked,) = await shop.settle(row(owner, 30, shop=shop))
    assert booked.leased_e10 == 30
    assert await shop.debt(owner) == (20, 20)
    assert await shop.give_back(owner) == 20
    assert await shop.debt(owner) == (20, 0)
    assert (await shop.lease(owner, 81, overdraft_e10=100)).amount_e10 == 0
    assert (await shop.lease(owner, 80, overdraft_e10=100)).amount_e10 == 80
    await sound(shop.database)


async def test_objects_are_remembered_with_their_maker(shop: Shop) -> None:
    owner, other = await shop.customer(100), await shop.customer(100)
    await shop.settle(
        row(owner, shop=shop, object_ids=("resp_1", "conv_1")),
        row(other, shop=shop, object_ids=("resp_1",)),
    )
    rows = await fetch(
        shop.database, "SELECT object_id, merchant_id, customer_id FROM provider_objects ORDER BY 1"
    )
    assert rows == [("conv_1", shop.merchant_id, owner), ("resp_1", shop.merchant_id, owner)]


# The ledger -------------------------------------------------------------------------------------


CHANGES = [
    "UPDATE ledger_entries SET amount_e10 = amount_e10",
    "DELETE FROM ledger_entries",
    "TRUNCATE ledger_entries",
    "TRUNCATE ledger_entries_default",
    "DO $$DECLARE part text; BEGIN SELECT min(inhrelid::regclass::text) INTO part "
    "FROM pg_inherits WHERE inhparent = 'ledger_entries'::regclass; "
    "EXECUTE 'TRUNCATE ' || part; END$$",
    "DO $$DECLARE part text; BEGIN SELECT tableoid::regclass INTO part FROM ledger_entries; "
    "EXECUTE 'UPDATE ' || part || ' SET amount_e10 = 0'; END$$",
]


async def test_the_ledger_is_append_only(shop: Shop) -> None:
    """For everybody: the embedded server's user may do anything else."""
    await shop.customer(100)
    for change in CHANGES:
        with pytest.raises(StoreBroken, match="append-only"):
            async with shop.database.connection() as conn:
                await conn.execute(change)
    assert (await sound(shop.database)).entries == 2


async def test_a_transaction_that_does_not_sum_to_zero_is_refused(shop: Shop) -> None:
    with pytest.raises(StoreBroken, match="does not sum to zero"):
        async with shop.database.connection() as conn:
            await conn.execute(
                "INSERT INTO ledger_entries (transaction_id, merchant_id, account, amount_e10, "
                "kind, created_at) VALUES ('t1', 'm', 'a', 5, 'grant', now()), "
                "('t1', 'm', 'b', -4, 'grant', now()), ('t2', 'm', 'a', -1, 'grant', now())"
            )
    entries = Entries(NOW)
    with pytest.raises(InvariantBroken):
        with entries.transaction("t", "m", None, None) as post:
            post("grant", "a", 1)


async def test_every_transaction_sums_to_zero_and_carries_its_request(shop: Shop) -> None:
    owner = await shop.customer(1000)
    made = row(owner, 10, shop=shop, cost_e10=4)
    await shop.settle(made, row(owner, 0, shop=shop))
    rows = await fetch(
        shop.database,
        "SELECT transaction_id, count(*)::int, sum(amount_e10)::bigint, min(request_id) "
        "FROM ledger_entries GROUP BY 1 ORDER BY 2",
    )
    assert [r[1:3] for r in rows] == [(2, 0), (4, 0)]  # the grant, and one charged request
    assert rows[1][3] == made.call.request_id


# Many at once -----------------------------------------------------------------------------------


async def _book(shop: Shop, batch: list[Settlement], rng: random.Random) -> int:
    """As the writer does; answers what was fresh."""
    while True:
        try:
            booked = await shop.settle(*batch)
        except (StoreConflict, StoreDown):  # or no connection became free in time
            await asyncio.sleep(rng.uniform(0, 0.01))
        else:
            return sum(b.charge_e10 for b in booked if b.fresh)


@pytest.mark.parametrize("seed", [1, 2])
async def test_many_writers_in_any_order_agree_with_the_model(shop: Shop, seed: int) -> None:
    rng = random.Random(seed)
    tiers = meter((0, 33_333_333), (500, 177_777_777), (900, 1))
    percent = meter((0, 150 * E12), rate_type="percentage", meter_id="prd_2")
    granted = {await shop.customer(500, 1, 300): 801 for _ in range(5)}
    for owner in granted:
        for holder in ("hld_a", "hld_b"):
            await shop.lease(owner, rng.randrange(1, 200), holder_id=holder, overdraft_e10=0)
    rows = [
        row(
            rng.choice(list(granted)),
            rng.randrange(60),
            shop=shop,
            by=rng.choice((tiers, percent)),
            holder_id=rng.choice(("hld_a", "hld_b", "hld_gone")),
            cost_e10=rng.randrange(40),
            billable=rng.random() < 0.9,
        )
        for _ in range(150)
    ]
    batches = []
    for _ in range(24):  # every row is in some batch, most in several, each batch in its own order
        batches.append(rng.sample(rows, rng.randrange(1, 40)))
    batches += [rng.sample(rows, len(rows))]
    charges = await asyncio.gather(*(_book(shop, batch, rng) for batch in batches))

    units: dict[str, int] = defaultdict(int)
    expected: dict[str, int] = defaultdict(int)
    for made in rows:
        if not made.call.billable:
            continue
        owner, cost = made.call.owner_id, made.cost.total_e10 if made.cost else 0
        if made.call.meter is tiers:
            units[owner] += made.counts.input_tokens
        else:
            expected[owner] += charge(percent.tariff, 0, 1, cost).amount_e10
    for owner, used in units.items():
        expected[owner] += charge(tiers.tariff, 0, used).amount_e10
        assert (await shop.units(owner))["prd_1", "2026-11"] == used
    assert sum(charges) == sum(expected.values())
    for owner, amount in granted.items():
        assert await shop.ledger(f"customer:{owner}") == amount - expected[owner]
        grants = await shop.grants(owner)
        debt, _ = await shop.debt(owner)
        assert sum(g[0] + g[1] for g in grants) - debt == amount - expected[owner]
    found = await sound(shop.database)
    assert found.requests == len(rows)


async def test_opposite_orders_do_not_deadlock(shop: Shop) -> None:
    """Two connections, the same customers and the same ids, in opposite order, in lockstep."""
    owners = [await shop.customer(1000) for _ in range(20)]
    for _ in range(5):
        rows = [row(owner, 1, shop=shop, by=UNIT_METER) for owner in owners]
        results = await asyncio.gather(shop.settle(*rows), shop.settle(*reversed(rows)))
        assert sum(b.fresh for booked in results for b in booked) == len(rows)
    for owner in owners:
        assert await shop.grants(owner) == [(995, 0, 5, 0, 0)]
    await sound(shop.database)


async def test_settling_and_leasing_take_turns(shop: Shop, database_url: str) -> None:
    """While one transaction has a customer's account, nobody else changes it."""
    owner = await shop.customer(1000)
    blocker = await asyncpg.connect(database_url)
    try:
        async with blocker.transaction():
            await blocker.execute(
                "SELECT 1 FROM accounts WHERE owner_id = $1 FOR NO KEY UPDATE", owner
            )
            with pytest.raises(StoreConflict):
                await shop.settle(row(owner, shop=shop))
            with pytest.raises(StoreConflict):
                await shop.lease(owner, 10)
    finally:
        await blocker.close()
    assert (await shop.settle(row(owner, shop=shop, holder_id=HOLDER)))[0].fresh
    await sound(shop.database)
