"""SIGTERM under running streams: readiness goes first, every stream ends whole, every row is there.

A second SIGTERM cancels what runs and books it; SIGKILL during the drain leaves it to the journal.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from rig_kit import LONG, Got, Payer, Replica, call, make_payer, started, wait_settled
from truth import check_books

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.database import Database

STREAMS = 200 if LONG else 60
TOKENS = 40
PACE_MS = 50


async def _running(
    replica: Replica, payer: Payer, sim: SimulatedProvider
) -> list[asyncio.Task[Got]]:
    """Streams of two seconds, all of which have begun."""
    calls = [
        asyncio.create_task(
            call(replica.port, payer, f"n{n}", tokens=TOKENS, pace_ms=PACE_MS, stream=True)
        )
        for n in range(STREAMS)
    ]
    async with asyncio.timeout(20):
        while sum(request.tokens_sent > 0 for request in sim.requests) < STREAMS:
            await asyncio.sleep(0.02)
    return calls


def _signal(replica: Replica, number: signal.Signals) -> None:
    assert replica.process is not None
    replica.process.send_signal(number)


async def _ended(replica: Replica) -> int:
    assert replica.process is not None
    return await asyncio.to_thread(replica.process.wait, 30)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_drain_ends_every_stream_whole(
    database_url: str, database: Database, tmp_path: Path, workers: int
) -> None:
    payer = await make_payer(database, "100.00")
    async with SimulatedProvider() as sim:
        drain = {"LAVA_DRAIN_TIMEOUT_S": "30"}
        replica = Replica(database_url, tmp_path / "a", sim.url, workers=workers, extra=drain)
        await started(replica)
        calls = await _running(replica, payer, sim)
        asked_s = time.monotonic()
        _signal(replica, signal.SIGTERM)
        await replica.becomes("draining", "gone", timeout_s=1)
        assert not any(one.done() for one in calls)
        got = await asyncio.gather(*calls)
        assert await _ended(replica) == 0
        took_s = time.monotonic() - asked_s
        assert all(one.whole and one.tokens == TOKENS for one in got)
        await wait_settled(database)
        _, rows = await check_books(database, sim, got, [payer.customer_id])
        assert len(rows) == STREAMS
        assert {row["outcome"] for row in rows} == {"completed"}
        print(
            f"\ndrain, {workers} workers: {STREAMS} streams whole, {len(rows)} rows, {took_s:.1f} s"
        )


async def test_a_second_signal_books_what_runs(
    database_url: str, database: Database, tmp_path: Path
) -> None:
    payer = await make_payer(database, "100.00")
    async with SimulatedProvider() as sim:
        replica = Replica(database_url, tmp_path / "a", sim.url)
        await started(replica)
        calls = await _running(replica, payer, sim)
        _signal(replica, signal.SIGTERM)
        await asyncio.sleep(0.2)
        _signal(replica, signal.SIGTERM)
        got = await asyncio.gather(*calls)
        assert await _ended(replica) == 0
        assert not any(one.whole for one in got)  # nobody takes a part for the whole
        await wait_settled(database)
        _, rows = await check_books(database, sim, got, [payer.customer_id])
        assert len(rows) == STREAMS
        assert {row["outcome"] for row in rows} == {"truncated"}


async def test_a_kill_during_the_drain_is_recovered(
    database_url: str, database: Database, tmp_path: Path
) -> None:
    payer = await make_payer(database, "100.00")
    async with SimulatedProvider() as sim:
        replica = Replica(database_url, tmp_path / "a", sim.url)
        await started(replica)
        calls = await _running(replica, payer, sim)
        _signal(replica, signal.SIGTERM)
        await asyncio.sleep(0.3)
        replica.kill()
        got = await asyncio.gather(*calls)
        successor = Replica(database_url, tmp_path / "a", sim.url)
        await started(successor)
        assert successor.stop() == 0
        await wait_settled(database)
        _, rows = await check_books(database, sim, got, [payer.customer_id])
        assert len(rows) == STREAMS
        assert {row["outcome"] for row in rows} == {"recovered"}
