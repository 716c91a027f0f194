"""A network that delays, loses, doubles and reorders packets between the gateway, its provider and
PostgreSQL: slower, but nothing is lost, booked twice or stuck, and it ends as it began."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from away_kit import Load, back_to_normal, books_of, own_postgres, warm_up
from rig_kit import LONG, Replica, free_port, make_payer, started, wait_settled
from test_lossy_network import FORWARD, IDLE_S, ip
from truth import check_books

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
    try:
        made = ip("netns", "add", name)
    except FileNotFoundError:
        pytest.skip("there is no `ip` here")
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
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
        for words in (
            f"link set {name}f netns {name}",
            f"addr add {HERE} peer {THERE} dev {name}h",
            f"link set {name}h up",
            f"-n {name} addr add {THERE} peer {HERE} dev {name}f",
            f"-n {name} link set {name}f up",
            f"-n {name} link set lo up",
        ):
            done = ip(*words.split())
            assert done.returncode == 0, done.stderr
        yield BadLink(name, relay)
    finally:
        relay.kill()
        relay.communicate()
        ip("netns", "del", name)


@pytest.mark.timeout(120 if not LONG else 1200)
async def test_slower_and_otherwise_the_same(link: BadLink, tmp_path: Path) -> None:
    async with own_postgres() as postgres, SimulatedProvider(host=HERE) as sim:
        parts = urlsplit(postgres.url)
        unix = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        ports = str(free_port()), str(free_port())
        pairs = [ports[0], unix, ports[1], sim.url.removeprefix("http://")]
        far = ["ip", "netns", "exec", link.name, sys.executable, "-c", FORWARD, THERE, *pairs]
        with subprocess.Popen(far, stdout=subprocess.PIPE) as forwarding:
            try:
                assert forwarding.stdout is not None
                assert forwarding.stdout.readline() == b"ready\n"
                url = f"postgresql://postgres@{THERE}:{ports[0]}{parts.path}?sslmode=disable"
                replica = Replica(url, tmp_path / "a", f"http://{THERE}:{ports[1]}")
                await _soak(link, replica, postgres.url, sim)
            finally:
                forwarding.kill()


async def _soak(link: BadLink, replica: Replica, near_url: str, sim: SimulatedProvider) -> None:
    rng = random.Random(SEED)
    async with books_of(near_url) as database:
        warm = [await make_payer(database, "500.00") for _ in range(4)]
        cold = await make_payer(database, "100.00")
    replica.extra = {
        "LAVA_ALLOW_INSECURE_UPSTREAMS": "1",
        "LAVA_IDLE_TIMEOUT_S": str(IDLE_S),
        "LAVA_FIRST_BYTE_TIMEOUT_S": str(IDLE_S),
    }
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
    normal_s, got = await back_to_normal([replica], cold, "back")
    await asyncio.sleep(2.0)
    later = load.since(healed_s + normal_s)
    await load.stop()
    await asyncio.sleep(1.5)  # the gauges are sampled every second
    text = (await replica.get("/metrics"))[1].decode()
    for gauge in ("lava_open_calls", "lava_holds_open"):
        assert re.search(rf"^{gauge} 0\.0$", text, re.MULTILINE), f"calls are stuck: {gauge}"
    assert await asyncio.to_thread(replica.stop) == 0
    async with books_of(near_url) as database:
        await wait_settled(database)
        seen += [*load.seen, got]
        _, rows = await check_books(database, sim, seen, [p.customer_id for p in (*warm, cold)])
    print(
        f"{len(load.seen)} calls, {sum(row['outcome'] == 'truncated' for row in rows)} truncated, "
        f"slowest {max(one.took_s for one in load.seen):.1f}s, normal {normal_s:.2f}s after it "
        f"healed; {link.ends()}; lost=0 double=0 seed={SEED}"
    )
    assert later
    assert all(one.status == 200 and one.whole for one in later)
    assert {one.status for one in load.seen} <= {200, 502, 503, 504}
