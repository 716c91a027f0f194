"""A process stands still while it renews its leases, the database takes them back, and it goes on:
nothing may be opened or sent on money that is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from books_kit import NOW, make_books, open_shop, sound

from lava_proxy.books.leases import Hold
from lava_proxy.core.clock import ManualClock
from lava_proxy.store import credit
from lava_proxy.store.database import Database
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.upkeep import Upkeep

STOPPED_S = 155.0
"""Past what is left of the leases, their grace and the reclaim time, less than a whole lease."""


@pytest.mark.parametrize("within", ["the first one's", "its own"])
async def test_what_was_taken_back_meanwhile_stays_over(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    shop, clock = await open_shop(database), ManualClock(start=NOW)
    owners = [await shop.customer(1000) for _ in range(2)]
    books = make_books(database, clock, tmp_path)
    await books.open()
    holds = [await books.leases.hold(books.leases.account(o), 10, 10, 0) for o in owners]
    await books.leases.close()
    clock.advance(300 - 5)  # the loop was late
    plain, victim = credit.renew, owners[1]

    async def renew(conn: Any, owner_id: str, *more: Any) -> Any:
        done = None if within == "its own" else await plain(conn, owner_id, *more)
        if (owner_id == victim) == (within == "its own"):  # SIGSTOP
            clock.advance(STOPPED_S)
            await shop.give_back(victim, holder_id=books.journal.holder_id)  # the reaper
        return await plain(conn, owner_id, *more) if done is None else done

    monkeypatch.setattr(credit, "renew", renew)
    await Upkeep(books, Metrics(["openai"]), lambda: None).keep_leases()
    monkeypatch.setattr(credit, "renew", plain)
    account, hold = books.leases.account(victim), holds[1]
    assert isinstance(hold, Hold)
    assert books.leases.try_hold(account, 1, 0) is None
    assert not hold.covered_at(clock.boot_s())
    assert not hold.extend(1)
    again = await books.leases.hold(account, 50, 50, 0)
    assert isinstance(again, Hold)
    await asyncio.sleep(0)
    await books.leases.close()
    assert account.claims_e10 <= await shop.left_of(victim, books.journal.holder_id)
    for one in (*holds, again):
        assert isinstance(one, Hold)
        one.release(0)
    await books.close()
    assert (await sound(database)).leased_e10 == 0
