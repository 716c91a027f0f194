"""A gateway in a network of its own kind: everything that it speaks to lies behind a cable."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from away_kit import Load, back_to_normal, books_of
from rig_kit import Got, Payer, Replica, free_port, wait_settled
from truth import check_books

from lava_proxy.net.simulated import SimulatedProvider

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


def set_up(*commands: str) -> None:
    for words in commands:
        done = ip(*words.split())
        assert done.returncode == 0, done.stderr


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """A network beside this machine's; skips where none can be made."""
    try:
        made = ip("netns", "add", name)
    except FileNotFoundError:
        pytest.skip("there is no `ip` here")
    if made.returncode:
        pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
    try:
        yield
    finally:
        ip("netns", "del", name)


@asynccontextmanager
async def behind(
    name: str, there: str, postgres_url: str, sim: SimulatedProvider, folder: Path
) -> AsyncIterator[Replica]:
    """A gateway, not started, whose PostgreSQL and provider it finds at `there`, the far end in the
    namespace `name`."""
    parts = urlsplit(postgres_url)
    unix = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
    ports = str(free_port()), str(free_port())
    pairs = [ports[0], unix, ports[1], sim.url.removeprefix("http://")]
    far = ["ip", "netns", "exec", name, sys.executable, "-c", FORWARD, there, *pairs]
    with subprocess.Popen(far, stdout=subprocess.PIPE) as forwarding:
        try:
            assert forwarding.stdout is not None
            assert forwarding.stdout.readline() == b"ready\n"
            url = f"postgresql://postgres@{there}:{ports[0]}{parts.path}?sslmode=disable"
            replica = Replica(url, folder, f"http://{there}:{ports[1]}")
            replica.extra = {
                "LAVA_ALLOW_INSECURE_UPSTREAMS": "1",
                "LAVA_IDLE_TIMEOUT_S": str(IDLE_S),
                "LAVA_FIRST_BYTE_TIMEOUT_S": str(IDLE_S),
            }
            yield replica
        finally:
            forwarding.kill()


async def healed(replica: Replica, load: Load, cold: Payer, since_s: float) -> tuple[float, Got]:
    """The cable is whole since `since_s`: calls are served whole again, and when they are over
    nothing is stuck. Answers how long that took, and the first call of somebody new."""
    normal_s, got = await back_to_normal([replica], cold, "back")
    await asyncio.sleep(2.0)
    later = load.since(since_s + normal_s)
    await load.stop()
    await asyncio.sleep(1.5)  # the gauges are sampled every second
    text = (await replica.get("/metrics"))[1].decode()
    for gauge in ("lava_open_calls", "lava_holds_open"):
        assert re.search(rf"^{gauge} 0\.0$", text, re.MULTILINE), f"calls are stuck: {gauge}"
    assert await asyncio.to_thread(replica.stop) == 0
    assert later
    assert all(one.status == 200 and one.whole for one in later)
    return normal_s, got


async def booked(
    url: str, sim: SimulatedProvider, seen: list[Got], payers: list[Payer]
) -> list[dict[str, Any]]:
    """Nothing is lost or twice; answers the rows."""
    async with books_of(url) as database:
        await wait_settled(database)
        _, rows = await check_books(database, sim, seen, [p.customer_id for p in payers])
    return rows
