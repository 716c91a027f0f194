"""Rolling restart of two gateways behind the shipped nginx.conf, under load: nothing fails."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path

import pytest
from rig_kit import LONG, Got, Payer, Replica, call, make_payer, started, wait_settled
from test_nginx import NGINX, nginx
from truth import check_books

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.database import Database

pytestmark = [
    pytest.mark.tool,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]

ROUNDS = 40 if LONG else 1
"""Restarts of each of the two."""
CLIENTS = 6
HOST = "lava.example.com"
"""What the shipped file serves."""
SEED = 20261127


async def _load(
    port: int, payer: Payer, rng: random.Random, name: str, done: asyncio.Event
) -> list[Got]:
    """Plain calls and streams, one after the other."""
    got: list[Got] = []
    while not done.is_set():
        stream = rng.random() < 0.5
        got.append(
            await call(
                port, payer, f"{name}-{len(got)}", tokens=20, pace_ms=20 if stream else 0,
                stream=stream, host=HOST,
            )
        )  # fmt: skip
    return got


async def _restarted(replica: Replica) -> None:
    """SIGHUP, and wait until the old workers are gone and the new ones serve."""
    assert replica.process is not None
    before = _workers(replica)
    replica.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(40):
        while _workers(replica) & before or len(_workers(replica)) < replica.workers:
            await asyncio.sleep(0.1)


def _workers(replica: Replica) -> set[int]:
    assert replica.process is not None
    listed = Path(f"/proc/{replica.process.pid}/task/{replica.process.pid}/children").read_text()
    return set(map(int, listed.split()))


@pytest.mark.timeout(120 if not LONG else 3600)
async def test_nothing_fails(database_url: str, database: Database, tmp_path: Path) -> None:
    payer = await make_payer(database, "100.00")
    async with SimulatedProvider() as sim:
        replicas = [Replica(database_url, tmp_path / n, sim.url, workers=2) for n in ("a", "b")]
        await started(*replicas)
        done = asyncio.Event()
        rng = random.Random(SEED)
        async with nginx(tmp_path / "front", *(r.port for r in replicas)) as port:
            loads = [
                asyncio.create_task(_load(port, payer, random.Random(rng.random()), f"c{n}", done))
                for n in range(CLIENTS)
            ]
            began_s = time.monotonic()
            for _ in range(ROUNDS):
                for replica in replicas:
                    await _restarted(replica)
            done.set()
            got = [one for load in await asyncio.gather(*loads) for one in load]
        took_s = time.monotonic() - began_s
        assert [replica.stop() for replica in replicas] == [0, 0]
        assert {one.status for one in got} == {200}
        assert all(one.whole for one in got)
        await wait_settled(database)
        _, rows = await check_books(database, sim, got, [payer.customer_id])
        assert len(rows) == len(got)
        print(
            f"\nrolling, seed {SEED}: {2 * ROUNDS} restarts of 2 workers in {took_s:.0f} s, "
            f"{len(got)} calls, 0 failed, {len(rows)} rows"
        )
