"""A fair share of the database for one kind of caller, so that a burst of them never keeps the
ledger writer or a lease waiting for a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lava_proxy.core.errors import LavaError
from lava_proxy.store.database import Connection, Database

SLOT_WAIT_S = 5.0


class Share:
    """At most `most` connections at once; the others wait, and get 503 when it takes too long."""

    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._slots = asyncio.Semaphore(max(1, most))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection. Do not open another inside."""
        async with self._slot(), self._database.connection() as conn:
            yield conn

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """A connection in a transaction. Do not open another inside."""
        async with self._slot(), self._database.transaction() as conn:
            yield conn

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
