"""The routine for late prices: mistakes may be taken back first, and one process has the turn."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from books_kit import NOW, Shop, fetch, insert_meter, make_books, open_shop, sound
from late_kit import PASSED_ON, priced, unpriced

from lava_proxy.core.clock import ManualClock
from lava_proxy.store.database import Database
from lava_proxy.store.reratings import turn
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers import rerater
from lava_proxy.workers.rerater import Rerater
from lava_proxy.workers.upkeep import Upkeep


async def waiting(shop: Shop) -> int:
    [(count,)] = await fetch(shop.database, "SELECT count(*)::int FROM unrated_requests")
    assert isinstance(count, int)
    return count


async def test_it_corrects_by_itself_what_has_a_price_for_long_enough(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await open_shop(database)
    await insert_meter(database, shop, PASSED_ON)
    owner = await shop.customer(1)
    await shop.settle(*[unpriced(shop, owner) for _ in range(9)])
    clock = ManualClock(start=NOW)
    books = make_books(database, clock, tmp_path, rerate_after_s=600.0)
    first, second = Rerater(books), Rerater(books)
    assert await first.run_once() == 0  # nobody knows a price
    version = await priced(shop, "1", since=NOW - timedelta(days=1), known_at=NOW)
    clock.advance(599)
    assert await first.run_once() == 0  # it may still be a mistake
    clock.advance(1)
    async with turn(database) as ours:
        assert ours
        assert await first.run_once() == 0  # it is somebody else's turn
    monkeypatch.setattr(rerater, "ROWS_MAX", 4)  # a round is bounded
    assert await first.run_once() == 4
    done = await asyncio.gather(first.run_once(), second.run_once())
    assert sum(done) in (4, 5)
    assert await first.run_once() + sum(done) == 5
    assert await waiting(shop) == 0
    assert books.spent_free == {owner}  # whose auto top-up may be due now
    versions = await fetch(database, "SELECT DISTINCT price_version FROM reratings")
    assert versions == [(version,)]
    await sound(database)
    books.journal.close()


async def test_it_can_be_turned_off(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = make_books(database, ManualClock(start=NOW), tmp_path, rerate_interval_s=0.0)
    made: list[object] = []
    monkeypatch.setattr("lava_proxy.workers.upkeep.Rerater", made.append)
    upkeep = Upkeep(books, Metrics(["openai"]), lambda: None)
    upkeep.start()
    await asyncio.sleep(0)  # every loop has begun
    await upkeep.stop()
    assert made == []
    books.journal.close()
