"""PostgreSQL's own disk fills up under load: first it can extend no table, then it can write no log
and dies; the embedded one is started again once there is room, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from away_kit import Load, back_to_normal, books_of, warm_up
from rig_kit import LONG, Replica, call, make_payer, started, wait_settled
from truth import check_books, refusals

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.embedded import EmbeddedServer, start_embedded
from lava_proxy.store.migrate import migrate

SEED = 20261203
DISK_BYTES = 200 * 2**20
STREAMS = 4


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder whose cluster lies on a disk of its own."""
    with tempfile.TemporaryDirectory(prefix="lava-rig-", ignore_cleanup_errors=True) as name:
        asyncio.run(_make_cluster(Path(name)))
        cluster, aside = Path(name, "postgres"), Path(name, "aside")
        cluster.rename(aside)
        cluster.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "lava-rig", str(cluster)]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        try:
            subprocess.run(["cp", "-a", f"{aside}/.", str(cluster)], check=True)
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", str(cluster)], check=True)


async def _make_cluster(folder: Path) -> None:
    server = await start_embedded(folder)
    await migrate(server.url)
    await server.release()


def fill(disk: Path) -> Path:
    """A file that takes what is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    return filler


async def until_it_dies(server: EmbeddedServer) -> int:
    """Have it begin new files of its log until it finds no room for one."""
    pid = server.pid
    for _ in range(200):
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            conn = await asyncpg.connect(server.url, timeout=2)
            try:
                while True:
                    await conn.execute("SELECT pg_logical_emit_message(false, 'rig', 'x')")
                    await conn.execute("SELECT pg_switch_wal()")
            finally:
                conn.terminate()
        if server.pid != pid:
            return pid or 0
        await asyncio.sleep(0.05)
    raise AssertionError("it lives on")


@pytest.mark.skipif(not LONG, reason="half a minute: make soak")
@pytest.mark.timeout(240)
def test_full(folder: Path) -> None:
    asyncio.run(full(folder))


async def full(folder: Path) -> None:
    rng = random.Random(SEED)
    server = await start_embedded(folder)
    async with SimulatedProvider() as sim, books_of(server.url) as database:
        warm = [await make_payer(database, "100.00") for _ in range(3)]
        cold = await make_payer(database, "100.00")
        replica = Replica("", folder, sim.url, workers=2)
        await started(replica)
        seen = await warm_up([replica], warm)
        load = Load([replica], warm, rng, tokens=(5, 20))
        load.start(4)
        filler = fill(folder / "postgres")
        full_s = time.monotonic()
        noticed_s = await replica.becomes("leases", timeout_s=30)
        streams = [
            asyncio.create_task(
                call(replica.port, warm[0], f"long{n}", tokens=300, pace_ms=10, stream=True)
            )
            for n in range(STREAMS)
        ]
        others = [  # a grant may still find room in a page: then they are served
            await call(replica.port, cold, f"cold{n}", tokens=5, pace_ms=1, stream=True)
            for n in range(5)
        ]
        pid = await until_it_dies(server)
        await asyncio.sleep(3.0)
        stayed_down = server.pid is None
        running = await asyncio.gather(*streams)
        filler.unlink()
        full_s = time.monotonic() - full_s
        normal_s, got = await back_to_normal([replica], cold, "back")
        await load.stop()
        assert replica.stop() == 0
        await wait_settled(database)
        seen += [*load.seen, *running, *others, got]
        await check_books(database, sim, seen, [p.customer_id for p in (*warm, cold)])
        assert server.pid not in (None, pid)
    await server.release()
    codes = refusals(seen)
    print(
        f"disk full for {full_s:.1f}s: noticed after {noticed_s:.2f}s, died and "
        f"{'could not be started' if stayed_down else 'was started'} while full, normal "
        f"{normal_s:.1f}s after there was room; by status {dict(codes)} lost=0 double=0 seed={SEED}"
    )
    assert all(one.whole and not one.cut for one in running), "a stream under way was cut"
