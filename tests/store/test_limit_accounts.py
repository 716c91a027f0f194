"""Limits of cycles that are long over go, and with them nothing that counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from books_kit import Shop, fetch, open_shop, row, sound

from lava_proxy.core.ids import hash_secret, new_id
from lava_proxy.rules.limits import Cycle, Limit, account_of, cycle_ends, ended_before
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store import credit, limits, tokens
from lava_proxy.store.audit import audit
from lava_proxy.store.credit import LeaseAsk
from lava_proxy.store.database import Database
from lava_proxy.store.place import TOP
from lava_proxy.store.tokens import TokenRow

THEN = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = THEN + timedelta(days=80)
CYCLES: tuple[Cycle, ...] = ("daily", "weekly", "monthly", "total")


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await open_shop(database)


async def leased(shop: Shop, owner_id: str, amount: int = 60, most: int = 100) -> None:
    """A worker takes a slice of a limit."""
    limit = Limit(shop.merchant_id, most)
    ask = LeaseAsk(new_id("lease"), owner_id, "hld_1", 1, amount, 0, 0, 300.0, limit)
    async with shop.database.transaction() as conn:
        assert (await credit.lease(conn, ask, THEN)).amount_e10 == amount


async def used(shop: Shop, customer: str, owner_id: str, cost: int = 40) -> Settlement:
    """A call of a customer that costs so much of a limit, booked."""
    done = row(customer, 10, shop=shop, holder_id="hld_1", cost_e10=cost)
    done = replace(done, call=replace(done.call, budgets=(("money", owner_id),)))
    (booked,) = await shop.settle(done)
    assert booked.fresh
    return done


async def accounts(shop: Shop) -> set[str]:
    rows = await fetch(shop.database, "SELECT owner_id FROM accounts WHERE owner_id LIKE 'spk%'")
    return {str(owner) for (owner,) in rows}


@pytest.mark.parametrize("cycle", CYCLES)
def test_a_cycle_is_over_when_the_next_one_began(cycle: Cycle) -> None:
    owner_id, ends = account_of("spk_1", "money", cycle, THEN), cycle_ends(cycle, THEN)
    assert not ended_before(owner_id, THEN)
    if ends is None:
        assert not ended_before(owner_id, LATER)
        return
    assert not ended_before(owner_id, ends - timedelta(microseconds=1))
    assert ended_before(owner_id, ends)
    assert ended_before(owner_id, ends + timedelta(days=400))


def test_no_other_account_is_ever_over() -> None:
    for owner_id in ("con_1", "mer_1", "mer_1:wallet", "spk_1:money:total", "spk_1:rate", "a:b:c"):
        assert not ended_before(owner_id, datetime(9999, 1, 1, tzinfo=UTC))


async def test_what_is_long_over_goes_and_the_books_stay_sound(shop: Shop) -> None:
    customer = await shop.customer(1000)
    for cycle in CYCLES:
        owner_id = account_of("spk_1", "money", cycle, THEN)
        await leased(shop, owner_id)
        await used(shop, customer, owner_id)
        await shop.give_back(owner_id, holder_id="hld_1")
    before = await audit(shop.database, full=False)
    assert await limits.prune(shop.database, THEN + timedelta(days=limits.KEPT_DAYS)) == 0
    assert await limits.prune(shop.database, LATER) == 3
    assert await accounts(shop) == {"spk_1:money:total"}
    assert await limits.prune(shop.database, LATER) == 0
    for table in ("credit_grants", "leases"):
        rows = await fetch(
            shop.database, f"SELECT owner_id FROM {table} WHERE owner_id LIKE 'spk%'"
        )
        assert {owner for (owner,) in rows} == {"spk_1:money:total"}
    for full in (False, True):
        found = await audit(shop.database, full=full)
        assert (found.differences, found.sound) == ((), True)
        assert (found.granted_e10, found.spent_e10) == (before.granted_e10, before.spent_e10)


async def test_a_row_that_comes_still_later_is_booked(shop: Shop) -> None:
    customer, owner_id = await shop.customer(1000), account_of("spk_1", "money", "daily", THEN)
    await leased(shop, owner_id)
    await used(shop, customer, owner_id)
    await shop.give_back(owner_id, holder_id="hld_1")
    await limits.prune(shop.database, LATER)
    late = await used(shop, customer, owner_id, 7)
    assert await shop.grants(owner_id) == [(0, 0, 7, 0, 0)]
    (booked,) = await shop.settle(late)
    assert not booked.fresh
    assert (await shop.grants(customer))[0][2] == 20  # both calls, of ten tokens each
    assert await shop.ledger("provider:openai") == 47
    await sound(shop.database)
    assert await limits.prune(shop.database, LATER) == 1
    await sound(shop.database)


async def test_a_limit_with_an_open_lease_stays(shop: Shop) -> None:
    owner_id = account_of("spk_1", "money", "daily", THEN)
    await leased(shop, owner_id)
    assert await limits.prune(shop.database, LATER) == 0
    await shop.give_back(owner_id, holder_id="hld_1")
    assert await limits.prune(shop.database, LATER) == 1


async def test_rows_that_come_while_it_goes_are_booked_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST", 3)
    customer = await shop.customer(1000)
    owners = [account_of(f"spk_{n}", "money", "weekly", THEN) for n in range(10)]
    for owner_id in owners:
        await used(shop, customer, owner_id, 5)
    late = [used(shop, customer, owner_id, 5) for owner_id in owners[:6]]
    await asyncio.gather(limits.prune(shop.database, LATER), *late)
    assert await shop.ledger("provider:openai") == 80
    await sound(shop.database)
    await limits.prune(shop.database, LATER)
    assert await accounts(shop) == set()
    await sound(shop.database)


async def token(
    shop: Shop, *, expires_at: datetime | None = None, revoked_at: datetime | None = None
) -> str:
    """A forward token with a limit for all its life, of which a call used 40; answers its id."""
    made = TokenRow(
        forward_token_id=new_id("forward_token"),
        merchant_id=shop.merchant_id,
        hint="****",
        test=False,
        customer_id=None,
        meter_slug=None,
        meter_id=None,
        disable_billing=False,
        expires_at=expires_at,
        spend_limit_e10=100,
        spend_cycle="total",
        created_at=THEN,
    )
    async with shop.database.transaction() as conn:
        await tokens.create(conn, made, hash_secret(made.forward_token_id))
        if revoked_at is not None:
            await conn.execute(
                "UPDATE forward_tokens SET revoked_at = $1 WHERE forward_token_id = $2",
                revoked_at,
                made.forward_token_id,
            )
    owner_id = made.account(THEN)
    await leased(shop, owner_id)
    await used(shop, await shop.customer(1000), owner_id)
    await shop.give_back(owner_id, holder_id="hld_1")
    return made.forward_token_id


async def shown(shop: Shop) -> dict[str, int]:
    """What the tokens that are not revoked have used."""
    async with shop.database.connection() as conn:
        rows = await tokens.page(conn, shop.merchant_id, TOP, 100, LATER)
    return {row.forward_token_id: row.used_e10 for row in rows}


async def bounded(shop: Shop) -> set[str]:
    rows = await fetch(shop.database, "SELECT owner_id FROM accounts WHERE owner_id LIKE 'ft%'")
    return {str(owner).partition(":")[0] for (owner,) in rows}


async def test_the_limit_of_a_token_that_ended_long_ago_goes_too(shop: Shop) -> None:
    long_ago = LATER - timedelta(days=limits.KEPT_DAYS)
    a_moment = timedelta(seconds=1)
    expired = await token(shop, expires_at=long_ago)
    revoked = await token(shop, expires_at=LATER + timedelta(days=9), revoked_at=long_ago)
    alive = {
        await token(shop),
        await token(shop, expires_at=long_ago + a_moment),
        await token(shop, revoked_at=long_ago + a_moment),
    }
    before, used_before = await audit(shop.database, full=False), await shown(shop)
    assert await limits.prune(shop.database, LATER) == 2
    assert await bounded(shop) == alive
    assert await shown(shop) == used_before  # an expired one is still in the list
    assert used_before[expired] == 40
    assert revoked not in used_before
    customer, owner_id = await shop.customer(1000), account_of(expired, "money", "total", THEN)
    await used(shop, customer, owner_id, 7)  # a row that comes still later
    assert (await shown(shop))[expired] == 47
    assert await limits.prune(shop.database, LATER) == 1
    assert (await shown(shop))[expired] == 47
    assert await bounded(shop) == alive
    found = await audit(shop.database)
    assert (found.differences, found.sound) == ((), True)
    assert found.spent_e10 == before.spent_e10 + 10
    assert await shop.ledger("provider:openai") == 5 * 40 + 7


async def test_an_ended_tokens_limit_with_an_open_lease_stays(shop: Shop) -> None:
    ended = await token(shop, revoked_at=THEN)
    owner_id = account_of(ended, "money", "total", THEN)
    await leased(shop, owner_id, 10)
    assert await limits.prune(shop.database, LATER) == 0
    await shop.give_back(owner_id, holder_id="hld_1")
    assert await limits.prune(shop.database, LATER) == 1
    async with shop.database.connection() as conn:
        row = await conn.fetchrow("SELECT spent_e10 FROM forward_tokens")
    assert row is not None
    assert row["spent_e10"] == 40
