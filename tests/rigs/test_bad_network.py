"""A network that delays, loses, doubles and reorders packets between the gateway, its provider and
PostgreSQL: slower, but nothing is lost, booked twice or stuck, and it ends as it began."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from away_kit import Load, books_of, own_postgres, warm_up
from link_kit import behind, booked, healed, namespace, set_up
from rig_kit import LONG, Replica, free_port, make_payer, started

from lava_proxy.net.simulated import SimulatedProvider

SEED = 20261129
HERE, THERE = "10.213.8.1", "10.213.8.2"
RIG = Path(__file__).with_name("bad_link.py")
PHASE_S = 120.0 if LONG else 4.0
CLEAN = "0 0 0 0"
PHASES = {
    "far": "20 5 0 0",
    "reordering": "20 15 2 2",
    "lossy": "15 10 20 5",
    "bad": "60 40 50 10",
}
"""Delay and jitter in ms, lost and doubled per mille; the way to the provider crosses it twice."""


@dataclass
class BadLink:
    """A cable into another network, and the process that spoils what passes."""

    name: str
    relay: subprocess.Popen[str]

    def becomes(self, how: str) -> None:
        assert self.relay.stdin is not None
        self.relay.stdin.write(f"{how}\n")
        self.relay.stdin.flush()

    def ends(self) -> str:
        told, _ = self.relay.communicate(timeout=10)
        return told.strip()


@pytest.fixture
def link() -> Iterator[BadLink]:
    name = f"bad{free_port()}"
    with namespace(name):
        relay = subprocess.Popen(
            [sys.executable, str(RIG), f"{name}h", f"{name}f", str(SEED)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert relay.stdout is not None
            if relay.stdout.readline() != "ready\n":
                told = relay.communicate()[1].strip().rpartition("\n")[2]
                pytest.skip(f"no TUN device can be made here: {told}")
            set_up(
                f"link set {name}f netns {name}",
                f"addr add {HERE} peer {THERE} dev {name}h",
                f"link set {name}h up",
                f"-n {name} addr add {THERE} peer {HERE} dev {name}f",
                f"-n {name} link set {name}f up",
                f"-n {name} link set lo up",
            )
            yield BadLink(name, relay)
        finally:
            relay.kill()
            relay.communicate()


@pytest.mark.timeout(120 if not LONG else 1200)
async def test_slower_and_otherwise_the_same(link: BadLink, tmp_path: Path) -> None:
    async with own_postgres() as postgres, SimulatedProvider(host=HERE) as sim:
        async with behind(link.name, THERE, postgres.url, sim, tmp_path / "a") as replica:
            await _soak(link, replica, postgres.url, sim)


async def _soak(link: BadLink, replica: Replica, near_url: str, sim: SimulatedProvider) -> None:
    rng = random.Random(SEED)
    async with books_of(near_url) as database:
        warm = [await make_payer(database, "500.00") for _ in range(4)]
        cold = await make_payer(database, "100.00")
    await started(replica)
    seen = await warm_up([replica], warm)
    load = Load([replica], warm, rng, tokens=(5, 40, 80))
    load.start(6)
    for name, how in PHASES.items():
        began_s = time.monotonic()
        link.becomes(how)
        await asyncio.sleep(PHASE_S)
        during = load.since(began_s)
        codes = dict(sorted(Counter(one.status for one in during).items()))
        first_s = sorted(one.first_s for one in during if one.status == 200)
        middle_s = first_s[len(first_s) // 2] if first_s else 0.0
        print(f"{name} ({how}): calls by status {codes}, half had a head within {middle_s:.3f}s")
        assert codes.get(200), f"nothing is served: {name}"
    link.becomes(CLEAN)
    healed_s = time.monotonic()
    normal_s, got = await healed(replica, load, cold, healed_s)
    rows = await booked(near_url, sim, [*seen, *load.seen, got], [*warm, cold])
    print(
        f"{len(load.seen)} calls, {sum(row['outcome'] == 'truncated' for row in rows)} truncated, "
        f"slowest {max(one.took_s for one in load.seen):.1f}s, normal {normal_s:.2f}s after it "
        f"healed; {link.ends()}; lost=0 double=0 seed={SEED}"
    )
    assert {one.status for one in load.seen} <= {200, 502, 503, 504}
