"""The ledger writer: batches, outages, poison, commits of unknown fate, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from books_kit import NOW, UNIT_METER, Shop, fetch, meter, open_shop, row, sound, until

from lava_proxy.books import writer as module
from lava_proxy.books.writer import Item, Writer
from lava_proxy.core.clock import ManualClock
from lava_proxy.core.errors import LavaError
from lava_proxy.rules.settlement import Booked, Settlement
from lava_proxy.store.database import (
    Connection,
    Database,
    StoreBroken,
    StoreConflict,
    StoreDown,
)
from lava_proxy.store.settle import settle

CLOCK = ManualClock(start=NOW)


class Desk:
    """A writer with a memory of what it said."""

    def __init__(self, database: Database, **limits: int) -> None:
        self.booked: list[tuple[Item, Booked]] = []
        self.flushed: list[int] = []
        self.writer = Writer(
            database,
            CLOCK,
            interval_s=0.001,
            batch_rows=limits.get("batch_rows", 8),
            queue_rows=limits.get("queue_rows", 100),
            on_booked=self.booked.extend,
            on_flush=lambda rows, seconds: self.flushed.append(rows),
            catch_up_rows_s=limits.get("catch_up_rows_s", 100_000),
        )
        self.task: asyncio.Task[None] | None = None

    def put(self, *rows: Settlement) -> list[Item]:
        items = [Item(made, n, 10, CLOCK.boot_s()) for n, made in enumerate(rows)]
        for item in items:
            self.writer.put(item)
        return items

    def start(self) -> None:
        self.task = asyncio.create_task(self.writer.run())

    async def close(self) -> None:
        self.writer.close()
        if self.task is not None:
            await asyncio.wait_for(self.task, 10)

    @property
    def fresh(self) -> dict[str, Booked]:
        return {b.request_id: b for _, b in self.booked if b.fresh}


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await open_shop(database)


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    made = Desk(database)
    yield made
    await made.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "RETRY_MOST_S", 0.01)


Settle = Callable[..., object]


def faulty(monkeypatch: pytest.MonkeyPatch, *faults: Exception | None) -> list[int]:
    """Each attempt meets the next fault (None: none), then all is well; sizes of the attempts."""
    left = list(faults)
    sizes: list[int] = []

    async def instead(conn: Connection, batch: list[Settlement], now: object) -> list[Booked]:
        sizes.append(len(batch))
        fault = left.pop(0) if left else None
        if fault is not None:
            raise fault
        return await settle(conn, batch, NOW)

    monkeypatch.setattr(module, "settle", instead)
    return sizes


# Batches ---------------------------------------------------------------------------------------


async def test_rows_are_booked_in_batches_and_in_order(shop: Shop, desk: Desk) -> None:
    owner = await shop.customer(10**6)
    rows = [row(owner, 1, shop=shop) for _ in range(20)]
    desk.put(*rows)
    assert desk.writer.depth == 20
    desk.start()
    await desk.writer.flush()
    # Two batches are under way at once, so either may be committed first; each is whole, in order.
    booked = [item.settlement for item, _ in desk.booked]
    batches = []
    for size in desk.flushed:
        batches.append(booked[:size])
        booked = booked[size:]
    batches.sort(key=lambda batch: rows.index(batch[0]))
    assert batches == [rows[:8], rows[8:16], rows[16:]]
    assert desk.writer.depth == 0
    assert desk.writer.age_s() == 0
    assert (await sound(shop.database)).requests == 20


async def test_a_single_row_does_not_wait_for_company(shop: Shop, desk: Desk) -> None:
    owner = await shop.customer(100)
    desk.start()
    for _ in range(3):
        desk.put(row(owner, 1, shop=shop))
        await desk.writer.flush()
    assert desk.flushed == [1, 1, 1]


async def test_age_and_depth(shop: Shop, desk: Desk) -> None:
    desk.put(row("con_1", 1, shop=shop))
    CLOCK.advance(5)
    assert desk.writer.age_s() == 5
    assert desk.writer.depth == 1
    desk.writer._queue.clear()


async def test_closing_books_what_is_queued(shop: Shop, database: Database) -> None:
    owner = await shop.customer(100)
    desk = Desk(database)
    desk.put(*[row(owner, 1, shop=shop) for _ in range(11)])
    desk.start()
    await desk.close()
    assert len(desk.fresh) == 11
    with pytest.raises(LavaError, match="unavailable"):  # too late: nobody writes any more
        await desk.writer.book(row(owner, 1, shop=shop))


# Reports ---------------------------------------------------------------------------------------


async def test_a_report_waits_for_its_commit(shop: Shop, desk: Desk) -> None:
    owner = await shop.customer(1000)
    desk.start()
    report = row(owner, 7, shop=shop, content_hash=b"h")
    booked = await desk.writer.book(report)
    assert (booked.fresh, booked.charge_e10) == (True, 7)
    assert (await desk.writer.book(report)).fresh is False
    many = await asyncio.gather(*(desk.writer.book(report) for _ in range(20)))
    assert not any(b.fresh for b in many)
    assert await shop.grants(owner) == [(993, 0, 7, 0, 0)]


async def test_a_full_queue_refuses_reports_but_takes_calls(shop: Shop, database: Database) -> None:
    owner = await shop.customer(1000)
    desk = Desk(database, queue_rows=3)
    desk.put(*[row(owner, 1, shop=shop) for _ in range(2)])
    assert not desk.writer.full
    desk.put(*[row(owner, 1, shop=shop) for _ in range(2)])
    assert desk.writer.full
    with pytest.raises(LavaError) as refused:
        await desk.writer.book(row(owner, 1, shop=shop))
    assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
    desk.start()
    await desk.close()
    assert len(desk.fresh) == 4


async def test_a_caller_who_leaves_does_not_stop_its_report(shop: Shop, desk: Desk) -> None:
    owner = await shop.customer(1000)
    asking = asyncio.create_task(desk.writer.book(row(owner, 7, shop=shop)))
    await asyncio.sleep(0)
    asking.cancel()
    desk.start()
    await desk.writer.flush()
    assert await shop.grants(owner) == [(993, 0, 7, 0, 0)]


# Outages ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
async def test_the_same_rows_are_tried_until_the_database_is_back(
    shop: Shop, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await shop.customer(1000)
    sizes = faulty(
        monkeypatch, StoreDown("away"), StoreConflict("busy"), StoreDown("away"), StoreDown("away")
    )
    desk.put(*[row(owner, 1, shop=shop) for _ in range(3)])
    desk.start()
    await until(lambda: len(sizes) > 1)
    assert desk.writer.failing_since_s == CLOCK.boot_s()
    assert desk.writer.depth == 3  # nothing leaves the queue before its commit
    await desk.writer.flush()
    assert desk.writer.failing_since_s is None
    assert sizes == [3] * 5
    assert len(desk.fresh) == 3
    await sound(shop.database)


@pytest.mark.usefixtures("quick")
async def test_connections_that_die_under_it(shop: Shop, desk: Desk, database_url: str) -> None:
    """Backends are terminated while batches are written; every row is booked once."""
    owner = await shop.customer(10**6)
    axe = await asyncpg.connect(database_url)
    desk.start()
    try:
        for _ in range(8):
            desk.put(*[row(owner, 1, shop=shop) for _ in range(20)])
            await asyncio.sleep(0.002)
            await axe.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        async with asyncio.timeout(20):
            await desk.writer.flush()
    finally:
        await axe.close()
    assert len(desk.fresh) == 160
    assert len(desk.booked) == 160
    assert await shop.grants(owner) == [(10**6 - 160, 0, 160, 0, 0)]
    await sound(shop.database)


@pytest.mark.usefixtures("quick")
async def test_a_commit_of_unknown_fate_is_booked_once_and_told_exactly(
    shop: Shop, desk: Desk, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit happened, its answer was lost: the second attempt finds the rows booked, and the
    leases hear what the first one took."""
    owner = await shop.customer(1000)
    await shop.lease(owner, 25)
    replies = iter([True, True, False])

    @asynccontextmanager
    async def losing(timeout_s: float = 1.0) -> AsyncIterator[Connection]:
        async with whole() as conn:
            yield conn
        if next(replies, False):
            raise StoreDown("the connection is gone")

    whole = database.transaction
    monkeypatch.setattr(database, "transaction", losing)
    desk.put(*[row(owner, 10, shop=shop) for _ in range(3)])
    desk.start()
    await desk.writer.flush()
    assert [(b.fresh, b.charge_e10, b.leased_e10) for _, b in desk.booked] == [
        (True, 10, 10),
        (True, 10, 10),
        (True, 10, 5),
    ]
    assert await shop.grants(owner) == [(970, 0, 30, 0, 0)]
    assert (await sound(shop.database)).requests == 3


# Poison ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad_at", [(0,), (7,), (3, 4), (0, 1, 2, 3, 4, 5, 6, 7)])
async def test_poison_is_set_apart_and_its_neighbours_are_booked(
    shop: Shop, desk: Desk, bad_at: tuple[int, ...]
) -> None:
    owner = await shop.customer(1000)
    rows = [row(owner, 1, shop=shop, model="nul\0" if n in bad_at else "m") for n in range(8)]
    desk.put(*rows)
    desk.start()
    await desk.writer.flush()
    bad = {made.call.request_id for n, made in enumerate(rows) if n in bad_at}
    assert len(desk.fresh) == len(desk.booked) == 8  # all are charged
    assert {b.request_id for _, b in desk.booked if b.quarantined} == bad
    kept = await fetch(shop.database, "SELECT request_id, error, state FROM quarantine")
    assert {str(request_id) for request_id, *_ in kept} == bad
    assert all(error and state == "booked" for _, error, state in kept)
    assert (await sound(shop.database)).spent_e10 == 8
    assert desk.writer.stopped is None


POISON: list[dict[str, Any]] = [
    {"model": "\ud800"},
    {"metadata": {"half": "\udc00"}},
    {"tokens": 2**63, "billable": False},
    {"tokens": 2**90, "billable": False},
    {"tokens": 10**18, "by": meter((0, 10**18))},
    {"status": "no such status"},
    {"owner_id": "con_nobody"},
]


async def test_whatever_the_poison_the_writer_goes_on(shop: Shop, desk: Desk) -> None:
    owner = await shop.customer(1000)
    odd = [row(**{"owner_id": owner, "shop": shop, **bad}) for bad in POISON]
    desk.put(row(owner, 1, shop=shop), *odd, row(owner, 2, shop=shop))
    desk.start()
    await desk.writer.flush()
    assert desk.writer.stopped is None
    assert len(desk.fresh) == 4  # those whose text is the poison are charged all the same
    assert not desk.fresh.keys() & {made.call.request_id for made in odd[2:]}
    kept = dict(await fetch(shop.database, "SELECT request_id, settlement FROM quarantine"))
    assert set(kept) == {made.call.request_id for made in odd}
    for request_id, settlement in kept.items():
        assert isinstance(settlement, bytes)
        assert str(request_id).encode() in settlement
    await sound(shop.database)


async def test_a_poisoned_report_is_the_reporters_fault(shop: Shop, desk: Desk) -> None:
    owner = await shop.customer(1000)
    desk.start()
    with pytest.raises(LavaError) as refused:
        await desk.writer.book(row(owner, 1, shop=shop, model="nul\0"))
    assert refused.value.status == 422
    assert await fetch(shop.database, "SELECT 1 FROM quarantine") == []
    assert (await desk.writer.book(row(owner, 1, shop=shop))).fresh


@pytest.mark.usefixtures("quick")
async def test_an_outage_in_the_middle_of_a_bisection(
    shop: Shop, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was booked before it is not told twice."""
    owner = await shop.customer(1000)
    rows = [row(owner, 1, shop=shop, model="nul\0" if n == 6 else "m") for n in range(8)]
    faulty(monkeypatch, None, None, StoreDown("away"), None, StoreDown("away"))
    desk.put(*rows)
    desk.start()
    await desk.writer.flush()
    assert len(desk.booked) == 8
    assert len({item.seq for item, _ in desk.booked}) == 8
    assert len(desk.fresh) == 8
    assert (await sound(shop.database)).requests == 8


# Defects ---------------------------------------------------------------------------------------


async def test_a_defect_stops_the_writer_and_frees_all_who_wait(
    shop: Shop, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await shop.customer(1000)
    faulty(monkeypatch, StoreBroken("no such column"))
    desk.put(*[row(owner, 1, shop=shop, by=UNIT_METER) for _ in range(10)])
    waiting = asyncio.create_task(desk.writer.book(row(owner, 1, shop=shop)))  # a batch behind
    await asyncio.sleep(0)
    desk.start()
    with pytest.raises(LavaError, match="stopped"):
        async with asyncio.timeout(5):
            await waiting
    assert desk.writer.stopped == "StoreBroken: no such column"
    assert desk.writer.depth == 11
    with pytest.raises(LavaError, match="unavailable"):
        await desk.writer.book(row(owner, 1, shop=shop))
    desk.put(row(owner, 1, shop=shop))
    async with asyncio.timeout(5):
        await desk.writer.flush()  # nothing to wait for any more
    assert (await sound(shop.database)).requests == 0
