"""Limits are accounts like customers' credit: two workers on one database never exceed them, a
denial comes only after a recall, all that was not used comes back, and a journal keeps them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import orjson
from books_kit import make_books, make_call, open_shop, row, sound
from hypothesis import given
from hypothesis import strategies as st
from pair_kit import pair, stop, take

from lava_proxy.books.bank import Books
from lava_proxy.books.codec import decode_call, encode_call
from lava_proxy.books.holds import Holds
from lava_proxy.books.leases import Hold
from lava_proxy.core.clock import SystemClock
from lava_proxy.rules.bucket import E6, refill
from lava_proxy.rules.limits import Limit, Rate
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.database import Database

KEY = "spk_1:requests:2026-11"


async def test_two_workers_share_a_limit_to_the_last_unit(
    database: Database, tmp_path: Path
) -> None:
    shop = await open_shop(database)
    first, second, tasks = await pair(database, tmp_path)
    owner = f"{shop.merchant_id}:{KEY}"
    limit = Limit(shop.merchant_id, 20)
    held: list[tuple[Books, Hold]] = []

    async def one(books: Books) -> None:
        hold = await take(books, owner, limit)
        if hold is not None:
            held.append((books, hold))

    for _ in range(10):
        await asyncio.gather(*(one(books) for books in (first, second) for _ in range(2)))
        await asyncio.sleep(0)
    for books in (first, second):  # the last ones may lie idle at the other worker
        books.leases.credit_changed(owner)
        while (hold := await take(books, owner, limit)) is not None:
            held.append((books, hold))
    assert len(held) == 20
    used = 0
    for place, (books, hold) in enumerate(held):
        call = replace(
            make_call(shop.merchant_id, shop=shop, customer=False, by=None),
            holder_id=books.journal.holder_id,
            budgets=(("requests", owner),),
        )
        outcome = "void" if place % 4 == 0 else "completed"
        done = replace(row(shop.merchant_id, shop=shop, outcome=outcome), call=call)
        holds = Holds()
        holds.add("requests", hold)
        books.settle(books.admit(call), done, holds, 0)
        used += outcome == "completed"
    await stop(first, second, tasks=tasks)
    assert await shop.grants(owner) == [(20 - used, 0, used, 0, 0)]
    await sound(database)


async def test_two_workers_never_run_more_at_once_than_the_limit(
    database: Database, tmp_path: Path
) -> None:
    """Calls in flight are never spent: each slot comes back, to whichever worker asks."""
    shop = await open_shop(database)
    both = await pair(database, tmp_path)
    owner, limit = f"{shop.merchant_id}:open", Limit(shop.merchant_id, 5)
    rng, running, most, refused = random.Random(5), 0, 0, 0

    async def one(books: Books) -> None:
        nonlocal running, most, refused
        await asyncio.sleep(rng.uniform(0, 0.5))
        books.leases.credit_changed(owner)
        hold = await take(books, owner, limit)
        if hold is None:
            refused += 1
            return
        running += 1
        most = max(most, running)
        await asyncio.sleep(rng.choice((0.001, 0.02)))
        running -= 1
        hold.release(0)

    await asyncio.gather(*(one(books) for books in both[:2] for _ in range(100)))
    assert most == 5
    assert 0 < refused < 150
    await stop(*both[:2], tasks=both[2])
    assert await shop.grants(owner) == [(5, 0, 0, 0, 0)]
    await sound(database)


async def test_a_limit_is_raised_shrunk_and_overspent_without_losing_count(
    database: Database,
) -> None:
    shop = await open_shop(database)
    owner = f"{shop.merchant_id}:money"

    def used(cost_e10: int, holder_id: str = "hld_x") -> Settlement:
        done = row(shop.merchant_id, shop=shop, by=None, customer=False, cost_e10=cost_e10)
        call = replace(done.call, budgets=(("money", owner),), holder_id=holder_id)
        return replace(done, call=call)

    (booked,) = await shop.settle(used(30))  # before anybody leased: recorded all the same
    assert booked.drawn == (0,)
    assert await shop.grants(owner) == [(0, 0, 30, 0, 0)]
    books_limit = Limit(shop.merchant_id, 100)
    await _lease(shop.database, owner, books_limit, 10, shop)
    assert await shop.grants(owner) == [(60, 10, 30, 0, 0)]
    await shop.settle(used(90))  # 60 are free; the rest is beyond
    assert await shop.grants(owner) == [(0, 10, 120, 0, 0)]
    await shop.give_back(owner)
    assert await _lease(shop.database, owner, books_limit, 1, shop) == 0
    assert await shop.grants(owner) == [(0, 0, 120, 0, 0)]
    assert await _lease(shop.database, owner, Limit(shop.merchant_id, 150), 30, shop) == 30
    await sound(database)


async def _lease(database: Database, owner: str, limit: Limit, amount: int, shop: object) -> int:
    from lava_proxy.core.ids import new_id
    from lava_proxy.store import credit
    from lava_proxy.store.credit import LeaseAsk

    ask = LeaseAsk(new_id("lease"), owner, "hld_test", amount, amount, 0, 0, 300.0, limit)
    async with database.transaction() as conn:
        return (await credit.lease(conn, ask, SystemClock().now())).amount_e10


async def test_two_workers_share_a_rate(database: Database, tmp_path: Path) -> None:
    first, second, tasks = await pair(database, tmp_path)
    owner, rate = f"spk:rate:{tmp_path}", Rate(60, 12)
    started = 0
    for _ in range(12):
        for books in (first, second):
            started += not isinstance(await books.rates.take(owner, rate), float)
    assert 12 <= started <= 14  # the bucket fills by one each second
    wait_s = await first.rates.take(owner, rate)
    assert isinstance(wait_s, float)
    assert 0 < wait_s <= 1
    await stop(first, second, tasks=tasks)


async def test_a_permit_given_back_is_taken_again(database: Database, tmp_path: Path) -> None:
    books = make_books(database, SystemClock(), tmp_path)
    await books.open()
    owner, rate = f"spk:back:{tmp_path}", Rate(1, 1)
    permit = await books.rates.take(owner, rate)
    assert not isinstance(permit, float)
    permit.give_back()
    assert not isinstance(await books.rates.take(owner, rate), float)
    assert isinstance(await books.rates.take(owner, rate), float)
    await books.close()


@given(
    st.integers(1, 600),
    st.integers(1, 20),
    st.lists(st.integers(0, 5_000_000), max_size=20),
    st.integers(0, 5_000_000),
)
def test_tokens_and_permits_never_exceed_the_capacity(
    rpm: int, capacity: int, ages: list[int], age_us: int
) -> None:
    rate, out = Rate(rpm, capacity), min(capacity, len(ages))
    tokens, left = refill((capacity - out) * E6, out, age_us, ages[:out], rate)
    assert left == 0
    assert 0 <= tokens <= (capacity - left) * E6
    most_us = sum(min(age, age_us) for age in ages[:out])
    assert tokens <= (capacity - out) * E6 + rpm * most_us // 60 + out


def test_a_journal_of_the_version_before_is_read() -> None:
    call = replace(make_call("con_1", shop="mer_1"), budgets=(("money", "spk_1:money:2026-11"),))
    facts = encode_call(call)
    assert decode_call(facts, call.holder_id, call.meter) == call
    old = orjson.dumps(orjson.loads(facts)[:16])
    assert decode_call(old, call.holder_id, call.meter) == replace(call, budgets=())
