"""A PostgreSQL of the rig's own, to be killed, stopped and frozen, and load that never stops."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from rig_kit import LONG, Got, Payer, Replica, call, report

from lava_proxy.store.database import Database, StoreError
from lava_proxy.store.embedded import EmbeddedServer, start_embedded
from lava_proxy.store.migrate import migrate


class Postgres:
    """A server in a folder. `url` stays the same over its deaths."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self._folder = folder
        self._servers = [server]
        self._frozen: list[psutil.Process] = []
        self.url = server.url

    def kill(self) -> None:
        """SIGKILL to the postmaster; its children find out by themselves."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As ``pg_ctl stop -m immediate``: no checkpoint, recovery at the next start."""
        self._end(signal.SIGQUIT)

    async def start(self) -> float:
        """Start it again; answers how long that took."""
        started = time.monotonic()
        self._servers.append(await start_embedded(self._folder))
        return time.monotonic() - started

    def freeze(self) -> None:
        """SIGSTOP to every process of the server: it refuses nothing and answers nothing."""
        first = psutil.Process(self._servers[-1].pid)
        self._frozen = [first, *first.children(recursive=True)]
        for process in self._frozen:
            process.suspend()

    def thaw(self) -> None:
        for process in self._frozen:
            if process.is_running():
                process.resume()
        self._frozen = []

    async def close(self) -> None:
        self.thaw()
        for server in self._servers:
            await server.release()

    def _end(self, number: signal.Signals) -> None:
        pid = self._servers[-1].pid
        assert pid is not None
        os.kill(pid, number)
        while self._servers[-1].pid is not None:
            time.sleep(0.01)


@asynccontextmanager
async def own_postgres() -> AsyncIterator[Postgres]:
    """A durable server (fsync on, unlike the tests' shared one), migrated. Not in pytest's folder:
    another run closes that to all other users, and PostgreSQL does not run as root."""
    with tempfile.TemporaryDirectory(prefix="lava-rig-") as name:
        postgres = Postgres(Path(name), await start_embedded(Path(name)))
        try:
            await migrate(postgres.url)
            yield postgres
        finally:
            await postgres.close()


@asynccontextmanager
async def books_of(url: str) -> AsyncIterator[Database]:
    """A pool of the rig's own, for seeding and for looking."""
    database = Database(url, size=2)
    for _ in range(100):
        try:
            await database.open()
            break
        except StoreError:
            await asyncio.sleep(0.1)
    yield database
    await database.close()


class Load:
    """Calls without end, from several workers at once, to all replicas and for all payers."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        payers: Sequence[Payer],
        rng: random.Random,
        name: str = "",
        tokens: Sequence[int] = (5, 40, 80),
        pace_ms: int = 5,
    ) -> None:
        self._name = name
        self._tokens = tokens
        self._pace_ms = pace_ms
        self._replicas = replicas
        self._payers = payers
        self._rng = rng
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.seen: list[Got] = []

    def start(self, workers: int) -> None:
        self._tasks = [asyncio.create_task(self._work(n)) for n in range(workers)]

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    def since(self, moment_s: float) -> list[Got]:
        """Calls that were asked after that moment."""
        return [one for one in self.seen if one.asked_s >= moment_s]

    async def _work(self, worker: int) -> None:
        rng, number = self._rng, 0
        while not self._stop.is_set():
            number += 1
            got = await call(
                rng.choice(self._replicas).port,
                rng.choice(self._payers),
                f"{self._name}w{worker}n{number}",
                tokens=rng.choice(self._tokens),
                pace_ms=self._pace_ms,
                stream=rng.random() < 0.8,
            )
            self.seen.append(got)
            await asyncio.sleep(0.05 if got.status != 200 else 0.01)


async def warm_up(
    replicas: Sequence[Replica], payers: Sequence[Payer], seconds: float = 6.0 if LONG else 2.5
) -> list[Got]:
    """Have these customers burn so much that half a minute of it lasts for `during`."""
    load = Load(replicas, payers, random.Random(0), name="warm", tokens=(800, 1200), pace_ms=0)
    load.start(8)
    await asyncio.sleep(seconds)
    await load.stop()
    # On a busy machine chance may have left a customer out at one of the replicas.
    for number, replica in enumerate(replicas):
        for payer in payers:
            mark = f"warm{number}{payer.customer_id[-6:]}"
            load.seen.append(
                await call(replica.port, payer, mark, tokens=1000, pace_ms=0, stream=True)
            )
    return load.seen


async def back_to_normal(replicas: Sequence[Replica], payer: Payer, mark: str) -> tuple[float, Got]:
    """Until every replica says so and a customer nobody knows is served; how long that took."""
    started = time.monotonic()
    for replica in replicas:
        await replica.becomes("normal")
    for attempt in range(200):
        got = await call(
            replicas[0].port, payer, f"{mark}t{attempt}", tokens=5, pace_ms=1, stream=True
        )
        if got.status == 200:
            return time.monotonic() - started, got
        await asyncio.sleep(0.05)
    raise AssertionError("a new customer is never served again")


class Figures:
    """What one outage did to three kinds of callers."""

    def __init__(self) -> None:
        self.warm: list[Got] = []
        self.cold: list[Got] = []
        self.reports: list[Got] = []

    def __str__(self) -> str:
        return (
            f"warm={_codes(self.warm)} cold={_codes(self.cold)} reports={_codes(self.reports)} "
            f"slowest refusal {slowest(self.cold):.2f}s, of a report {slowest(self.reports):.2f}s"
        )


def slowest(seen: Sequence[Got]) -> float:
    """The longest wait for a 503."""
    return max((one.first_s for one in seen if one.status == 503), default=0.0)


def _codes(seen: Sequence[Got]) -> dict[int, int]:
    return dict(sorted(Counter(one.status for one in seen).items()))


async def during(
    seconds: float, replicas: Sequence[Replica], warm: Sequence[Payer], cold: Sequence[Payer]
) -> Figures:
    """While the database is away: calls of customers with leased credit, at less than half of the
    rate that they are used to; of others; and reports."""
    figures = Figures()
    until_s = time.monotonic() + seconds
    mark = f"d{until_s:.0f}"

    async def ask(who: Sequence[Payer], into: list[Got], what: str, pause_s: float) -> None:
        number = 0
        while time.monotonic() < until_s:
            number += 1
            for index, replica in enumerate(replicas):
                payer, name = who[number % len(who)], f"{mark}{what}{number}i{index}"
                if what == "report":
                    into.append(await report(replica.port, payer, name))
                else:
                    into.append(
                        await call(replica.port, payer, name, tokens=30, pace_ms=5, stream=True)
                    )
            await asyncio.sleep(pause_s)

    await asyncio.gather(
        ask(warm, figures.warm, "warm", 0.25),
        ask(cold, figures.cold, "cold", 0.1),
        ask(warm, figures.reports, "report", 0.3),
    )
    return figures
