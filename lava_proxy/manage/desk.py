"""What every handler needs: books, provider table, payments, and a fair share of the database.

Management calls use at most half of the pool at once, so that a burst of them never keeps the
ledger writer or a lease waiting for a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lava_adapters.models import Models
from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.errors import LavaError
from lava_proxy.manage.call import Call
from lava_proxy.manage.catalogue import Catalogue
from lava_proxy.payments.seam import Payments
from lava_proxy.rules.limits import Shape
from lava_proxy.rules.settlement import Customer, Meter
from lava_proxy.store.database import Connection

SLOT_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that may be named here: how, whose it is, what it is called there, and where."""

    id: str
    provider: str
    model: str
    shapes: frozenset[Shape]


class Desk:
    """One per process."""

    def __init__(self, books: Books, registry: Registry, payments: Payments) -> None:
        self.books = books
        self.registry = registry
        self.payments = payments
        self.catalogue = Catalogue(registry, books.settings.provider_keys)
        self.models = Models(registry)
        self.listed_models: Sequence[ListedModel] | None = None
        """The list of models, once somebody has asked for it."""
        self._slots = asyncio.Semaphore(max(1, books.settings.database_pool_size // 2))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection. Do not open another inside."""
        async with self._slot(), self.books.database.connection() as conn:
            yield conn

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """A connection in a transaction. Do not open another inside."""
        async with self._slot(), self.books.database.transaction() as conn:
            yield conn

    async def customer(self, call: Call, name: str) -> Customer:
        """The caller's customer by id or reference, or 404."""
        customer = await self.books.directory.customer(call.merchant_id, name)
        if customer is None:
            raise no_such("customer")
        return customer

    async def meter(self, call: Call, name: str) -> Meter:
        """The caller's meter by slug or id, or 404."""
        meter = await self.books.directory.meter(call.merchant_id, name)
        if meter is None:
            raise no_such("meter")
        return meter

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(SLOT_WAIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise LavaError(
                "unavailable", "too many calls are waiting; try again", headers={"retry-after": "1"}
            ) from None
        try:
            yield
        finally:
            self._slots.release()


def no_such(what: str) -> LavaError:
    """The one answer to absent and not yours."""
    return LavaError("not_found", f"there is no such {what}")
