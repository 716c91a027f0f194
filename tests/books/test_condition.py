"""The table of states, from what can be seen; the writer's way back after an outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from books_kit import NOW, make_books, open_shop, row

from lava_proxy.books.bank import Books
from lava_proxy.books.condition import LOOK_S
from lava_proxy.core.clock import ManualClock
from lava_proxy.core.errors import LavaError
from lava_proxy.store.database import Database
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.upkeep import Upkeep

LEASE_S = 300.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=NOW)


@pytest.fixture
async def books(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Books]:
    made = make_books(
        database,
        clock,
        tmp_path,
        lease_s=LEASE_S,
        writer_queue_rows=10,
        journal_segment_bytes=2**16,
        journal_limit_bytes=2**18,
    )
    yield made
    made.journal.close()


def refused(books: Books) -> tuple[bool, bool]:
    """(any new call, a prepaid one), each with Retry-After."""
    answers: list[LavaError | None] = []
    for check in (books.condition.refuse_if_closed, books.condition.refuse_prepaid_if_draining):
        try:
            check()
            answers.append(None)
        except LavaError as error:
            answers.append(error)
    for answer in filter(None, answers):
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
    return answers[0] is not None, answers[1] is not None


async def test_the_queue(books: Books) -> None:
    for rows, state in ((8, "normal"), (1, "drain"), (1, "closed")):
        for _ in range(rows):
            books.record(row("mer_1", shop="mer_1", customer=False))
        assert books.condition.state() == state
        assert refused(books) == (state == "closed", state == "drain")


async def test_the_journal(books: Books) -> None:
    journal, seen = books.journal, []
    calls = []
    while books.condition.state() != "closed":
        calls.append(journal.hold(b"x" * 4000))
        if not seen or seen[-1] != books.condition.state():
            seen.append(books.condition.state())
            assert refused(books) == (seen[-1] == "closed", seen[-1] == "drain")
    assert seen == ["normal", "drain", "closed"]
    for seq in calls:
        journal.committed(seq)
    assert books.condition.state() == "normal"
    assert journal.kept_bytes == 0


async def test_leases_then_drain_when_all_are_over(books: Books, clock: ManualClock) -> None:
    condition, outage = books.condition, books.database.outage
    outage.away = True
    assert condition.state() == "leases"  # nobody has a lease: nothing is over
    account = books.leases.account("cus_1")
    account.expires_s = clock.boot_s() + LEASE_S
    clock.advance(LOOK_S + 1)
    assert condition.state() == "leases"
    clock.advance(LEASE_S)
    assert condition.state() == "drain"
    assert refused(books) == (False, True)
    outage.away = False
    assert condition.state() == "normal"


@pytest.mark.parametrize("fault", ["full", "failed"])
async def test_the_disk(books: Books, fault: str) -> None:
    setattr(books.journal, fault, "no")
    assert books.condition.state() == "closed"
    assert refused(books)[0]


async def test_a_journal_that_failed_is_told_once(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    metrics = Metrics(["openai"])
    upkeep = Upkeep(books, metrics, lambda: None, told.append)
    await upkeep.tend_journal()
    assert told == []
    books.journal.failed = "journal fsync: EIO"
    for _ in range(3):
        await upkeep.tend_journal()
        await upkeep.sweep()
    assert told == ["journal fsync: EIO"]
    assert caplog.text.count("must be replaced") == 1
    assert metrics.registry.get_sample_value("lava_journal_failed") == 1
    assert metrics.registry.get_sample_value("lava_books_state") == 3


async def test_idle_leases_are_kept_while_the_database_is_away(
    books: Books, clock: ManualClock
) -> None:
    account = books.leases.account("cus_1")
    account.free_e10, account.expires_s = 100, clock.boot_s() + LEASE_S
    clock.advance(60)
    books.database.outage.away = True
    await Upkeep(books, Metrics(["openai"]), lambda: None).keep_leases()
    assert account.free_e10 == 100


async def test_a_call_does_not_wait_for_a_database_that_hangs(
    database: Database, clock: ManualClock, tmp_path: Path
) -> None:
    """It gets what is there if that is enough, else 503, both in time."""
    books = make_books(database, clock, tmp_path, database_wait_s=0.05)

    async def hangs(*args: object) -> object:
        await asyncio.sleep(60)
        raise AssertionError

    books.leases._trip = hangs  # type: ignore[assignment]
    account = books.leases.account("cus_1")
    with pytest.raises(LavaError) as caught:
        await books.leases.hold(account, 100, 100, 0)
    assert caught.value.status == 503
    account.free_e10, account.expires_s = 60, clock.boot_s() + LEASE_S
    hold = await books.leases.hold(account, 50, 100, 0)
    assert hold.amount_e10 == 60  # type: ignore[union-attr]
    for task in books.leases._tasks:
        task.cancel()
    books.journal.close()


async def test_after_an_outage_rows_are_booked_at_a_capped_rate(
    database: Database, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause for what was booked (two batches: one was under way beside the first) while there is
    a whole batch more, none when all is booked."""
    shop = await open_shop(database)
    books = make_books(database, clock, tmp_path, writer_batch_rows=10, writer_catch_up_rows_s=40)
    outage, pauses = database.outage, []
    whole = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await whole(0)

    await books.open()
    outage.away = True
    outage._answering.clear()
    for _ in range(35):
        books.record(row(shop.merchant_id, shop=shop, customer=False))
    report = asyncio.create_task(
        books.writer.book(row(shop.merchant_id, shop=shop, customer=False))
    )
    with pytest.raises(LavaError) as caught:
        await report
    assert caught.value.status == 503
    monkeypatch.setattr("lava_proxy.books.writer.asyncio.sleep", noted)
    outage.away = False
    outage._answering.set()
    await books.writer.flush()
    assert pauses.count(20 / 40) == 1  # jitter is among the others
    monkeypatch.undo()
    await books.close()
