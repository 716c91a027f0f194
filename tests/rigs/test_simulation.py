"""Deterministic simulation: the real Books of two workers (leases, holds, journal, writer, replay)
on virtual time, against a fake server that drops, delays, conflicts and loses replies, with workers
killed, frozen and started again. One seed is one schedule; what fails is run again with its number:

    SIM_SEED=123 pytest tests/rigs/test_simulation.py
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import fake_books
import pytest
from rig_kit import LONG
from sim_world import World
from virtual import VirtualLoop

from lava_proxy.books import replay, writer
from lava_proxy.store import credit, directory, learned, leasing, prices, reaping
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk

SEEDS = 50_000 if LONG else int(os.environ.get("SIM_SEEDS", "2000"))
ONLY = os.environ.get("SIM_SEED")
PARTS = [[int(ONLY)]] if ONLY else [range(1 + part, 1 + SEEDS, 4) for part in range(4)]
"""So that the processes of a test run share them."""
MUST_HAPPEN = (
    "request dropped", "conflict", "rolled back", "reply lost after commit", "database away",
    "asked twice for one lease", "booked before", "reclaimed", "given back late", "torn tail",
    "kill", "freeze", "long freeze", "away", "clock set", "grant", "report", "refused", "503",
    "cut", "lapsed in a stream",
)  # fmt: skip


def patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake server's functions in the place of those that speak SQL."""
    for name in ("renew", "give_back", "close_holder"):
        monkeypatch.setattr(credit, name, getattr(fake_books, name))
    monkeypatch.setattr(leasing, "lease", _leased)
    monkeypatch.setattr(reaping, "reclaim", fake_books.reclaim)
    monkeypatch.setattr(reaping, "expired", _expired)
    monkeypatch.setattr(reaping, "clock_s", _clock_s)
    monkeypatch.setattr(prices, "in_force", fake_books.nothing)
    monkeypatch.setattr(prices, "next_change", _never)
    monkeypatch.setattr(learned, "newest", _knows_nothing)
    monkeypatch.setattr(directory, "changes_since", fake_books.nothing)
    monkeypatch.setattr(writer, "settle", fake_books.settle)
    monkeypatch.setattr(replay, "settle", fake_books.settle)


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    patch(monkeypatch)
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


async def _leased(
    conn: fake_books.FakeDatabase, ask: LeaseAsk, rules: object, now: datetime
) -> LeaseAnswer:
    """Nobody here has a subscription."""
    return await fake_books.lease(conn, ask, now)


async def _never(*_args: object) -> None:
    return None


async def _knows_nothing(*_args: object) -> dict[tuple[str, str], int]:
    return {}


async def _clock_s(conn: fake_books.FakeDatabase) -> float:
    return conn.server.now_s


async def _expired(
    conn: fake_books.FakeDatabase, grace_s: float, most: int
) -> list[tuple[str, str]]:
    return conn.server.expired(grace_s)[:most]


def run_seed(seed: int, folder: Path, seen: Counter[str]) -> None:
    """One schedule; raises AssertionError with the seed in it."""
    random.seed(seed)  # jitter of the product's own
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    of_seed: Counter[str] = Counter()
    try:
        loop.run_until_complete(World(loop, folder, seed, of_seed).run())
    except BaseException as error:
        raise AssertionError(f"seed {seed}: {error!r}") from error
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        asyncio.set_event_loop(None)
        shutil.rmtree(folder, ignore_errors=True)
    seen.update(of_seed)


@pytest.mark.timeout(300 if not LONG else 7200)
@pytest.mark.parametrize("seeds", PARTS, ids=lambda seeds: f"from {seeds[0]}")
def test_whatever_happens_the_books_are_right(
    patched: None, seeds: Sequence[int], memory: Path | None
) -> None:
    seen: Counter[str] = Counter()
    began_s = time.process_time()
    with tempfile.TemporaryDirectory(dir=memory) as base:
        for seed in seeds:
            run_seed(seed, Path(base, str(seed)), seen)
    took_s = time.process_time() - began_s
    print(f"\n{len(seeds)} seeds from {seeds[0]} in {took_s:.0f} s of CPU: {dict(seen)}")
    if not ONLY:
        assert set(seen) <= {*MUST_HAPPEN}, "only what is meant to happen"
        assert [kind for kind in MUST_HAPPEN if not seen[kind]] == []
