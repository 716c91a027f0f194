"""Two workers with the real Books on one fake server, and whatever can happen to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import fake_books
from fake_books import FakeDatabase, FakeServer
from virtual import START, DriftingClock, VirtualLoop

from lava_proxy.books import replay
from lava_proxy.books.bank import Books
from lava_proxy.books.leases import Hold
from lava_proxy.core.errors import LavaError
from lava_proxy.core.settings import Settings
from lava_proxy.rules.charge import Counts
from lava_proxy.rules.pricebook import PriceBook
from lava_proxy.rules.settlement import Call, Settlement
from lava_proxy.store.database import StoreError
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.upkeep import Upkeep

INPUT = 5
SLICE = 12
LEASE_S, GRACE_S, RECLAIM_S = 6.0, 2.0, 2.0
METRICS = Metrics(["openai"])
PRICES = PriceBook()
SETTINGS = Settings(
    lease_s=LEASE_S, lease_grace_s=GRACE_S, lease_reclaim_s=RECLAIM_S, lease_burn_s=3.0,
    recall_wait_s=0.0, journal_segment_bytes=2**16, drain_timeout_s=60.0,
)  # fmt: skip


class Worker:
    """One process. `kill` stops it anywhere; `freeze` is SIGSTOP."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.running = asyncio.Event()
        self.running.set()
        self.database = FakeDatabase(world.server, self.running)
        self.clock = DriftingClock(world.loop, world.rng.choice((0.999, 1.0, 1.001)))
        self.books = Books(
            world.settings,
            self.database,  # type: ignore[arg-type]
            self.clock,
            on_flush=lambda rows, seconds: None,
            on_booked=lambda rows: self.acked.update(row.call.request_id for row, _ in rows),
        )
        self.acked: set[str] = set()
        self.upkeep = Upkeep(self.books, METRICS, lambda: None)
        self.tasks: set[asyncio.Task[None]] = set()
        self.dead = False

    async def start(self) -> None:
        await self.books.open()
        self.spawn(self._keep())

    def spawn(self, going: Any) -> None:
        task = asyncio.create_task(going)
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.failed.append(error)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.running.wait()

    def kill(self) -> None:
        """SIGKILL: nothing of it goes on, and the kernel lets go of its lock."""
        self.dead = self.database.dead = True
        journal = self.books.journal
        writing = self.books._writing
        for task in (*self.tasks, *self.books.leases._tasks, *([writing] if writing else [])):
            task.cancel()
        last = journal._last
        if self.world.rng.random() < 0.5:  # it was in the middle of a store
            self.world.seen["torn tail"] += 1
            last._map[last.size : last.size + 7] = b"\x28\x00\x00\x00\x01\x02\x03"
        for segment in journal._segments:
            segment.close()
        os.close(journal._lock_fd)
        journal.hold = journal.sent = journal.progress = journal.settle = _dead  # type: ignore

    async def call(self, request_id: str, owner_id: str, tokens: int, *, strict: bool) -> None:
        """One call, as proxy/ drives the books."""
        world, books = self.world, self.books
        await self.running.wait()
        first = INPUT + (tokens if strict else min(tokens, SLICE))
        account = books.leases.account(owner_id)
        try:
            hold = await books.leases.hold(account, first, first, 0)
        except LavaError as error:
            world.seen[str(error.status)] += 1
            return
        if not isinstance(hold, Hold):
            world.seen["refused"] += 1
            return
        if self.dead:
            return
        self.backed(owner_id)
        call = _call(request_id, owner_id, books.journal.holder_id)
        seq = books.admit(call)
        if world.rng.random() < 0.05:
            books.settle(seq, _row(call, "void", 0, 0), hold, 0)
            return
        await self.pause(world.rng.choice((0.0, 0.02)))  # connecting
        if self.dead:
            return
        books.journal.sent(seq)
        world.sent[request_id] = INPUT
        made, outcome = await self._stream(request_id, seq, hold, tokens)
        if not self.dead:
            books.settle(seq, _row(call, outcome, INPUT, made), hold, INPUT + made)

    async def _stream(self, request_id: str, seq: int, hold: Hold, tokens: int) -> tuple[int, str]:
        world, rng, made = self.world, self.world.rng, 0
        while made < tokens:
            await self.pause(rng.choice((0.01, 0.05, 0.3)))
            if self.dead:
                break
            step = min(rng.randint(1, 5), tokens - made)
            lacking = INPUT + made + step - hold.amount_e10
            if lacking > 0 and not (
                hold.extend(lacking) or await hold.extend_soon(lacking, lacking + SLICE, 0.5)
            ):
                world.seen["cut"] += 1
                return made, "cut_off"
            if self.dead:
                break
            if not hold.covered_at(self.clock.boot_s()):
                world.seen["lapsed in a stream"] += 1
                return made, "cut_off"
            self.backed(hold.account.owner_id)
            self.books.journal.progress(seq, INPUT, made + step, 0, 0)
            made += step
            world.sent[request_id] = INPUT + made
        return made, "completed"

    def backed(self, owner_id: str) -> None:
        """Whenever it opens a hold or sends, what this worker believes it may spend is there: in
        leases, or spent for rows whose commit it has not heard of."""
        account = self.books.leases.accounts[owner_id]
        t = self.world.server.tables
        holder = self.books.journal.holder_id
        unheard = sum(
            t.leased_part[request_id]
            for request_id, row in t.rows.items()
            if row.call.owner_id == owner_id
            and row.call.holder_id == holder
            and request_id not in self.acked
        )
        claims = account.free_e10 + account.held_e10 + account.pending_e10
        there = self.world.server.leased_e10(owner_id, holder) + unheard
        assert claims <= there, f"{self.name} claims {claims} of {owner_id}, {there} is there"

    async def _keep(self) -> None:
        """What Upkeep does, on virtual time."""
        while True:
            await self.pause(LEASE_S / 4)
            for job in (self.upkeep.keep_leases, self.upkeep.reap):
                with contextlib.suppress(StoreError, LavaError):
                    await job()


class World:
    """One seed's schedule."""

    def __init__(self, loop: VirtualLoop, folder: Path, seed: int, seen: Counter[str]) -> None:
        self.loop = loop
        self.rng = random.Random(seed)
        self.seen = seen
        self.server = FakeServer(loop, self.rng, seen)
        rows = self.rng.choice((1, 3, 50))
        self.settings = SETTINGS.model_copy(update={"data_dir": folder, "writer_batch_rows": rows})
        self.sent: dict[str, int] = {}
        """What the provider was asked, and what clients got: input and output, by request."""
        self.workers: list[Worker] = []
        self.reported = 0
        self.failed: list[BaseException] = []

    async def run(self) -> None:
        rng, server = self.rng, self.server
        owners = ["con_hot", "con_1", "con_2"]
        for owner_id in owners:
            server.grant(owner_id, rng.choice((60, 300, 2000)))
        self.workers = [Worker(self, "a"), Worker(self, "b")]
        await self._started()
        for number in range(rng.randint(15, 40)):
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.2, 0.8)))
            worker = rng.choice(self.workers)
            owner_id = rng.choice(("con_hot", "con_hot", *owners))
            going = worker.call(
                f"req_{number:04d}", owner_id, rng.randint(1, 60), strict=rng.random() < 0.5
            )
            worker.spawn(going)
            if rng.random() < 0.12:
                await self._event(worker)
            server.check()
        await self._end()

    async def _event(self, worker: Worker) -> None:
        rng, server = self.rng, self.server
        kind = rng.choice(("kill", "freeze", "long freeze", "away", "clock set", "grant", "report"))
        self.seen[kind] += 1
        if kind == "kill":
            await asyncio.sleep(rng.uniform(0, 0.3))
            worker.kill()
            await asyncio.sleep(rng.choice((0.0, 0.5, 12.0)))
            self.workers[self.workers.index(worker)] = Worker(self, f"{worker.name}'")
            await self._started()
        elif kind in ("freeze", "long freeze"):
            worker.running.clear()
            long_s = rng.uniform(GRACE_S + RECLAIM_S, LEASE_S + GRACE_S + RECLAIM_S + 3)
            await asyncio.sleep(rng.uniform(0.2, 3) if kind == "freeze" else long_s)
            worker.running.set()
        elif kind == "away":
            server.away_until_s = self.loop.now_s + rng.uniform(0.3, 4)
        elif kind == "clock set":
            # Once: there and back again between two looks is not noticed.
            server.ahead_s = server.ahead_s or rng.choice((3600.0, -3600.0))
        elif kind == "grant":
            server.grant(rng.choice(("con_hot", "con_1")), rng.randint(1, 200))
        else:
            self.reported += 1
            call = _call(f"rep_{self.reported}", "con_hot", "nobody")
            fake_books._book(server, _row(call, "completed", rng.randint(1, 30), 0))

    async def _started(self) -> None:
        """Whoever was made anew starts; a start that finds the database away is tried again."""
        for worker in self.workers:
            while worker.books._writing is None:
                try:
                    await worker.start()
                except StoreError:
                    await asyncio.sleep(0.2)

    async def _end(self) -> None:
        """No more faults: everybody finishes, the dead are replayed, what is over is reclaimed."""
        server = self.server
        server.faults, server.away_until_s = False, 0.0
        for worker in self.workers:
            worker.running.set()
        for worker in self.workers:
            keeping = [t for t in worker.tasks if "_keep" in repr(t.get_coro())]
            calls = worker.tasks - set(keeping)
            if calls:
                await asyncio.wait(calls)
            for task in keeping:
                task.cancel()
        await asyncio.sleep(0)
        for error in self.failed:
            raise error
        held = [a.held_e10 for w in self.workers for a in w.books.leases.accounts.values()]
        assert not any(held), f"holds are left: {held}"
        for worker in self.workers:
            await worker.books.close()
        database: Any = FakeDatabase(server)
        clock = DriftingClock(self.loop)
        again = [
            await replay.take_over(self.settings.data_dir / "journals", database, clock, PRICES)
            for _ in range(2)
        ]
        assert again[1] == [], "the second replay finds nothing"
        for owner_id, holder_id in server.expired(-1e9):
            server.give_back(owner_id, holder_id, None)
        self._judge()

    def _judge(self) -> None:
        server, t = self.server, self.server.tables
        server.check()
        for request_id, least in self.sent.items():
            assert request_id in t.rows, f"{request_id} ran and is not in the books"
            row = t.rows[request_id]
            assert t.charges[request_id] == least, (
                f"{request_id} ({row.outcome}): {least} was made, {t.charges[request_id]} charged"
            )
        for request_id, charge_e10 in t.charges.items():
            assert request_id in self.sent or request_id[:4] == "rep_" or not charge_e10
        late = self.seen["reclaimed"] or self.seen["given back late"]
        if not (self.reported or late):  # those may be charged what nobody has any more
            assert not any(t.debt.values()), f"overspend {dict(t.debt)}"


def _dead(*_args: object) -> None:
    raise asyncio.CancelledError


def _call(request_id: str, owner_id: str, holder_id: str) -> Call:
    return Call(
        request_id=request_id, merchant_id="mer_1", holder_id=holder_id, owner_id=owner_id,
        customer_id=owner_id, meter=None, cycle="2026-11", billable=True, provider="openai",
        provider_key_type="managed", model=None, endpoint="POST https://x/", stream=True,
        created_at=START, input_tokens=INPUT,
    )  # fmt: skip


def _row(call: Call, outcome: Any, inputs: int, outputs: int) -> Settlement:
    return Settlement(
        call=call, outcome=outcome, usage_source="estimate", counts=Counts(inputs, outputs),
        cost=None, model=None, status="error" if outcome == "void" else "completed",
    )  # fmt: skip
