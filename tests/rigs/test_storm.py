"""Overspend storm: money for exactly M calls, many more started at once, on several replicas.

A *false denial* is a 402 that the credit left at the end would have paid for. There are some by
design: a hold is larger than its call, so calls that come all at once are refused while others hold
what they will give back.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from rig_kit import LONG, TOKEN_E10, Replica, call, make_payer, started, wait_settled

from lava_proxy.core.money import format_e10
from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database

STARTS = 500 if LONG else 80
WORKERS = (1, 2, 4) if LONG else (1,)
"""Per gateway; there are two."""
CALLS = 20
SEED = 20261201
TOKENS = 60
INPUT_TOKENS = 4
"""What the simulated provider counts for the prompt of `rig_kit.call`."""


CROSSING_TOKENS = 1
"""g: the simulated provider sends one token a piece."""


@pytest.mark.parametrize("mode", ["sliced", "strict"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.timeout(60 if not LONG else 300)
async def test_storm(
    database_url: str, database: Database, tmp_path: Path, mode: str, stream: bool, workers: int
) -> None:
    rng = random.Random(SEED)
    credit_e10 = CALLS * (TOKENS + INPUT_TOKENS) * TOKEN_E10
    payer = await make_payer(database, format_e10(credit_e10), mode=mode)
    async with SimulatedProvider() as sim:
        replicas = [
            Replica(database_url, tmp_path / name, sim.url, workers=workers) for name in ("a", "b")
        ]
        await started(*replicas)
        got = await asyncio.gather(
            *(
                call(
                    rng.choice(replicas).port,
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
    overspend, left = found.debt_e10, credit_e10 - charged
    whole = sum(one.whole and not one.cut for one in got if one.status == 200)
    cut = sum(one.cut for one in got)
    denied = sum(one.status == 402 for one in got)
    false_denials = max(0, min(denied, left // ((TOKENS + INPUT_TOKENS) * TOKEN_E10)))
    bound = _bound_e10(mode, rows) if stream else 0  # what is not streamed holds its ceiling
    print(
        f"{mode} stream={stream} replicas=2 workers={workers} starts={STARTS} for={CALLS} "
        f"served={whole} cut={cut} denied={denied} false denials={false_denials} "
        f"left={left / credit_e10:.0%} overspend={overspend} bound={bound} seed={SEED}"
    )
    assert overspend <= bound
    assert overspend == 0  # the simulated provider's counts are ours, and nothing is hidden
    assert charged <= credit_e10
    assert whole + cut > 0


def _bound_e10(mode: str, streams: int) -> int:
    """K * [p * (g + v * tau) + h]: here the provider stops within the piece (tau = 0) and hides
    nothing (h = 0)."""
    return 0 if mode == "strict" else streams * TOKEN_E10 * CROSSING_TOKENS
