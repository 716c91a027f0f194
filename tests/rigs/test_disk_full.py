"""The journal's disk fills up under load: the books close, nothing is lost, and they open again by
themselves when there is room."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from away_kit import Load
from rig_kit import Replica, call, make_payer, started, wait_settled
from truth import check_books, refusals

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.database import Database

SEED = 20261129
SEGMENT_BYTES = 64 * 1024
DISK_BYTES = 5 * 2**20
"""Room for four segments, each with its mebibyte for calls that run on."""
STREAMS = 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of `DISK_BYTES` where a data folder's journals go."""
    place = tmp_path / "a" / "journals"
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "lava-rig", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(disk: Path) -> Path:
    """A file that takes what is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


@pytest.mark.timeout(90)
async def test_disk_full(
    database_url: str, database: Database, tmp_path: Path, small_disk: Path
) -> None:
    rng = random.Random(SEED)
    payers = [await make_payer(database, "100.00") for _ in range(3)]
    extra = {"LAVA_JOURNAL_SEGMENT_BYTES": str(SEGMENT_BYTES)}
    replica = Replica(database_url, tmp_path / "a", "", extra=extra)
    async with SimulatedProvider() as sim:
        replica.upstream = sim.url
        await started(replica)
        assert replica.process is not None
        load = Load([replica], payers, rng)
        load.start(8)
        await asyncio.sleep(1.0)
        long = [
            asyncio.create_task(
                call(replica.port, payers[0], f"long{n}", tokens=600, pace_ms=10, stream=True)
            )
            for n in range(STREAMS)
        ]
        await asyncio.sleep(0.5)
        filler = _fill(small_disk)
        full_s = time.monotonic()
        await _first(load, full_s, 503)
        refused_s = time.monotonic()
        closed_after_s = await replica.becomes("closed", timeout_s=2)
        assert (await replica.get("/readyz"))[0] == 503
        metrics = (await replica.get("/metrics"))[1]
        await asyncio.sleep(2.0)
        shut = load.since(refused_s + closed_after_s)
        running = await asyncio.gather(*long)
        filler.unlink()
        reopen_s = await replica.becomes("normal", timeout_s=5)
        reopened_s = time.monotonic()
        await asyncio.sleep(1.0)
        await load.stop()
        assert replica.process.poll() is None, "it did not survive"
        assert replica.stop() == 0
        await wait_settled(database)
        seen = [*load.seen, *running]
        await check_books(database, sim, seen, [p.customer_id for p in payers])
    codes = refusals(seen)
    print(
        f"disk full: first refusal after {refused_s - full_s:.2f}s, closed {closed_after_s:.2f}s "
        f"later, {len(shut)} refused while closed, {STREAMS} streams went on, open again "
        f"{reopen_s:.2f}s after there was room; by status {dict(codes)} lost=0 seed={SEED}"
    )
    assert closed_after_s < 1.0
    assert shut
    assert {one.status for one in shut} == {503}
    assert all(one.whole for one in running), "a stream under way was cut"
    assert {one.status for one in load.since(reopened_s)} == {200}
    assert b"lava_journal_failed 0.0" in metrics


async def _first(load: Load, moment_s: float, status: int, timeout_s: float = 20) -> None:
    """Wait for an answer of that kind to a call asked after the moment."""
    async with asyncio.timeout(timeout_s):
        while not any(one.status == status for one in load.since(moment_s)):
            await asyncio.sleep(0.01)
