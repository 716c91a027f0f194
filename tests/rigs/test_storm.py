"""Overspend storm: money for exactly M calls, many more started at once, on several replicas."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from rig_kit import LONG, TOKEN_E10, Replica, call, make_payer, started, wait_settled

from lava_proxy.core.money import format_e10
from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database

STARTS = 500 if LONG else 80
CALLS = 20
TOKENS = 60
INPUT_TOKENS = 4
"""What the simulated provider counts for the prompt of `rig_kit.call`."""


@pytest.mark.parametrize("mode", ["sliced", "strict"])
@pytest.mark.parametrize("stream", [True, False])
async def test_storm(
    database_url: str, database: Database, tmp_path: Path, mode: str, stream: bool
) -> None:
    credit_e10 = CALLS * (TOKENS + INPUT_TOKENS) * TOKEN_E10
    payer = await make_payer(database, format_e10(credit_e10), mode=mode)
    async with SimulatedProvider() as sim:
        replicas = [Replica(database_url, tmp_path / name, sim.url) for name in ("a", "b")]
        await started(*replicas)
        got = await asyncio.gather(
            *(
                call(
                    replicas[n % 2].port,
                    payer,
                    f"n{n}",
                    tokens=TOKENS,
                    pace_ms=2 if stream else 0,
                    stream=stream,
                )
                for n in range(STARTS)
            )
        )
        for replica in replicas:
            assert replica.stop() == 0
        await wait_settled(database)
    assert {one.status for one in got} <= {200, 402}, "neither paid nor refused"
    async with database.connection() as conn:
        charged = await conn.fetchval("SELECT sum(charge_e10)::bigint FROM requests")
        rows = await conn.fetchval("SELECT count(*) FROM requests")
    found = await audit(database)
    assert found.sound, found.differences
    assert rows == sum(one.status == 200 for one in got)
    overspend = found.debt_e10
    served = sum(one.whole and not one.cut for one in got if one.status == 200)
    print(
        f"{mode} stream={stream} starts={STARTS} served={served} cut={sum(o.cut for o in got)} "
        f"charged={charged}/{credit_e10} overspend={overspend} left={credit_e10 - charged}"
    )
    assert overspend == 0
    assert charged <= credit_e10
    assert served > 0
