"""Wall clocks are set while calls run: the gateway's, and PostgreSQL's. Money and time limits hang
on clocks that nobody sets, so nothing is refused, cut, lost or booked twice for it."""

from __future__ import annotations

import asyncio
import random
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from away_kit import Load, Postgres, back_to_normal, books_of, own_postgres
from rig_kit import LONG, Replica, make_payer, started, wait_settled
from truth import check_books

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.database import Database
from lava_proxy.store.server_user import ServerUser

SEED = 20261130
HOUR_S = 3600
JUMPS_S = (HOUR_S, -2 * HOUR_S, 86_400, -86_400, 30, -30, 0)
"""Seconds off, one after the other; at the end the clock is right again."""
BETWEEN_S = 10.0 if LONG else 1.0
ROUNDS = 2 if LONG else 1
SOURCE = Path(__file__).with_name("shifted_clock.c")
NOW_MS_SQL = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"


@dataclass
class Clock:
    """The wall clock of those processes that run with `environ`."""

    library: Path
    file: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "SHIFT_FILE": str(self.file)}

    def is_off_by(self, seconds: float) -> None:
        with self.file.open("r+b") as shared:
            shared.write(struct.pack("q", int(seconds * 1e9)))


@pytest.fixture
def clock() -> Iterator[Clock]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    # Not in pytest's folder: another run closes that, and PostgreSQL does not run as root.
    with tempfile.TemporaryDirectory(prefix="lava-clock-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = Clock(folder / "shifted_clock.so", folder / "shift")
        done = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", str(made.library), str(SOURCE), "-ldl"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"the C compiler does not work: {done.stderr[-200:]}")
        made.file.write_bytes(struct.pack("q", 0))
        yield made


@pytest.mark.timeout(90 if not LONG else 1200)
@pytest.mark.parametrize("whose", ["gateway", "postgresql"])
async def test_nothing_hangs_on_it(
    clock: Clock, tmp_path: Path, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if whose == "postgresql":
        _give(monkeypatch, clock)
    async with own_postgres() as postgres, SimulatedProvider() as sim:
        extra = {"LAVA_LEASE_S": "4", "LAVA_LEASE_GRACE_S": "2", "LAVA_LEASE_RECLAIM_S": "2"}
        both = [Replica(postgres.url, tmp_path / name, sim.url, extra=dict(extra)) for name in "ab"]
        if whose == "gateway":
            both[0].extra |= clock.environ
        async with books_of(postgres.url) as database:
            await _jump(clock, whose, both, postgres, database, sim)


def _give(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """PostgreSQL's programs run with this clock."""
    whole = ServerUser.run

    def run(self: ServerUser, command: list[str], environ: dict[str, str], *more: Any) -> int:
        return whole(self, command, environ | clock.environ, *more)

    monkeypatch.setattr(ServerUser, "run", run)


async def _jump(
    clock: Clock,
    whose: str,
    both: list[Replica],
    postgres: Postgres,
    database: Database,
    sim: SimulatedProvider,
) -> None:
    payers = [await make_payer(database, "500.00") for _ in range(3)]
    cold = await make_payer(database, "5.00")
    await started(*both)
    load = Load(both, payers, random.Random(SEED), tokens=(20, 200))
    load.start(6)
    await asyncio.sleep(1.0)
    for _ in range(ROUNDS):
        for off_s in JUMPS_S:
            clock.is_off_by(off_s)
            await asyncio.sleep(BETWEEN_S)
            if whose == "postgresql":
                async with database.connection() as conn:
                    shown_ms = await conn.fetchval(NOW_MS_SQL)
                assert abs(shown_ms / 1000 - time.time() - off_s) < 5, "its clock was not set"
    _, got = await back_to_normal(both, cold, "back")
    await load.stop()
    for replica in both:
        assert await asyncio.to_thread(replica.stop) == 0
    await wait_settled(database)
    customers = [payer.customer_id for payer in (*payers, cold)]
    _, rows = await check_books(database, sim, [*load.seen, got], customers)
    seen = load.seen
    created = sorted(row["created_at"].timestamp() - time.time() for row in rows)
    assert all(one.status == 200 and one.whole and not one.cut for one in seen), [
        one for one in seen if one.status != 200 or not one.whole
    ][:3]
    assert {row["outcome"] for row in rows} == {"completed"}
    if whose == "gateway":
        assert created[-1] > 23 * HOUR_S, "the gateway's clock was not set"
    print(
        f"{whose}: {ROUNDS * len(JUMPS_S)} jumps, {len(seen)} calls, all served whole; rows say "
        f"{created[0]:+.0f} to {created[-1]:+.0f} s; lost=0 double=0 seed={SEED}"
    )
