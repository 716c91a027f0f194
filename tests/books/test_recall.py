"""Before a 402 the other workers give back what they do not use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from books_kit import NOW, Shop, make_books, open_shop, sound

from lava_proxy.books import recall
from lava_proxy.books.bank import Books
from lava_proxy.books.leases import Hold, Refusal
from lava_proxy.core.clock import ManualClock
from lava_proxy.store import credit
from lava_proxy.store.database import Database
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.upkeep import WORK_CHANNEL, Upkeep


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


async def listening(database: Database, workers: int) -> None:
    """Wait until so many listen to their last channel: a word said before would be lost."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%listen' "
        f"AND state = 'idle' AND query LIKE 'LISTEN%{WORK_CHANNEL}%'"
    )
    for _ in range(500):
        async with database.connection() as conn:
            if await conn.fetchval(query) >= workers:
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
        await listening(database, 2)
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


@pytest.mark.parametrize("frozen", ["before it asks", "before it acts"])
async def test_what_stood_still_on_its_way_back_takes_nothing_of_a_newer_lease(
    database: Database,
    shop: Shop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    frozen: str,
) -> None:
    """A process stops in the middle of giving back, for longer than its leases last. When it wakes
    a call may be faster than what it was at."""
    owner = await shop.customer(10_000)
    clock = ManualClock(start=NOW)
    books = make_books(database, clock, tmp_path)
    await books.open()
    held = await take(books, owner, 900)
    assert isinstance(held, Hold)
    await refilled(books, owner)
    held.release(0)
    stands, wakes = asyncio.Event(), asyncio.Event()
    give_back, transaction = credit.give_back, database.transaction

    async def late(*args: Any) -> int:
        stands.set()
        await wakes.wait()
        return await give_back(*args)

    @asynccontextmanager
    async def late_transaction() -> AsyncIterator[Any]:
        monkeypatch.setattr(database, "transaction", transaction)
        stands.set()
        await wakes.wait()
        async with transaction() as conn:
            yield conn

    if frozen == "before it acts":  # no lock yet: a session that idles with one is ended
        monkeypatch.setattr(recall.credit, "give_back", late)
    else:
        monkeypatch.setattr(database, "transaction", late_transaction)
    answering = asyncio.create_task(books.recalls.answer(books.leases, f"{owner} hld_other"))
    await stands.wait()
    monkeypatch.setattr(recall.credit, "give_back", give_back)
    clock.advance(1000)
    await shop.give_back(owner, holder_id=books.journal.holder_id)  # the reaper
    taking = asyncio.create_task(take(books, owner, 700))
    for _ in range(20):
        await asyncio.sleep(0.01)
    wakes.set()
    await answering
    got = await taking
    assert isinstance(got, Hold)
    await refilled(books, owner)
    account = books.leases.account(owner)
    assert account.claims_e10 == await shop.left_of(owner, books.journal.holder_id)
    got.release(0)
    await books.close()
    await sound(database)


async def test_who_fetches_just_now_is_asked_behind_that(
    database: Database, shop: Shop, tmp_path: Path
) -> None:
    owner = await shop.customer(10_000)
    books = make_books(database, ManualClock(start=NOW), tmp_path)
    await books.open()
    held = await take(books, owner, 900)
    assert isinstance(held, Hold)
    account = books.leases.account(owner)
    assert account.trip is not None  # the refill
    await books.recalls.answer(books.leases, f"{owner} hld_other")
    assert (account.free_e10, account.held_e10) == (0, 900)
    assert await shop.left_of(owner, books.journal.holder_id) == 900
    held.release(0)
    await books.close()
    await sound(database)
