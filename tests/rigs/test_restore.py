"""PostgreSQL is lost and restored from an older backup, and the gateway killed: what its journal
holds is booked again, also what had been booked after the backup."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from away_kit import Load, back_to_normal, books_of
from rig_kit import LONG, Replica, make_payer, started, wait_settled
from truth import check_books, refusals

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.audit import audit
from lava_proxy.store.embedded import start_embedded
from lava_proxy.store.migrate import migrate

SEED = 20261205


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


@pytest.mark.skipif(not LONG, reason="a quarter of a minute: make soak")
@pytest.mark.timeout(180)
async def test_restored(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="lava-rig-", ignore_cleanup_errors=True) as name:
        folder, cluster, backup = Path(name), Path(name, "postgres"), Path(name, "backup")
        server = await start_embedded(folder)
        await migrate(server.url)
        async with books_of(server.url) as database:
            payers = [await make_payer(database, "100.00") for _ in range(4)]
        async with SimulatedProvider() as sim:
            replica = Replica(server.url, tmp_path / "a", sim.url)
            await started(replica)
            before = Load([replica], payers, rng, name="before")
            before.start(6)
            await asyncio.sleep(2.0)

            await server.release()  # nobody else: it stops, and the files can be copied
            copy(cluster, backup)
            server = await start_embedded(folder)
            await back_to_normal([replica], payers[0], "between")
            await asyncio.sleep(2.0)
            async with books_of(server.url) as database:
                async with database.connection() as conn:
                    booked = await conn.fetchval("SELECT count(*) FROM requests")
            replica.kill()
            await before.stop()

            await server.release()
            shutil.rmtree(cluster)
            copy(backup, cluster)
            server = await start_embedded(folder)
            async with books_of(server.url) as database:
                async with database.connection() as conn:
                    restored = await conn.fetchval("SELECT count(*) FROM requests")
                replica.start()
                await replica.ready()
                assert replica.stop() == 0
                await wait_settled(database)
                _, rows = await check_books(
                    database, sim, before.seen, [p.customer_id for p in payers]
                )
                found = await audit(database, full=True)
                assert found.sound, found.differences
            await server.release()
    codes = refusals(before.seen)
    assert restored < booked <= len(rows)
    print(
        f"{booked} rows before, {restored} in the backup, {len(rows)} after the replay; by status "
        f"{dict(codes)} lost=0 double=0 seed={SEED}"
    )
