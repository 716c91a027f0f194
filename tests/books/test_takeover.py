"""A living process books what a dead one left beside it: once, and holding up nobody."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from books_kit import (
    NOW,
    UNIT_METER,
    Shop,
    fetch,
    insert_meter,
    make_books,
    make_call,
    open_shop,
    sound,
)

from lava_proxy.books import folder as module
from lava_proxy.books import replay
from lava_proxy.books.bank import Books
from lava_proxy.books.codec import encode_call
from lava_proxy.books.folder import abandoned, claim_folder, remove_folder
from lava_proxy.books.journal import Journal
from lava_proxy.books.replay import Replayed, take_one
from lava_proxy.core.clock import ManualClock
from lava_proxy.rules.settlement import Meter
from lava_proxy.store.database import Database
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.takeover import Takeover

CALLS = 40


@pytest.fixture
async def shop(database: Database) -> Shop:
    shop = await open_shop(database)
    await insert_meter(database, shop, UNIT_METER)
    return shop


async def _left(shop: Shop, data_dir: Path, name: str = "hld_dead", calls: int = CALLS) -> Path:
    """The folder of a process that died in the middle of so many calls, ten tokens each."""
    owner = await shop.customer(10**6)
    await shop.lease(owner, 5000, holder_id=name)
    journal = Journal(data_dir / "journals" / name, segment_bytes=65536)
    for number in range(calls):
        call = make_call(owner, shop=shop, request_id=f"{name}_{number}", holder_id=name)
        seq = journal.hold(encode_call(call))
        journal.sent(seq)
        journal.progress(seq, 0, 10, 0, 0)
    journal.close()
    return journal.folder


async def _books(database: Database, data_dir: Path) -> Books:
    books = make_books(database, ManualClock(start=NOW), data_dir)
    await books.open()
    return books


async def _take(books: Books, folder: Path) -> Replayed | None:
    return await take_one(folder, books.database, books.clock, books.prices, beside_calls=True)


async def test_what_a_dead_process_left_is_booked_by_a_living_one(
    shop: Shop, database: Database, tmp_path: Path
) -> None:
    books = await _books(database, tmp_path)
    folder = await _left(shop, tmp_path)
    await Takeover(books, Metrics([])).run_once()
    assert not folder.exists()
    assert books.journal.folder.exists()
    assert await shop.left_of(shop.owners[0], "hld_dead") == 0
    assert (await sound(database)).spent_e10 == CALLS * 10
    await books.close()


async def test_of_several_one_takes_it(shop: Shop, database: Database, tmp_path: Path) -> None:
    several = [await _books(database, tmp_path) for _ in range(3)]
    folders = [await _left(shop, tmp_path, f"hld_dead{n}") for n in range(3)]
    done = await asyncio.gather(*(_take(b, f) for f in folders for b in several))
    assert sum(one is not None for one in done) == len(folders)
    assert sum(one.booked for one in done if one is not None) == len(folders) * CALLS
    assert (await sound(database)).spent_e10 == len(folders) * CALLS * 10
    for books in several:
        await books.close()


@pytest.mark.parametrize("moment", ["before the lock", "behind it"])
async def test_a_folder_that_goes_meanwhile_is_not_made_again(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Somebody else had the lock, booked it and removed it, between our look and our lock."""
    folder = await _left(shop, tmp_path)
    if moment == "before the lock":
        remove_folder(folder)
    else:
        flock = fcntl.flock

        def late(fd: int, how: int) -> None:
            remove_folder(folder)
            flock(fd, how)

        monkeypatch.setattr(module.fcntl, "flock", late)
    assert claim_folder(folder) is None
    assert not folder.exists()


async def test_the_lock_goes_last(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of removing a folder, nobody reads what is left of it as the whole."""
    folder = await _left(shop, tmp_path)
    gone: list[str] = []
    unlink = Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        gone.append(path.name)
        unlink(path, missing_ok)

    def stopped(path: Path, ignore_errors: bool) -> None:
        gone.append(path.name)

    monkeypatch.setattr(Path, "unlink", noted)
    monkeypatch.setattr(shutil, "rmtree", stopped)
    remove_folder(folder)
    assert gone == ["00000001.journal", folder.name]
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert abandoned(tmp_path / "journals") == []


async def test_one_that_cannot_be_read_does_not_keep_the_others_waiting(
    shop: Shop, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer version ran here and died; it stays, and is told once."""
    books = await _books(database, tmp_path)
    newer = await _left(shop, tmp_path, "hld_a", calls=1)
    segment = newer / "00000001.journal"
    segment.write_bytes(b"LAVAJ999" + segment.read_bytes()[8:])
    folder = await _left(shop, tmp_path, "hld_b")
    takeover = Takeover(books, Metrics([]))
    await takeover.run_once()
    await takeover.run_once()
    assert segment.exists()
    assert not folder.exists()
    assert caplog.text.count("is left as it is") == 1
    fd = claim_folder(newer)
    assert fd is not None
    os.close(fd)
    await books.close()


async def test_damage_is_told_and_kept(shop: Shop, database: Database, tmp_path: Path) -> None:
    books = await _books(database, tmp_path)
    folder = await _left(shop, tmp_path)
    segment = folder / "00000001.journal"
    rotten = bytearray(segment.read_bytes())
    rotten[rotten.index(b"hld_dead_7")] ^= 1
    segment.write_bytes(rotten)
    metrics = Metrics([])
    await Takeover(books, metrics).run_once()
    assert (tmp_path / "journals-damaged" / "hld_dead" / "00000001.journal").exists()
    counted = metrics.registry.get_sample_value("lava_anomalies_total", {"kind": "journal_damaged"})
    assert counted == 1
    await books.close()


async def test_nothing_is_tried_while_the_database_is_away(
    shop: Shop, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = await _books(database, tmp_path)
    folder = await _left(shop, tmp_path, calls=1)
    monkeypatch.setattr(database.outage, "away", True)
    await Takeover(books, Metrics([])).run_once()
    assert folder.exists()
    monkeypatch.setattr(database.outage, "away", False)
    await Takeover(books, Metrics([])).run_once()
    assert not folder.exists()
    await books.close()


async def test_the_event_loop_goes_on(
    shop: Shop, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long journal is read beside streams that run: none waits for long."""
    books = await _books(database, tmp_path)
    owner = await shop.customer(10**6)
    journal = Journal(tmp_path / "journals" / "hld_dead", segment_bytes=2**21)
    call = make_call(owner, shop=shop, request_id="req_long", holder_id="hld_dead")
    seq = journal.hold(encode_call(call))
    journal.sent(seq)
    for number in range(40_000):
        journal.progress(seq, 0, number, 0, 0)
    journal.close()
    turns = 0
    read_after: list[int] = []
    meters = replay._meters

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def asked(*args: Any) -> dict[str, Meter]:  # the first thing behind the reading
        read_after.append(turns)
        return await meters(*args)

    monkeypatch.setattr(replay, "_meters", asked)
    turning = asyncio.create_task(turn())
    left = await _take(books, journal.folder)
    turning.cancel()
    assert left is not None
    assert left.booked == 1
    assert read_after[0] >= 40_000 // replay.RECORDS_AT_A_TIME
    assert replay.RECORDS_AT_A_TIME <= 500  # half a millisecond
    assert await fetch(database, "SELECT output_tokens FROM requests") == [(39_999,)]
    await books.close()
