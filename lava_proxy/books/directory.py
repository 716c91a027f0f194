"""What callers are known by, in memory, so that a warm request asks the database nothing.

An entry stays until the change feed says that it changed: NOTIFY within milliseconds, and a poll
every `LAVA_DIRECTORY_POLL_S` as the net below it. With PostgreSQL away, what is known stays in
force for `LAVA_AUTH_STALE_S`, then callers get 503. A miss is remembered for a second only, and
any change forgets all misses, so a new key works at once.

Entries are found by the full SHA-256 of a key, never by a part of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from lava_proxy.books.shelf import Shelf
from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError, unavailable
from lava_proxy.rules.limits import SpendKey
from lava_proxy.rules.settlement import Customer, Meter
from lava_proxy.store import directory as store
from lava_proxy.store.database import Connection, Database, StoreConflict, StoreDown
from lava_proxy.store.directory import Principal, Scoped
from lava_proxy.store.settle import Q as SETTLE
from lava_proxy.store.subscriptions import renew_due

__all__ = ["Directory", "Scoped"]

log = logging.getLogger(__name__)

PAST_DUE_S = 2.0
"""How long a cycle that is over, and whose next is not paid for, is kept in memory."""

OVERLAP_S = 10.0
"""How far back each poll looks: longer than any transaction that changes these tables."""


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
        self._keys: Shelf[Principal] = Shelf(entries, lambda p: p.secret_key_id)
        self._tokens: Shelf[Scoped] = Shelf(entries, lambda t: t.forward_token_id)
        self._spend_keys: Shelf[SpendKey] = Shelf(entries, lambda k: k.spend_key_id)
        self._customers: Shelf[Customer] = Shelf(entries, lambda c: c.customer_id)
        self._meters: Shelf[Meter] = Shelf(entries, lambda m: m.meter_id)
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

    async def scoped(self, token_hash: bytes) -> Scoped | None:
        """Whom the forward token with this SHA-256 stands for; its time is not looked at here."""
        known = self._tokens.found.get(token_hash)
        if known is not None and not self._stale():
            return known
        self._refuse_stale()

        async def fetch() -> Scoped | None:
            async with self._reading() as conn:
                return await store.find_token(conn, token_hash)

        async with self._in_time():
            return await self._tokens.load(token_hash, self._clock.boot_s(), fetch)

    async def spend_key(self, key_hash: bytes) -> SpendKey | None:
        """The spend key with this SHA-256; None when there is none, or it was revoked."""
        known = self._spend_keys.found.get(key_hash)
        if known is not None and not self._stale():
            return known
        self._refuse_stale()

        async def fetch() -> SpendKey | None:
            async with self._reading() as conn:
                return await store.find_spend_key(conn, key_hash)

        async with self._in_time():
            return await self._spend_keys.load(key_hash, self._clock.boot_s(), fetch)

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
        elif kind == "forward_tokens":
            self._tokens.forget(object_id)
        elif kind == "spend_keys":
            self._spend_keys.forget(object_id)
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
        else:  # a merchant's settings hang on all its keys and tokens
            self._keys.clear()
            self._tokens.clear()
            self._spend_keys.clear()

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
