"""A spend key's limits on two workers at once: never exceeded by what is spent and held together,
used to the last unit, and nobody is refused before the other worker was asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from books_kit import Shop, make_call, open_shop, row, sound, until
from pair_kit import pair, stop, take

from lava_proxy.books.bank import Books
from lava_proxy.books.holds import Holds
from lava_proxy.books.leases import Hold
from lava_proxy.rules.limits import SpendKey, Want
from lava_proxy.rules.settlement import Merchant
from lava_proxy.store.database import Database
from lava_proxy.store.ledger import announce_credit, recall_credit

AT = datetime(2026, 11, 29, 23, 59, tzinfo=UTC)
MONEY, REQUESTS = 3_000, 40


def _wants(shop: Shop) -> dict[str, Want]:
    """The two limits of a key."""
    key = SpendKey(
        spend_key_id=f"spk_of_{shop.merchant_id}",
        merchant=Merchant(shop.merchant_id, "m", None, False),
        status="active",
        request_shape="openai",
        allowed_models=None,
        allowed_providers=None,
        spend_limit_e10=MONEY,
        spend_cycle="daily",
        request_limit=REQUESTS,
        request_cycle="weekly",
        rate=None,
        expires_at=None,
    )
    return {want.kind: want for want in key.budgets(AT) if want.limit is not None}


@dataclass
class Race:
    """Calls with one limit on two workers, and the most that was ever spent and held."""

    shop: Shop
    want: Want
    least: int
    most: int
    cost_of: Callable[[int], int]
    """What a call that held so much costs."""
    held: int = 0
    spent: int = 0
    refused: list[Books] = field(default_factory=list)

    async def call(self, books: Books) -> bool:
        """One call from start to settlement; False when it was refused."""
        assert self.want.limit is not None
        account = books.leases.account(self.want.owner_id)
        account.limit = self.want.limit
        hold = await books.leases.hold(account, self.least, self.most, 0)
        if not isinstance(hold, Hold):
            self.refused.append(books)
            return False
        self.held += hold.amount_e10
        assert self.spent + self.held <= self.want.limit.amount  # type: ignore[operator]
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        self.settle(books, hold)
        return True

    def settle(self, books: Books, hold: Hold) -> None:
        cost = self.cost_of(hold.amount_e10)
        self.held -= hold.amount_e10
        self.spent += cost
        call = make_call(self.shop.merchant_id, shop=self.shop, customer=False, by=None)
        budgets = ((self.want.kind, self.want.owner_id),)
        call = replace(call, holder_id=books.journal.holder_id, budgets=budgets)
        outcome = "completed" if cost else "void"
        made = row(self.shop.merchant_id, shop=self.shop, cost_e10=cost, outcome=outcome)
        holds = Holds()
        holds.add(self.want.kind, hold)
        books.settle(books.admit(call), replace(made, call=call), holds, 0)

    async def until_refused(self, books: Books) -> None:
        while await self.call(books):
            await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["money", "requests"])
async def test_two_workers_at_once(kind: str, database: Database, tmp_path: Path) -> None:
    shop = await open_shop(database)
    want = _wants(shop)[kind]
    random.seed(7)
    if kind == "money":
        race = Race(shop, want, 10, 120, lambda held: random.choice((0, 7, held // 2, held)))
    else:
        race = Race(shop, want, 1, 1, lambda held: random.choice((0, 1)))
    first, second, tasks = await pair(database, tmp_path, refusal_cache_s=0.01)
    both = (first, second)
    await asyncio.gather(*(race.until_refused(books) for books in both for _ in range(5)))
    while True:  # what others held when these were refused may have come back since
        for books in both:
            await books.writer.flush()
            books.leases.credit_changed(want.owner_id)
        if not await race.call(random.choice(both)):
            break
    assert race.held == 0
    limit = want.limit.amount if want.limit else 0
    assert limit is not None
    assert limit - race.least < race.spent <= limit
    await stop(*both, tasks=tasks)
    assert await shop.grants(want.owner_id) == [(limit - race.spent, 0, race.spent, 0, 0)]
    await sound(database)


async def test_a_refusal_comes_after_a_recall(database: Database, tmp_path: Path) -> None:
    """What lies idle at the other worker is asked for first; only what it holds is refused."""
    shop = await open_shop(database)
    first, second, tasks = await pair(database, tmp_path, refusal_cache_s=0.0)
    asked: list[str] = []
    recall = second.leases._recall
    assert recall is not None

    async def spy(owner_id: str) -> None:
        asked.append(owner_id)
        await recall(owner_id)

    second.leases._recall = spy
    for kind, all_of_it in (("money", MONEY), ("requests", REQUESTS)):
        want = _wants(shop)[kind]
        owner, limit = want.owner_id, want.limit
        assert limit is not None
        hold = await take(first, owner, limit, all_of_it)
        assert hold is not None
        assert await take(second, owner, limit) is None
        assert asked.pop() == owner  # it holds all of it: asked, and refused
        hold.release(0)
        assert first.leases.account(owner).free_e10 == all_of_it  # idle there
        whole = await take(second, owner, limit, all_of_it)
        assert whole is not None
        assert asked.pop() == owner
        whole.release(0)
        assert asked == []
    await stop(first, second, tasks=tasks)


async def test_a_smaller_limit_holds_for_what_lies_idle(database: Database, tmp_path: Path) -> None:
    """As the API changes one: workers are asked for what they do not use."""
    shop = await open_shop(database)
    first, second, tasks = await pair(database, tmp_path, refusal_cache_s=60.0)
    want = _wants(shop)["money"]
    assert want.limit is not None
    hold = await take(first, want.owner_id, want.limit, 1000)
    assert hold is not None
    assert await take(second, want.owner_id, want.limit, MONEY) is None
    hold.release(0)
    less = replace(want.limit, amount=400)
    async with database.transaction() as conn:
        await recall_credit(conn, want.owner_id, "")
        await announce_credit(conn, want.owner_id)
    account = second.leases.account(want.owner_id)
    await until(lambda: account.refused is None)
    while (await shop.grants(want.owner_id))[0][1]:  # what is leased
        await asyncio.sleep(0.005)
    assert await take(second, want.owner_id, less, 401) is None
    second.leases.credit_changed(want.owner_id)
    assert await take(second, want.owner_id, less, 400) is not None
    await stop(first, second, tasks=tasks)
