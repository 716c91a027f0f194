"""Late prices in the books: which price counts, what a correction moves, and that it moves once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import pytest_asyncio
from books_kit import NOW, Shop, fetch, insert_meter, meter, open_shop, sound
from hosting import database_copy
from late_kit import PASSED_ON, PERCENT, priced, rerated, unpriced

from lava_proxy.books.prices import load_history
from lava_proxy.books.share import Share
from lava_proxy.rules.limits import account_of
from lava_proxy.store import requests
from lava_proxy.store.corrections import Change
from lava_proxy.store.database import Database, StoreConflict
from lava_proxy.store.embedded import EmbeddedServer
from lava_proxy.store.reratings import rerate
from lava_proxy.store.settle import settle

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = timedelta(hours=1)
COST_E10 = 10_000_000
"""1,000 tokens at 1 USD per million."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(postgres: EmbeddedServer, template: str) -> AsyncIterator[Database]:
    """One database for all: each test has a merchant of its own."""
    async with database_copy(postgres, template) as url:
        database = Database(url)
        await database.open()
        await insert_meter(database, await open_shop(database), PASSED_ON)
        yield database
        await database.close()


@pytest_asyncio.fixture(loop_scope="module")
async def shop(shared: Database) -> AsyncIterator[Shop]:
    made = await open_shop(shared)
    yield made
    await sound(shared)


async def late(shop: Shop, now: datetime = NOW, *, dry: bool = False) -> list[Change]:
    """What a pass over one merchant's requests changes."""
    return await rerated(shop.database, now, merchant_id=shop.merchant_id, dry=dry)


async def waiting(shop: Shop) -> list[tuple[object, ...]]:
    """Requests that wait, and whether they were tried."""
    return await fetch(
        shop.database,
        "SELECT request_id, tried <> '' FROM unrated_requests WHERE merchant_id = $1 "
        "ORDER BY request_id",
        shop.merchant_id,
    )


async def told(shop: Shop) -> int:
    """Events for the merchant's webhooks."""
    [(count,)] = await fetch(
        shop.database,
        "SELECT count(*) FROM webhook_events WHERE merchant_id = $1",
        shop.merchant_id,
    )
    assert isinstance(count, int)
    return count


# Which price.


async def test_the_price_of_the_calls_own_time_counts(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    for hour, name in enumerate(("req_a", "req_b", "req_c")):
        at = NOW + hour * HOUR
        await shop.settle(unpriced(shop, owner, at=at, request_id=name))
    first = await priced(shop, "1", since=NOW + HOUR, known_at=NOW + 5 * HOUR)
    second = await priced(shop, "2", since=NOW + 2 * HOUR, known_at=NOW + 5 * HOUR)
    await priced(shop, "5", since=NOW + 4 * HOUR)
    done = {change.request_id: change for change in await late(shop, NOW + 6 * HOUR)}
    assert [done[name].version for name in ("req_a", "req_b", "req_c")] == [first, first, second]
    assert [done[name].cost_change_e10 // COST_E10 for name in sorted(done)] == [1, 1, 2]


async def test_a_price_to_come_or_taken_back_is_none(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    await shop.settle(unpriced(shop, owner))
    await priced(shop, "1", since=NOW + HOUR)
    version = await priced(shop, "2")
    async with shop.database.transaction() as conn:
        await conn.execute(
            "UPDATE price_overrides SET removed_at = now() WHERE override_id = $1",
            version.removeprefix("override/"),
        )
    assert await late(shop) == []
    assert len(await late(shop, NOW + HOUR)) == 1


@pytest.mark.parametrize(
    ("match", "model"), [("exact", "NEWEST"), ("prefix", "new"), ("default", "")]
)
async def test_every_kind_of_match(shop: Shop, match: str, model: str) -> None:
    owner = await shop.customer(10**12)
    await shop.settle(unpriced(shop, owner))
    version = await priced(shop, "1", match=match, model=model)
    [change] = await late(shop)
    assert (change.cost_change_e10, change.version) == (COST_E10, version)


async def test_a_price_for_the_name_that_was_asked_for_will_do(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    await shop.settle(unpriced(shop, owner, model="deployed-7f", asked="ours"))
    await priced(shop, "1", model="ours")
    assert len(await late(shop)) == 1


async def test_the_operators_price_is_everybodys(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    await shop.settle(unpriced(shop, owner, model="operated"))
    version = await priced(shop, "1", model="operated", operator=True)
    assert [change.version for change in await late(shop)] == [version]


async def test_one_merchants_price_is_nobody_elses(shop: Shop) -> None:
    other = await open_shop(shop.database)
    for each in (shop, other):
        await each.settle(unpriced(each, await each.customer(10**12)))
    await priced(shop, "1")
    assert await late(other) == []
    [change] = await late(shop)
    assert change.merchant_id == shop.merchant_id
    assert (await waiting(shop), len(await waiting(other))) == ([], 1)


async def test_what_was_charged_with_another_row_waits_for_nothing(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    stored = f"resp_{shop.merchant_id}"
    for name in ("req_1", "req_2"):
        made = unpriced(shop, owner, request_id=name)
        await shop.settle(replace(made, metered_object=stored, reads_object=name == "req_2"))
    assert await waiting(shop) == [("req_1", False)]


async def test_a_price_that_cannot_be_used_is_passed_over(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    await shop.settle(unpriced(shop, owner))
    await priced(shop, "a lot")
    assert await late(shop) == []
    version = await priced(shop, "1", since=NOW - HOUR)
    assert [change.version for change in await late(shop)] == [version]


async def test_a_price_that_tells_nothing_is_tried_once(shop: Shop) -> None:
    """Output that the price does not know: nothing is free without a word."""
    owner = await shop.customer(10**12)
    made = unpriced(shop, owner, request_id="req_1")
    await shop.settle(replace(made, counts=replace(made.counts, output_tokens=5)))
    await priced(shop, "1")
    assert await late(shop, dry=True) == []
    assert await waiting(shop) == [("req_1", False)]
    assert await late(shop) == []
    assert await waiting(shop) == [("req_1", True)]


# What it moves.


async def test_a_dearer_charge_takes_free_credit_and_the_rest_is_debt(shop: Shop) -> None:
    owner = await shop.customer(COST_E10 // 4)
    await shop.settle(unpriced(shop, owner))
    await _webhook(shop)
    await priced(shop, "1")
    [change] = await late(shop)
    assert change.charge_change_e10 == COST_E10
    assert await shop.debt(owner) == (COST_E10 - COST_E10 // 4, 0)
    assert await told(shop) == 1


async def test_what_comes_back_goes_to_the_cycle_it_was_booked_in(shop: Shop) -> None:
    """Included credit must not become credit without an end."""
    owner = await shop.customer()
    grant = await shop.grant(owner, COST_E10, kind="cycle", expires_at=NOW + HOUR)
    await _subscribe(shop, owner, grant)
    await shop.grant(owner, COST_E10)
    await shop.settle(
        unpriced(shop, owner, assumed_e10=COST_E10 * 3 // 2, cycle=f"sub_{shop.merchant_id}:3")
    )
    await priced(shop, "0.25")
    [change] = await late(shop)
    assert change.charge_change_e10 == -COST_E10 * 5 // 4
    left = await fetch(
        shop.database,
        "SELECT kind, available_e10 FROM credit_grants WHERE owner_id = $1 ORDER BY created_at, "
        "kind, available_e10",
        owner,
    )
    assert left == [
        ("cycle", COST_E10),  # all that was spent of it
        ("operator", COST_E10 // 4),  # the rest
        ("operator", COST_E10 // 2),
    ]


@pytest.mark.parametrize("over", ["ends_at", "seq", "status"])
async def test_of_a_cycle_that_is_over_it_is_credit_of_its_own(shop: Shop, over: str) -> None:
    owner = await shop.customer()
    grant = await shop.grant(owner, COST_E10, kind="cycle", expires_at=None)
    await _subscribe(shop, owner, grant)
    await shop.settle(
        unpriced(shop, owner, assumed_e10=COST_E10, cycle=f"sub_{shop.merchant_id}:3")
    )
    change = {
        "ends_at": "UPDATE cycles SET ends_at = $1",
        "seq": "UPDATE subscriptions SET cycle_seq = 4, cycle_start_at = $1",
        "status": "UPDATE subscriptions SET status = 'cancelled', cancelled_at = $1",
    }
    mine = f"{change[over]} WHERE subscription_id = $2"
    await fetch(shop.database, mine, NOW, f"sub_{shop.merchant_id}")
    await priced(shop, "0.25")
    assert len(await late(shop)) == 1
    assert (await shop.grants(owner)).count((COST_E10 * 3 // 4, 0, 0, 0, 0)) == 1


async def test_limits_of_a_spend_key_count_the_new_cost(shop: Shop) -> None:
    """Up, beyond the limit where there is no room, and down again; requests are no money."""
    key = f"spk_{shop.merchant_id}"
    day = account_of(key, "money", "daily", NOW)
    life = account_of(key, "money", "total", NOW)
    calls = account_of(key, "requests", "total", NOW)
    budgets = (("money", day), ("spent", life), ("asked", calls))
    async with shop.database.transaction() as conn:
        await conn.execute(
            "INSERT INTO accounts (owner_id, merchant_id) VALUES ($1, $2)", day, shop.merchant_id
        )
        await conn.execute(
            "INSERT INTO credit_grants (grant_id, owner_id, merchant_id, kind, amount_e10, "
            "available_e10) VALUES ($1, $1, $2, 'limit', $3, $3)",
            day,
            shop.merchant_id,
            COST_E10 * 3 // 2,
        )

    async def used() -> dict[object, object]:
        rows = await fetch(
            shop.database, "SELECT owner_id, spent_e10 FROM credit_grants WHERE kind = 'limit'"
        )
        return {row[0]: row[1] for row in rows}

    for _ in range(2):
        await shop.settle(
            unpriced(shop, shop.merchant_id, by=None, customer=False, budgets=budgets)
        )
    assert used_of(await used(), day, life, calls) == (0, 0, 2)
    await priced(shop, "1")
    assert len(await late(shop)) == 2
    assert used_of(await used(), day, life, calls) == (2 * COST_E10, 2 * COST_E10, 2)
    assumed = unpriced(
        shop, shop.merchant_id, by=None, customer=False, budgets=budgets, assumed_e10=7 * COST_E10
    )
    await shop.settle(assumed)
    assert used_of(await used(), day, life, calls) == (9 * COST_E10, 9 * COST_E10, 3)
    assert len(await late(shop)) == 1
    assert used_of(await used(), day, life, calls) == (3 * COST_E10, 3 * COST_E10, 3)


def used_of(used: dict[object, object], *accounts: str) -> tuple[object, ...]:
    return tuple(used.get(account, 0) for account in accounts)


async def test_a_request_shows_what_it_came_to(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    tiers = meter((0, 100 * PERCENT), (1, 200 * PERCENT), rate_type="percentage", unit="requests")
    await shop.settle(unpriced(shop, owner, by=tiers, assumed_e10=5, request_id="req_0"))
    await shop.settle(unpriced(shop, owner, by=tiers, assumed_e10=5, request_id="req_1"))
    await priced(shop, "1")
    assert len(await late(shop)) == 2
    async with shop.database.connection() as conn:
        found = await requests.find(conn, shop.merchant_id, "req_1")
    assert found is not None
    assert found.charge_e10 == 10
    assert found.rerated is not None
    assert found.rerated.input_cost_e10 == COST_E10
    assert found.rerated.breakdown is not None
    [line] = found.rerated.breakdown
    assert (line.tier.start, line.units, line.amount_e10) == (1, 1, 2 * COST_E10)


# Once.


async def test_many_at_once_and_one_that_dies_move_each_once(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    await shop.settle(*[unpriced(shop, owner) for _ in range(30)])
    await priced(shop, "1")

    async def some(count: int) -> int:
        """Stops in the middle, as a process that is killed."""
        done = 0
        prices = await load_history(shop.database, NOW)
        async for _ in rerate(Share(shop.database, 1), prices, NOW, merchant_id=shop.merchant_id):
            done += 1
            if done == count:
                break
        return done

    done = [await some(4), *await asyncio.gather(some(5), some(40), some(40))]
    assert sum(done) == 30
    assert await shop.ledger(f"merchant:{shop.merchant_id}:cost") == -30 * COST_E10
    assert await waiting(shop) == []


async def test_what_settles_meanwhile_is_in_nobodys_way(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    await shop.settle(*[unpriced(shop, owner) for _ in range(20)])
    await priced(shop, "1")

    async def book() -> None:
        for _ in range(10):
            rows = [unpriced(shop, owner) for _ in range(3)]
            for _ in range(20):
                try:
                    async with shop.database.transaction() as conn:
                        await settle(conn, rows, NOW)
                    break
                except StoreConflict:
                    continue

    await asyncio.gather(book(), late(shop), late(shop))
    await late(shop)
    assert await shop.ledger(f"merchant:{shop.merchant_id}:cost") == -50 * COST_E10


async def test_rows_that_went_wait_no_more(shop: Shop) -> None:
    async with shop.database.transaction() as conn:
        await conn.execute(
            "INSERT INTO unrated_requests VALUES ($1, 'req_0', $2, 'openai', 'newest', '', '{}')",
            shop.merchant_id,
            NOW,
        )
    assert await late(shop) == []
    assert await waiting(shop) == [("req_0", False)]  # nobody looks at what has no price
    await priced(shop, "1")
    assert await late(shop) == []
    assert await waiting(shop) == []


async def test_one_that_cannot_be_booked_is_set_aside(shop: Shop) -> None:
    owner = await shop.customer(10**12)
    dear = unpriced(shop, owner, 10**9, request_id="req_1")
    await shop.settle(dear, unpriced(shop, owner, request_id="req_2"))
    await priced(shop, "1000000")
    assert [change.request_id for change in await late(shop)] == ["req_2"]
    assert await waiting(shop) == [("req_1", True)]


async def _subscribe(shop: Shop, owner: str, grant: str) -> None:
    async with shop.database.transaction() as conn:
        await conn.execute(
            "INSERT INTO plans (plan_id, merchant_id, name, period_amount_e10, "
            "included_credit_e10, billing_interval, rollover_type, bundle_rollover_type) "
            "VALUES ('sc_' || $1, $1, 'p', 0, $2, 'month', 'none', 'full')",
            shop.merchant_id,
            COST_E10,
        )
        await conn.execute(
            "INSERT INTO subscriptions (subscription_id, merchant_id, customer_id, plan_id, "
            "status, started_at, anchor_at, cycle_seq, cycle_start_at, cycle_end_at) "
            "VALUES ('sub_' || $1, $1, $2, 'sc_' || $1, 'active', $3, $3, 3, $3, $4)",
            shop.merchant_id,
            owner,
            NOW - HOUR,
            NOW + HOUR,
        )
        await conn.execute(
            "INSERT INTO cycles (subscription_id, seq, plan_id, starts_at, ends_at, grant_id) "
            "VALUES ('sub_' || $1, 3, 'sc_' || $1, $2, $3, $4)",
            shop.merchant_id,
            NOW - HOUR,
            NOW + HOUR,
            grant,
        )


async def _webhook(shop: Shop) -> None:
    async with shop.database.transaction() as conn:
        await conn.execute(
            "INSERT INTO webhooks (webhook_id, merchant_id, slot, name, url, secret_sealed, "
            "events) VALUES ('wh_1', $1, 1, 'w', 'https://example.com', '', "
            "'{customer.wallet.balance.updated}')",
            shop.merchant_id,
        )
