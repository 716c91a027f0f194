"""PostgreSQL as the books see it, in plain Python: grants, leases, charges, debt, request ids.

It has the functions of store.credit and store.settle that the real Books call, with the same
meaning. What a transaction did is undone if it does not commit; an answer can be lost after it did.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from virtual import VirtualLoop

from lava_proxy.rules.settlement import Booked, Settlement
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk, _size
from lava_proxy.store.database import StoreConflict, StoreDown
from lava_proxy.store.outage import Outage


@dataclass
class Lease:
    """A slice of an owner's credit at a worker."""

    lease_id: str
    owner_id: str
    holder_id: str
    amount_e10: int
    left_e10: int
    expires_s: float


@dataclass
class Tables:
    """Everything that a transaction can change."""

    granted: Counter[str] = field(default_factory=Counter)
    available: Counter[str] = field(default_factory=Counter)
    spent: Counter[str] = field(default_factory=Counter)
    debt: Counter[str] = field(default_factory=Counter)
    leases: dict[str, Lease] = field(default_factory=dict)
    rows: dict[str, Settlement] = field(default_factory=dict)
    charges: dict[str, int] = field(default_factory=dict)
    leased_part: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Tables:
        """As they are now; of what they hold only leases change."""
        same = {one.name: copy.copy(getattr(self, one.name)) for one in fields(self)}
        same["leases"] = {key: copy.copy(lease) for key, lease in self.leases.items()}
        return Tables(**same)


class FakeServer:
    """The one server that all workers share."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, seen: Counter[str]) -> None:
        self.loop = loop
        self.rng = rng
        self.seen = seen
        self.tables = Tables()
        self.away_until_s = 0.0
        self.ahead_s = 0.0
        """By how much its clock was set."""
        self.faults = True

    @property
    def now_s(self) -> float:
        """Its own clock."""
        return self.loop.now_s + self.ahead_s

    def grant(self, owner_id: str, amount_e10: int) -> None:
        """Credit comes in; old debt is paid first."""
        t = self.tables
        repaid = min(t.debt[owner_id], amount_e10)
        t.granted[owner_id] += amount_e10
        t.debt[owner_id] -= repaid
        t.spent[owner_id] += repaid
        t.available[owner_id] += amount_e10 - repaid

    def leased_e10(self, owner_id: str, holder_id: str | None = None) -> int:
        """What of an owner's credit is at a worker, or at all of them."""
        return sum(
            lease.left_e10
            for lease in self.tables.leases.values()
            if lease.owner_id == owner_id and holder_id in (None, lease.holder_id)
        )

    def check(self) -> None:
        """granted = available + leased + spent, and what was charged is spent or owed."""
        t = self.tables
        charged: Counter[str] = Counter()
        for request_id, charge_e10 in t.charges.items():
            charged[t.rows[request_id].call.owner_id] += charge_e10
        for owner_id, granted in t.granted.items():
            parts = t.available[owner_id] + self.leased_e10(owner_id) + t.spent[owner_id]
            assert granted == parts, f"{owner_id}: granted {granted}, in parts {parts}"
            assert charged[owner_id] == t.spent[owner_id] + t.debt[owner_id]
            assert t.available[owner_id] >= 0 <= t.debt[owner_id]

    # What the workers' maintenance calls.

    def expired(self, grace_s: float) -> list[tuple[str, str]]:
        now_s = self.now_s
        return sorted(
            {
                (lease.owner_id, lease.holder_id)
                for lease in self.tables.leases.values()
                if lease.left_e10 and lease.expires_s + grace_s < now_s
            }
        )

    def give_back(self, owner_id: str, holder_id: str, most_e10: int | None) -> int:
        left = self.leased_e10(owner_id, holder_id) if most_e10 is None else most_e10
        total = 0
        for lease in reversed(list(self.tables.leases.values())):
            if (lease.owner_id, lease.holder_id) == (owner_id, holder_id):
                take = min(left - total, lease.left_e10)
                lease.left_e10 -= take
                total += take
        self._into_available(owner_id, total)
        return total

    def _into_available(self, owner_id: str, amount_e10: int) -> None:
        t = self.tables
        repaid = min(t.debt[owner_id], amount_e10)
        t.debt[owner_id] -= repaid
        t.spent[owner_id] += repaid
        t.available[owner_id] += amount_e10 - repaid


class FakeDatabase:
    """One worker's way to the server. `dead`: the worker was killed, nothing passes any more.
    While it is not `running` it neither asks nor hears answers."""

    def __init__(self, server: FakeServer, running: asyncio.Event | None = None) -> None:
        self.server = server
        self._running = running or asyncio.Event()
        if running is None:
            self._running.set()
        self.outage = Outage()
        self.can_listen = False
        self.dead = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeDatabase]:
        server, rng = self.server, self.server.rng
        await asyncio.sleep(rng.choice((0.0005, 0.002, 0.02)))
        await self._running.wait()
        self._refuse()
        fault = rng.random() if server.faults else 1.0
        if fault < 0.02:
            server.seen["request dropped"] += 1
            raise StoreDown("dropped")
        if fault < 0.03:
            server.seen["conflict"] += 1
            raise StoreConflict("deadlock")
        before = server.tables.copy() if fault < 0.04 else None
        yield self
        self._refuse()
        if before is not None:
            server.tables = before
            server.seen["rolled back"] += 1
            raise StoreDown("rolled back")
        if fault < 0.06:
            server.seen["reply lost after commit"] += 1
            raise StoreDown("the reply is lost")
        await asyncio.sleep(rng.choice((0.0, 0.001)))
        await self._running.wait()
        self._refuse()  # killed between the commit and hearing of it

    connection = transaction

    def _refuse(self) -> None:
        if self.dead:
            raise StoreDown("killed")
        if self.server.loop.now_s < self.server.away_until_s:
            self.server.seen["database away"] += 1
            raise StoreDown("away")


# In the place of store.credit and store.settle ----------------------------------------------------


async def lease(conn: FakeDatabase, ask: LeaseAsk, now: datetime) -> LeaseAnswer:
    """As store.credit.lease."""
    server, t = conn.server, conn.server.tables
    known = t.leases.get(ask.lease_id)
    if known is not None:
        server.seen["asked twice for one lease"] += 1
        return LeaseAnswer(known.amount_e10, 0, 0)
    free = t.available[ask.owner_id]
    elsewhere = server.leased_e10(ask.owner_id) - server.leased_e10(ask.owner_id, ask.holder_id)
    amount = _size(ask, free)
    if amount:
        t.available[ask.owner_id] -= amount
        t.leases[ask.lease_id] = Lease(
            ask.lease_id, ask.owner_id, ask.holder_id, amount, amount, 0.0
        )
    await renew(conn, ask.owner_id, ask.holder_id, ask.lease_s)
    return LeaseAnswer(amount, free, elsewhere)


async def renew(conn: FakeDatabase, owner_id: str, holder_id: str, lease_s: float) -> int:
    """As store.credit.renew."""
    there = 0
    for one in conn.server.tables.leases.values():
        if (one.owner_id, one.holder_id) == (owner_id, holder_id) and one.left_e10:
            one.expires_s = conn.server.now_s + lease_s
            there += 1
    return there


async def give_back(
    conn: FakeDatabase, owner_id: str, holder_id: str, amount_e10: int | None, now: datetime
) -> int:
    """As store.credit.give_back."""
    if (owner_id, holder_id) in conn.server.expired(0.0):
        conn.server.seen["given back late"] += 1
    return conn.server.give_back(owner_id, holder_id, amount_e10)


async def reclaim(
    conn: FakeDatabase, owner_id: str, holder_id: str, grace_s: float, now: datetime
) -> int:
    """As store.credit.reclaim: only what is still over."""
    if (owner_id, holder_id) not in conn.server.expired(grace_s):
        return 0
    conn.server.seen["reclaimed"] += 1
    return conn.server.give_back(owner_id, holder_id, None)


async def close_holder(conn: FakeDatabase, holder_id: str, now: datetime) -> int:
    """As store.credit.close_holder."""
    owners = {x.owner_id for x in conn.server.tables.leases.values() if x.holder_id == holder_id}
    return sum(conn.server.give_back(owner_id, holder_id, None) for owner_id in sorted(owners))


async def settle(conn: FakeDatabase, batch: Sequence[Settlement], now: datetime) -> list[Booked]:
    """As store.settle.settle, with a meter that charges one unit per token."""
    return [_book(conn.server, row) for row in batch]


def _book(server: FakeServer, row: Settlement) -> Booked:
    t, call = server.tables, row.call
    if call.request_id in t.rows:
        server.seen["booked before"] += 1
        return Booked(call.request_id, call.owner_id, 0, False)
    charge = row.counts.input_tokens + row.counts.output_tokens if row.status != "error" else 0
    charge = 0 if row.outcome == "void" else charge
    t.rows[call.request_id] = row
    t.charges[call.request_id] = charge
    left = charge
    for one in t.leases.values():
        if (one.owner_id, one.holder_id) == (call.owner_id, call.holder_id):
            take = min(left, one.left_e10)
            one.left_e10 -= take
            left -= take
    leased = t.leased_part[call.request_id] = charge - left
    take = min(left, t.available[call.owner_id])
    t.available[call.owner_id] -= take
    t.spent[call.owner_id] += leased + take
    t.debt[call.owner_id] += left - take
    return Booked(
        call.request_id, call.owner_id, charge, True, owed_e10=left - take, leased_e10=leased
    )


async def nothing(*_args: Any, **_more: Any) -> list[Any]:
    """For look-ups that find nothing."""
    return []
