"""The network between gateway and PostgreSQL: slow, cut again and again, and a black hole."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from away_kit import Figures, Load, back_to_normal, books_of, during, own_postgres, slowest, warm_up
from fault_proxy import FaultProxy, fault_proxy
from rig_kit import LONG, Payer, Replica, make_payer, started, wait_settled
from truth import check_books, refusals

from lava_proxy.net.simulated import SimulatedProvider

SEED = 20261128
SECONDS = 30.0 if LONG else 4.0
REFUSED_WITHIN_S = 4.5
"""Four questions of a second each, and a busy machine."""
CONNECTIONS = 2 * (4 + 1 + 1)
"""Two replicas: the pool, the listener, the prober. What dies may linger for a moment."""


async def _cut_often(proxy: FaultProxy, seconds: float, rng: random.Random) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        proxy.cut()
        proxy.refusing = rng.random() < 0.5
        await asyncio.sleep(rng.uniform(0.05, 0.6))
    proxy.refusing = False


async def _fault(
    proxy: FaultProxy, kind: str, rng: random.Random, replicas: Sequence[Replica], *who: list[Payer]
) -> Figures:
    warm, cold = who
    going = asyncio.create_task(during(SECONDS, replicas, warm, cold))
    if kind == "slow":
        proxy.latency_s = 0.15
        figures = await going
        proxy.latency_s = 0.0
    elif kind == "cut":
        await _cut_often(proxy, SECONDS, rng)
        figures = await going
    else:
        proxy.swallow()
        figures = await going
        proxy.flow()
    return figures


@pytest.mark.parametrize("kind", ["slow", "cut", "black hole"])
@pytest.mark.timeout(90 if not LONG else 300)
async def test_network(tmp_path: Path, kind: str) -> None:
    rng = random.Random(SEED)
    async with (
        own_postgres() as postgres,
        SimulatedProvider() as sim,
        fault_proxy(postgres.url) as proxy,
    ):
        async with books_of(postgres.url) as database:
            warm = [await make_payer(database, "100.00") for _ in range(3)]
            cold = [await make_payer(database, "100.00") for _ in range(3)]
        replicas = [Replica(proxy.url, tmp_path / name, sim.url) for name in ("a", "b")]
        await started(*replicas)
        seen = await warm_up(replicas, warm)
        figures = await _fault(proxy, kind, rng, replicas, warm, cold)
        proxy.most_open = 0
        opened = proxy.opened
        normal_s, got = await back_to_normal(replicas, cold[0], "back")
        again = Load(replicas, [*warm, *cold], rng, "again")
        again.start(8)
        await asyncio.sleep(1.0)
        await again.stop()
        for replica in replicas:
            assert await asyncio.to_thread(replica.stop) == 0  # the proxy must go on
        async with books_of(postgres.url) as database:
            await wait_settled(database)
            payers = [p.customer_id for p in (*warm, *cold)]
            seen += [*figures.warm, *figures.cold, *again.seen, got]
            await check_books(database, sim, seen, payers)
    print(
        f"{kind} {SECONDS}s: {figures} normal after {normal_s:.2f}s, then "
        f"{proxy.opened - opened} new connections, {proxy.most_open} open at most seed={SEED}"
    )
    codes = refusals([*figures.warm, *figures.cold, *figures.reports])
    assert codes[0] == 0
    waited = [one for one in figures.warm if one.status != 200 or not one.whole]
    assert not waited, "a customer with leased credit was not served"
    assert slowest(figures.cold) < REFUSED_WITHIN_S
    assert {one.status for one in again.seen} == {200}
    assert proxy.most_open <= CONNECTIONS + 4
