"""The embedded PostgreSQL gets SIGKILL under a gateway of two workers: one of them starts it again,
whoever has leased credit is served meanwhile, and the books add up. Where it cannot be started,
readiness and metrics say so."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from away_kit import Load, back_to_normal, books_of, warm_up
from rig_kit import LONG, Replica, call, make_payer, started, wait_settled
from truth import check_books, refusals

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.embedded import EmbeddedServer, start_embedded
from lava_proxy.store.migrate import migrate

SEED = 20261202
KILLS = 50 if LONG else 1
WORKER_KILLED_EVERY = 5
"""In the long form a worker is killed together with the server so often."""


@pytest.mark.timeout(60 if not LONG else 1800)
async def test_killed_under_two_workers() -> None:
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="lava-rig-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = await start_embedded(folder)
        await migrate(server.url)
        async with SimulatedProvider() as sim, books_of(server.url) as database:
            payers = [await make_payer(database, "100.00") for _ in range(4)]
            replica = Replica("", folder, sim.url, workers=2)
            await started(replica)
            seen = await warm_up([replica], payers, 1.2)
            load = Load([replica], payers, rng, tokens=(5, 20, 40))
            load.start(6)
            away_s, normal_s = [], []
            for kill in range(KILLS):
                died_s = time.monotonic()
                stream = asyncio.create_task(
                    call(
                        replica.port, payers[0], f"long{kill}", tokens=120, pace_ms=10, stream=True
                    )
                )
                await asyncio.sleep(rng.uniform(0.1, 0.4))
                worker = LONG and kill % WORKER_KILLED_EVERY == 4
                pid = die(server)
                if worker:
                    kill_a_worker(replica)
                await comes_back(server, pid)
                away_s.append(time.monotonic() - died_s)
                took, got = await back_to_normal([replica], rng.choice(payers), f"k{kill}")
                normal_s.append(took)
                ran = await stream
                load.seen += [got, ran]
                assert worker or (ran.whole and not ran.cut)
                await asyncio.sleep(rng.uniform(0.1, 1.0))
            await load.stop()
            await broken_is_said(replica, server, folder)
            assert replica.stop() == 0
            await wait_settled(database)
            await check_books(database, sim, [*seen, *load.seen], [p.customer_id for p in payers])
        await server.release()
        assert server.pid is None, "the last one out stops what another one started"
    codes = refusals(load.seen)
    print(
        f"kills={KILLS} calls={len(load.seen)} by status={dict(codes)} lost=0 double=0 "
        f"runs again max={max(away_s):.2f}s normal after it max={max(normal_s):.2f}s seed={SEED}"
    )


def die(server: EmbeddedServer) -> int:
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


async def comes_back(server: EmbeddedServer, pid: int) -> None:
    """Until it answers again, as another process."""
    async with asyncio.timeout(30):
        while server.pid in (None, pid):
            await asyncio.sleep(0.02)
        async with books_of(server.url):
            pass


def kill_a_worker(replica: Replica) -> None:
    assert replica.process is not None
    workers = psutil.Process(replica.process.pid).children()
    os.kill(workers[0].pid, signal.SIGKILL)


async def broken_is_said(replica: Replica, server: EmbeddedServer, folder: Path) -> None:
    """Without one of its files it cannot start, which shows; put back, service comes back."""
    control = folder / "postgres" / "global" / "pg_control"
    control.rename(folder / "aside")
    die(server)
    await shows(replica, "broken", 2)
    (folder / "aside").rename(control)
    await shows(replica, None, 0)
    await replica.becomes("normal")


async def shows(replica: Replica, state: str | None, figure: int) -> None:
    """Until readiness and metrics say this of the server."""
    async with asyncio.timeout(30):
        while True:
            body = (await replica.get("/readyz"))[1]
            text = (await replica.get("/metrics"))[1].decode()
            shown = re.findall(r"^lava_embedded_postgres_state (\S+)$", text, re.MULTILINE)
            if (json.loads(body).get("embedded_postgres"), shown) == (state, [f"{figure}.0"]):
                return
            await asyncio.sleep(0.05)
