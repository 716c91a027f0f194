"""A transaction pooler between gateway and PostgreSQL: schema, load, the change feed and `doctor`,
with and without an address past it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from away_kit import Load, books_of
from rig_kit import LONG, ROOT, Payer, Replica, call, free_port, make_payer, started, wait_settled
from truth import check_books, refusals

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.database import Database

SEED = 20261130
SECONDS = 60.0 if LONG else 4.0
REVOKED_WITHIN_S = 5.0
PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

pytestmark = [
    pytest.mark.tool,
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed (Debian: pgbouncer)"),
]

CONFIG = """
[databases]
lava = host={socket} port=5432 dbname={database} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 6
max_client_conn = 200
logfile = {log}
"""


@asynccontextmanager
async def pgbouncer(database_url: str, folder: Path) -> AsyncIterator[str]:
    """The address of a pooler before `database_url`; it runs as whoever owns the server's socket,
    because it will not run as root."""
    parts, port = urlsplit(database_url), free_port()
    socket = parse_qs(parts.query)["host"][0]
    owner = Path(socket).stat()
    folder.mkdir()
    os.chown(folder, owner.st_uid, owner.st_gid)
    for parent in folder.parents:
        mode = parent.stat().st_mode
        if mode & 0o111 != 0o111:  # pytest's own folders
            parent.chmod(mode | 0o111)
    config, log = folder / "pgbouncer.ini", folder / "log"
    config.write_text(
        CONFIG.format(socket=socket, database=parts.path.lstrip("/"), port=port, log=log)
    )
    assert PROGRAM is not None
    who = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    process = subprocess.Popen(
        [PROGRAM, "-q", str(config)],
        stderr=subprocess.DEVNULL,
        extra_groups=[] if who else None,
        **who,
    )
    url = f"postgresql://postgres@127.0.0.1:{port}/lava?sslmode=disable"
    try:
        for _ in range(100):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 10)


def doctor(url: str, data_dir: Path, **settings: str) -> tuple[int, str]:
    """(status, what it says) of ``lava-proxy doctor``."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LAVA_")}
    env |= {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}",
        "LAVA_DATABASE_URL": url,
        "LAVA_DATA_DIR": str(data_dir),
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-m", "lava_proxy", "doctor"], env=env, cwd=ROOT, capture_output=True
    )
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "pooled only"])
@pytest.mark.timeout(90 if not LONG else 300)
async def test_behind_pgbouncer(empty_database_url: str, tmp_path: Path, direct: bool) -> None:
    rng = random.Random(SEED)
    extra = {"LAVA_DATABASE_STATEMENT_CACHE": "0"}
    if direct:
        extra["LAVA_DATABASE_DIRECT_URL"] = empty_database_url
    async with (
        pgbouncer(empty_database_url, tmp_path / "bouncer") as url,
        SimulatedProvider() as sim,
    ):
        replicas = [Replica(url, tmp_path / n, sim.url, extra=extra) for n in ("a", "b")]
        await started(*replicas)  # they make the schema, both at once
        async with books_of(empty_database_url) as database:
            payers = [await make_payer(database, "100.00") for _ in range(4)]
            load = Load(replicas, payers, rng)
            load.start(8)
            await asyncio.sleep(SECONDS)
            await load.stop()
            revoked_s = await _revoke(database, replicas[0], payers[0])
            for replica in replicas:
                assert await asyncio.to_thread(replica.stop) == 0
            await wait_settled(database)
            await check_books(database, sim, load.seen, [p.customer_id for p in payers])
        right = await asyncio.to_thread(doctor, url, tmp_path / "a", **extra)
        wrong = await asyncio.to_thread(doctor, url, tmp_path / "a")
        none = await asyncio.to_thread(doctor, empty_database_url, tmp_path / "a")
    codes = refusals(load.seen)
    print(
        f"pgbouncer direct={direct}: {len(load.seen)} calls by status {dict(codes)} lost=0 "
        f"double=0, revoked after {revoked_s:.2f}s seed={SEED}"
    )
    assert set(codes) == {200}
    assert revoked_s < REVOKED_WITHIN_S
    assert right[0] == 0
    assert "behind a transaction pooler" in right[1]
    assert ("polling" in right[1]) is not direct
    assert wrong[0] != 0
    assert "LAVA_DATABASE_STATEMENT_CACHE=0" in wrong[1]
    assert "no transaction pooler" in none[1]


async def _revoke(database: Database, replica: Replica, payer: Payer) -> float:
    """Revoke a key that is known; answers how long it still works."""
    async with database.transaction() as conn:
        await conn.execute(
            "UPDATE secret_keys SET revoked_at = now() WHERE merchant_id = $1", payer.merchant_id
        )
    started_s = time.monotonic()
    for number in range(200):
        got = await call(replica.port, payer, f"revoked{number}", tokens=1, pace_ms=0, stream=False)
        if got.status == 401:
            return time.monotonic() - started_s
        await asyncio.sleep(0.05)
    raise AssertionError("a revoked key works for ever")
