"""PostgreSQL killed, stopped and frozen under load: whoever has leased credit is served, all others
get 503, nothing is lost, and service comes back by itself."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
from away_kit import Figures, Load, back_to_normal, books_of, during, own_postgres, slowest, warm_up
from rig_kit import LONG, Got, Replica, call, make_payer, started, wait_settled
from truth import check_books, refusals

from lava_proxy.net.simulated import SimulatedProvider

SEED = 20261127
KILLS = 100 if LONG else 3
STOP_S = 20.0 if LONG else 4.0
FREEZE_S = 30.0 if LONG else 5.0
REFUSED_WITHIN_S = 3.5
"""A call asks at most four questions of at most 1 s each (key, customer, meter, credit), and most
fail at the first; the rest is a busy machine."""

REPORT_REFUSED_WITHIN_S = 5.5
"""A report waits for its commit, and is told when the outage is noticed."""


@pytest.mark.timeout(90 if not LONG else 3000)
async def test_killed(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    async with own_postgres() as postgres, SimulatedProvider() as sim:
        async with books_of(postgres.url) as database:
            payers = [await make_payer(database, "100.00") for _ in range(6)]
        replicas = [Replica(postgres.url, tmp_path / name, sim.url) for name in ("a", "b")]
        await started(*replicas)
        load = Load(replicas, payers, rng)
        load.start(8)
        normal_s, restart_s = [], []
        for kill in range(KILLS):
            await asyncio.sleep(rng.uniform(0.4, 1.0))
            postgres.kill()
            await asyncio.sleep(rng.choice((0.1, 1.5)))
            restart_s.append(await postgres.start())
            took, got = await back_to_normal(replicas, rng.choice(payers), f"k{kill}")
            normal_s.append(took)
            load.seen.append(got)
        await load.stop()
        for replica in replicas:
            assert replica.stop() == 0
        async with books_of(postgres.url) as database:
            await wait_settled(database)
            await check_books(database, sim, load.seen, [p.customer_id for p in payers])
    codes = refusals(load.seen)
    assert codes[200] > KILLS * 5
    print(
        f"kills={KILLS} calls={len(load.seen)} by status={dict(codes)} lost=0 double=0 "
        f"restart max={max(restart_s):.2f}s normal after it max={max(normal_s):.2f}s seed={SEED}"
    )


@pytest.mark.parametrize("how", ["stopped", "frozen"])
@pytest.mark.timeout(90 if not LONG else 300)
async def test_away_for_a_while(tmp_path: Path, how: str) -> None:
    seconds = STOP_S if how == "stopped" else FREEZE_S
    async with own_postgres() as postgres, SimulatedProvider() as sim:
        async with books_of(postgres.url) as database:
            warm = [await make_payer(database, "100.00") for _ in range(3)]
            cold = [await make_payer(database, "100.00") for _ in range(3)]
        replicas = [Replica(postgres.url, tmp_path / name, sim.url) for name in ("a", "b")]
        await started(*replicas)
        seen = await warm_up(replicas, warm)
        streams = [
            asyncio.create_task(
                call(r.port, warm[0], f"long{r.port}", tokens=300, pace_ms=10, stream=True)
            )
            for r in replicas
        ]
        await asyncio.sleep(0.3)
        away_s = time.monotonic()
        postgres.stop() if how == "stopped" else postgres.freeze()
        outage = await during(seconds, replicas, warm, cold)
        assert {await replica.state() for replica in replicas} == {"leases"}
        await postgres.start() if how == "stopped" else postgres.thaw()
        away_s = time.monotonic() - away_s
        normal_s, got = await back_to_normal(replicas, cold[0], "back")
        running = await asyncio.gather(*streams)
        for replica in replicas:
            assert replica.stop() == 0
        seen += [*outage.warm, *outage.cold, *running, got]
        async with books_of(postgres.url) as database:
            await wait_settled(database)
            payers = [p.customer_id for p in (*warm, *cold)]
            _, rows = await check_books(database, sim, seen, payers)
    print(f"{how} for {away_s:.1f}s: {outage} normal after {normal_s:.2f}s seed={SEED}")
    _check_outage(outage, running)
    booked = {row["metadata"]["mark"] for row in rows}
    assert {one.mark for one in outage.reports if one.status == 200} <= booked


def _check_outage(outage: Figures, running: list[Got]) -> None:
    refusals([*outage.warm, *outage.cold, *outage.reports])
    assert all(one.whole and not one.cut for one in running), "a stream under way was cut"
    waited = [one for one in outage.warm if one.status != 200 or not one.whole]
    assert not waited, "a customer with leased credit was not served"
    assert {one.status for one in outage.cold} == {503}
    assert {one.status for one in outage.reports} <= {200, 503}
    assert slowest(outage.cold) < REFUSED_WITHIN_S
    assert slowest(outage.reports) < REPORT_REFUSED_WITHIN_S
