"""The judge of outages: suspicion, one prober, one verdict, and what it spares everybody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from lava_proxy.store import outage as module
from lava_proxy.store.database import Database, StoreDown
from lava_proxy.store.embedded import EmbeddedServer, start_embedded
from lava_proxy.store.outage import Outage


class Probe:
    """Answers or fails as it is told; counts."""

    def __init__(self) -> None:
        self.answers = False
        self.asked = 0
        self.deadlines: list[float] = []

    async def __call__(self, deadline_s: float) -> None:
        self.asked += 1
        self.deadlines.append(deadline_s)
        if not self.answers:
            raise StoreDown("no")


@asynccontextmanager
async def watched(outage: Outage, probe: Probe) -> AsyncIterator[None]:
    task = asyncio.create_task(outage.watch(probe))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_away(outage: Outage) -> None:
    async with asyncio.timeout(10):
        while not outage.away:
            await asyncio.sleep(0.001)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAY_AFTER_S", 0.05)
    monkeypatch.setattr(module, "PROBE_MOST_S", 0.02)


@pytest.mark.usefixtures("quick")
async def test_away_and_back() -> None:
    outage, probe = Outage(), Probe()
    async with watched(outage, probe):
        await asyncio.sleep(0.02)
        assert probe.asked == 0  # nobody suspects anything
        outage.suspect(time.monotonic(), "refused")
        assert not outage.away  # it may be a hiccup
        await until_away(outage)
        waiting = asyncio.create_task(outage.answering())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        probe.answers = True
        await asyncio.wait_for(waiting, 5)
        assert not outage.away
        asked = probe.asked
        await asyncio.sleep(0.05)
        assert probe.asked == asked  # there is nothing to ask any more
    assert probe.deadlines[:3] == [1.0, 2.0, 4.0]  # a slow server gets more time


@pytest.mark.usefixtures("quick")
async def test_what_works_outweighs_the_prober() -> None:
    """No connection to be had for the prober, while the pool's connections do their work."""
    outage, probe = Outage(), Probe()
    async with watched(outage, probe):
        outage.suspect(time.monotonic(), "too many clients")
        for _ in range(20):
            await asyncio.sleep(0.01)
            outage.worked()
            assert not outage.away
        asked_s = time.monotonic()
        outage.worked()
        asked = probe.asked
        outage.suspect(asked_s - 1, "asked before something else worked")
        await asyncio.sleep(0.02)
        assert probe.asked <= asked + 1


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = await start_embedded(tmp_path / "data")
    yield server
    await server.release()


async def test_a_server_that_hangs(mortal: EmbeddedServer) -> None:
    """SIGSTOP: no use of it ends before its deadline; once it is away, none even begins."""
    database = Database(mortal.url, size=2, acquire_timeout_s=2)
    await database.open()
    task = asyncio.create_task(database.watch())
    server = psutil.Process(mortal.pid)
    frozen = [server, *server.children(recursive=True)]
    for process in frozen:
        process.suspend()
    try:
        started_s = time.monotonic()
        with pytest.raises(StoreDown):
            async with database.transaction() as conn:
                await conn.fetchval("SELECT 1")
        assert time.monotonic() - started_s < 4  # no rollback that waits as long again
        await until_away(database.outage)
        assert time.monotonic() - started_s < 4
        started_s = time.monotonic()
        with pytest.raises(StoreDown, match="away"):
            async with database.connection():
                pytest.fail("it is away")
        assert time.monotonic() - started_s < 0.1
    finally:
        for process in frozen:
            process.resume()
    await asyncio.wait_for(database.outage.answering(), 10)
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT 1") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await database.close()


async def test_a_server_that_can_only_be_read_is_away(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    await database._probe(5.0)
    async with database.connection() as conn:
        name = await conn.fetchval("SELECT current_database()")
        await conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreDown, match="only be read"):
        await database._probe(5.0)
    await database.close()
