"""A real network that loses packets: gateway, provider and PostgreSQL speak over a link of two
network namespaces, which goes down for moments and then for long. Nothing stays stuck."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from away_kit import Load, back_to_normal, books_of, own_postgres, warm_up
from rig_kit import LONG, Replica, free_port, make_payer, started, wait_settled
from truth import check_books

from lava_proxy.net.simulated import SimulatedProvider

SEED = 20261206
FLAPPING_S = 20.0
DOWN_S = 20.0
HERE, THERE = "10.213.7.1", "10.213.7.2"
IDLE_S = 5

FORWARD = """
import asyncio, sys
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort()
async def serve(reader, writer, target):
    host, _, port = target.rpartition(":")
    try:
        if host:
            other = await asyncio.open_connection(host, int(port))
        else:
            other = await asyncio.open_unix_connection(target)
    except OSError:
        writer.transport.abort()
        return
    await asyncio.gather(pump(reader, other[1]), pump(other[0], writer))
async def main(host, *pairs):
    for port, target in zip(pairs[::2], pairs[1::2]):
        await asyncio.start_server(lambda r, w, t=target: serve(r, w, t), host, int(port))
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True)


@dataclass
class Link:
    """A virtual cable between this machine's network and another one."""

    name: str

    def set(self, up: bool) -> None:
        assert ip("link", "set", f"{self.name}h", "up" if up else "down").returncode == 0

    def far(self, *command: str) -> list[str]:
        """A command that runs at the far end."""
        return ["ip", "netns", "exec", self.name, *command]


@pytest.fixture
def link() -> Iterator[Link]:
    name = f"lava{free_port()}"
    try:
        made = ip("netns", "add", name)
    except FileNotFoundError:
        pytest.skip("there is no `ip` here")
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    try:
        for words in (
            f"link add {name}h type veth peer name {name}f netns {name}",
            f"addr add {HERE}/30 dev {name}h",
            f"link set {name}h up",
            f"-n {name} addr add {THERE}/30 dev {name}f",
            f"-n {name} link set {name}f up",
            f"-n {name} link set lo up",
        ):
            done = ip(*words.split())
            assert done.returncode == 0, done.stderr
        yield Link(name)
    finally:
        ip("link", "del", f"{name}h")
        ip("netns", "del", name)


@pytest.mark.skipif(not LONG, reason="a minute: make soak")
@pytest.mark.timeout(300)
async def test_nothing_stays_stuck(link: Link, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    async with own_postgres() as postgres, SimulatedProvider(host=HERE) as sim:
        parts = urlsplit(postgres.url)
        unix = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        ports = str(free_port()), str(free_port())
        command = [sys.executable, "-c", FORWARD, THERE]
        pairs = [ports[0], unix, ports[1], sim.url.removeprefix("http://")]
        with subprocess.Popen(link.far(*command, *pairs), stdout=subprocess.PIPE) as far:
            try:
                assert far.stdout is not None
                assert far.stdout.readline() == b"ready\n"
                await over_the_link(link, postgres.url, parts.path, ports, sim, rng, tmp_path)
            finally:
                far.kill()


async def over_the_link(
    link: Link, near_url: str, name: str, ports: tuple[str, str], sim: SimulatedProvider,
    rng: random.Random, tmp_path: Path,
) -> None:  # fmt: skip
    async with books_of(near_url) as database:
        warm = [await make_payer(database, "100.00") for _ in range(4)]
        cold = await make_payer(database, "100.00")
    url = f"postgresql://postgres@{THERE}:{ports[0]}{name}?sslmode=disable"
    replica = Replica(url, tmp_path / "a", f"http://{THERE}:{ports[1]}")
    replica.extra = {
        "LAVA_ALLOW_INSECURE_UPSTREAMS": "1",
        "LAVA_IDLE_TIMEOUT_S": str(IDLE_S),
        "LAVA_FIRST_BYTE_TIMEOUT_S": str(IDLE_S),
    }
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
    assert later
    assert all(one.status == 200 and one.whole for one in later)
