"""A real network that loses packets: gateway, provider and PostgreSQL speak over a link of two
network namespaces, which goes down for moments and then for long. Nothing stays stuck."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from away_kit import Load, books_of, own_postgres, warm_up
from link_kit import IDLE_S, behind, booked, healed, ip, namespace, set_up
from rig_kit import LONG, Replica, free_port, make_payer, started

from lava_proxy.net.simulated import SimulatedProvider

SEED = 20261206
FLAPPING_S = 20.0
DOWN_S = 20.0
HERE, THERE = "10.213.7.1", "10.213.7.2"


@dataclass
class Link:
    """A virtual cable between this machine's network and another one."""

    name: str

    def set(self, up: bool) -> None:
        assert ip("link", "set", f"{self.name}h", "up" if up else "down").returncode == 0


@pytest.fixture
def link() -> Iterator[Link]:
    name = f"lava{free_port()}"
    with namespace(name):
        try:
            set_up(
                f"link add {name}h type veth peer name {name}f netns {name}",
                f"addr add {HERE}/30 dev {name}h",
                f"link set {name}h up",
                f"-n {name} addr add {THERE}/30 dev {name}f",
                f"-n {name} link set {name}f up",
                f"-n {name} link set lo up",
            )
            yield Link(name)
        finally:
            ip("link", "del", f"{name}h")


@pytest.mark.skipif(not LONG, reason="a minute: make soak")
@pytest.mark.timeout(300)
async def test_nothing_stays_stuck(link: Link, tmp_path: Path) -> None:
    async with own_postgres() as postgres, SimulatedProvider(host=HERE) as sim:
        async with behind(link.name, THERE, postgres.url, sim, tmp_path / "a") as replica:
            await over_the_link(link, replica, postgres.url, sim)


async def over_the_link(
    link: Link, replica: Replica, near_url: str, sim: SimulatedProvider
) -> None:
    rng = random.Random(SEED)
    async with books_of(near_url) as database:
        warm = [await make_payer(database, "100.00") for _ in range(4)]
        cold = await make_payer(database, "100.00")
    await started(replica)
    seen = await warm_up([replica], warm)
    load = Load([replica], warm, rng, tokens=(5, 40, 80))
    load.start(6)
    until_s, flaps = time.monotonic() + FLAPPING_S, 0
    while time.monotonic() < until_s:
        await asyncio.sleep(rng.uniform(0.3, 1.5))
        link.set(up=False)
        await asyncio.sleep(rng.uniform(0.05, 0.4))
        link.set(up=True)
        flaps += 1
    link.set(up=False)
    await asyncio.sleep(DOWN_S)
    link.set(up=True)
    healed_s = time.monotonic()
    normal_s, got = await healed(replica, load, cold, healed_s)
    rows = await booked(near_url, sim, [*seen, *load.seen, got], [*warm, cold])
    statuses: dict[int, int] = {}
    for one in load.seen:
        statuses[one.status] = statuses.get(one.status, 0) + 1
    slowest = max(one.took_s for one in load.seen)
    print(
        f"{flaps} short losses, {DOWN_S:.0f} s down: {len(load.seen)} calls by status {statuses}, "
        f"{sum(row['outcome'] == 'truncated' for row in rows)} truncated, slowest "
        f"{slowest:.1f}s, normal {normal_s:.2f}s after it healed; lost=0 double=0 seed={SEED}"
    )
    assert slowest < DOWN_S + 2 * IDLE_S
