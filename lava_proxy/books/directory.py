"""Keys, customers and meters in memory, so that a warm request asks the database nothing.

An entry stays until the change feed says that it changed: NOTIFY within milliseconds, and a poll
every `LAVA_DIRECTORY_POLL_S` as the net below it. With PostgreSQL away, what is known stays in
force for `LAVA_AUTH_STALE_S`, then callers get 503. A miss is remembered for a second only, and
any change forgets all misses, so a new key works at once.

Entries are found by the full SHA-256 of a key, never by a part of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Generic, TypeVar

from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError, unavailable
from lava_proxy.rules.settlement import Customer, Meter
from lava_proxy.store import directory as store
from lava_proxy.store.database import Connection, Database, StoreConflict, StoreDown
from lava_proxy.store.directory import Principal
from lava_proxy.store.settle import Q as SETTLE
from lava_proxy.store.subscriptions import renew_due

V = TypeVar("V")

log = logging.getLogger(__name__)

MISS_S = 1.0
"""How long an unknown key, customer or meter is answered from memory."""

PAST_DUE_S = 2.0
"""How long a cycle that is over, and whose next is not paid for, is kept in memory."""

OVERLAP_S = 10.0
"""How far back each poll looks: longer than any transaction that changes these tables."""


class _Shelf(Generic[V]):
    """A bounded cache of one kind, whose loads are shared by those who wait for the same thing."""

    def __init__(self, limit: int, id_of: Callable[[V], str]) -> None:
        self._limit = limit
        self._id_of = id_of
        self.found: dict[object, V] = {}
        self._missing: dict[object, float] = {}
        self._loading: dict[object, asyncio.Task[V | None]] = {}
        self._keys_of: dict[str, set[object]] = {}
        self._generation = 0

    async def load(
        self, key: object, boot_s: float, fetch: Callable[[], Awaitable[V | None]]
    ) -> V | None:
        if self._missing.get(key, 0.0) > boot_s:
            return None
        task = self._loading.get(key)
        if task is None:  # a task of its own: whoever started it may be cancelled, others wait on
            going = self._load(key, boot_s, fetch)
            task = self._loading[key] = asyncio.get_running_loop().create_task(going)
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def _load(
        self, key: object, boot_s: float, fetch: Callable[[], Awaitable[V | None]]
    ) -> V | None:
        generation = self._generation
        try:
            value = await fetch()
        finally:
            if self._loading.get(key) is asyncio.current_task():
                del self._loading[key]
        if generation == self._generation:  # else it changed while we read: do not keep it
            self._keep(key, value, boot_s)
        return value

    def forget(self, object_id: str) -> None:
        self._generation += 1
        self._loading.clear()  # who asks from now on must not get what was read before
        self._missing.clear()
        for key in self._keys_of.pop(object_id, ()):
            self.found.pop(key, None)

    def clear(self) -> None:
        self._generation += 1
        self._loading.clear()
        self.found.clear()
        self._missing.clear()
        self._keys_of.clear()

    def _keep(self, key: object, value: V | None, boot_s: float) -> None:
        if value is None:
            if len(self._missing) >= self._limit:
                self._missing.clear()
            self._missing[key] = boot_s + MISS_S
            return
        if len(self.found) >= self._limit:
            self._drop(next(iter(self.found)))
        self.found[key] = value
        self._keys_of.setdefault(self._id_of(value), set()).add(key)

    def _drop(self, key: object) -> None:
        object_id = self._id_of(self.found.pop(key))
        keys = self._keys_of.get(object_id, set())
        keys.discard(key)
        if not keys:
            self._keys_of.pop(object_id, None)


def _retrieve(task: asyncio.Task[V]) -> None:
    """Nobody may be waiting for an error any more: that is no fault."""
    if not task.cancelled():
        task.exception()


class Directory:
    """What this worker knows of callers. The ``found`` dictionaries are the warm path."""

    def __init__(
        self, database: Database, clock: Clock, *, entries: int, stale_s: float, wait_s: float
    ) -> None:
        """`wait_s` is the longest that a caller waits for one answer of the database."""
        self._database = database
        self._clock = clock
        self._stale_s = stale_s
        self._wait_s = wait_s
        self._fresh_at_s = clock.boot_s()
        self._seen: set[int] = set()
        self._keys: _Shelf[Principal] = _Shelf(entries, lambda p: p.secret_key_id)
        self._customers: _Shelf[Customer] = _Shelf(entries, lambda c: c.customer_id)
        self._meters: _Shelf[Meter] = _Shelf(entries, lambda m: m.meter_id)
        self.on_prices_changed: Callable[[], None] = lambda: None

    async def principal(self, key_hash: bytes) -> Principal | None:
        """Who holds the key with this SHA-256; None when nobody does."""
        known = self._keys.found.get(key_hash)
        if known is not None and not self._stale():
            return known
        self._refuse_stale()

        async def fetch() -> Principal | None:
            async with self._reading() as conn:
                return await store.find_key(conn, key_hash)

        async with self._in_time():
            return await self._keys.load(key_hash, self._clock.boot_s(), fetch)

    async def customer(self, merchant_id: str, customer: str) -> Customer | None:
        """A merchant's customer by id or reference."""
        key = (merchant_id, customer)
        known = self._customers.found.get(key)
        if known is not None:
            if known.subscription is None or self._clock.now() < known.subscription.ends_at:
                return known
            self._customers.forget(known.customer_id)

        async def fetch() -> Customer | None:
            async with self._reading() as conn:
                found = await store.find_customer(conn, merchant_id, customer)
            if found is None or not self._over(found):
                return found
            return await self._next_cycle(merchant_id, found)

        async with self._in_time():
            return await self._customers.load(key, self._clock.boot_s(), fetch)

    def _over(self, customer: Customer) -> bool:
        subscribed = customer.subscription
        return subscribed is not None and subscribed.ends_at <= self._clock.now()

    async def _next_cycle(self, merchant_id: str, customer: Customer) -> Customer | None:
        """A cycle that is over begins anew here where that costs nothing: a worker that is late
        must not count into the old one. One that is not paid for yet stays for a moment."""
        now = self._clock.now()
        async with self._reading(writing=True) as conn:
            await renew_due(conn, customer.customer_id, now)
            found = await store.find_customer(conn, merchant_id, customer.customer_id)
        if found is None or found.subscription is None or not self._over(found):
            return found
        later = now + timedelta(seconds=PAST_DUE_S)
        return replace(found, subscription=replace(found.subscription, ends_at=later))

    async def meter(self, merchant_id: str, meter: str) -> Meter | None:
        """A merchant's meter by slug or id."""
        key = (merchant_id, meter)
        known = self._meters.found.get(key)
        if known is not None:
            return known

        async def fetch() -> Meter | None:
            async with self._reading() as conn:
                return await store.find_meter(conn, merchant_id, meter)

        async with self._in_time():
            return await self._meters.load(key, self._clock.boot_s(), fetch)

    async def object_owner(self, provider: str, object_id: str) -> tuple[str, str | None] | None:
        """(merchant id, customer id) of whoever made this object at the provider."""
        async with self._in_time(), self._reading() as conn:
            row = await SETTLE["owner_of_object"].fetchrow(
                conn, provider=provider, object_id=object_id
            )
        return None if row is None else (row["merchant_id"], row["customer_id"])

    def changed(self, kind: str, object_id: str) -> None:
        """Forget what is out of date. Called by the listener and by the poll."""
        if kind == "secret_keys":
            self._keys.forget(object_id)
        elif kind == "customers":
            self._customers.forget(object_id)
        elif kind == "meters":
            self._meters.forget(object_id)
        elif kind == "subscriptions":
            self._customers.forget(object_id)
        elif kind in ("plans", "plan_meters"):  # seldom, and it may concern any customer
            self._customers.clear()
        elif kind == "price_overrides":
            self.on_prices_changed()
        else:  # a merchant's settings hang on all its keys
            self._keys.clear()

    def heard(self, payload: str | None) -> None:
        """A NOTIFY of the change feed; None after a reconnect, when some may have been missed."""
        if payload is None:
            return
        kind, _, object_id = payload.partition(" ")
        self.changed(kind, object_id)

    async def poll(self) -> None:
        """Read the change feed; its success is what keeps the memory in force."""
        asked_at_s = self._clock.boot_s()
        window_s = asked_at_s - self._fresh_at_s + OVERLAP_S
        async with self._database.connection() as conn:
            rows = await store.changes_since(conn, window_s)
        for change_id, kind, object_id in rows:
            if change_id not in self._seen:
                self.changed(kind, object_id)
        self._seen = {row[0] for row in rows}
        self._fresh_at_s = asked_at_s

    @asynccontextmanager
    async def _reading(self, *, writing: bool = False) -> AsyncIterator[Connection]:
        """A connection for a look-up that a caller waits for: the database away is 503."""
        database = self._database
        try:
            async with database.transaction() if writing else database.connection() as conn:
                yield conn
        except (StoreDown, StoreConflict) as error:
            if not self._database.outage.away:
                log.warning("directory: %s", error)
            raise _away() from None

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """A caller waits so long and no longer, whatever becomes of the look-up."""
        try:
            async with asyncio.timeout(self._wait_s):
                yield
        except TimeoutError:
            raise _away() from None

    def _stale(self) -> bool:
        return self._clock.boot_s() - self._fresh_at_s > self._stale_s

    def _refuse_stale(self) -> None:
        if self._stale():
            raise unavailable("the database has been away for too long to trust known keys", 5)


def _away() -> LavaError:
    return unavailable("the database is away; try again")
