"""Before a 402 the other workers give back what they do not use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from books_kit import NOW, Shop, make_books, open_shop, sound

from lava_proxy.books.bank import Books
from lava_proxy.books.leases import Hold, Refusal
from lava_proxy.core.clock import ManualClock
from lava_proxy.store.database import Database
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.upkeep import Upkeep


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await open_shop(database)


@asynccontextmanager
async def worker(database: Database, folder: Path) -> AsyncIterator[Books]:
    """A process's books with its loops, so that it hears the others."""
    books = make_books(database, ManualClock(start=NOW), folder, recall_wait_s=5.0)
    await books.open()
    upkeep = Upkeep(books, Metrics(["openai"]), lambda: None)
    upkeep.start()
    try:
        yield books
    finally:
        await upkeep.stop()
        await books.close()


async def take(books: Books, owner: str, amount_e10: int) -> Hold | Refusal:
    return await books.leases.hold(books.leases.account(owner), amount_e10, amount_e10, 0)


async def refilled(books: Books, owner: str) -> None:
    """Wait for the refill that a hold started in the background."""
    while (trip := books.leases.account(owner).trip) is not None:
        await trip


async def listening(database: Database, channels: int) -> None:
    """Wait until so many sessions listen: a word said before would be lost."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%listen'"
    for _ in range(500):
        async with database.connection() as conn:
            if await conn.fetchval(query) >= channels:
                return
        await asyncio.sleep(0.01)
    pytest.fail("nobody listens")


async def test_idle_credit_comes_back_for_a_call_elsewhere(
    database: Database, shop: Shop, tmp_path: Path
) -> None:
    owner = await shop.customer(1000)
    async with (
        worker(database, tmp_path / "a") as one,
        worker(database, tmp_path / "b") as two,
    ):
        await listening(database, 6)
        held = await take(one, owner, 900)
        assert isinstance(held, Hold)
        await refilled(one, owner)
        held.release(0)  # all of it is idle in the first worker now
        got = await take(two, owner, 600)
        assert isinstance(got, Hold)
        assert one.leases.account(owner).free_e10 == 0
        refused = await take(one, owner, 600)  # held this time, not idle: nothing comes back
        assert isinstance(refused, Refusal)
        got.release(0)
    await sound(database)
    assert sum(grant[0] for grant in await shop.grants(owner)) == 1000
