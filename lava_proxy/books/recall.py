"""Recall: before a 402, ask the other workers to give back the credit that they do not use.

One recall per customer at a time; it ends when somebody gave something back, or after
`LAVA_RECALL_WAIT_S`. It is a NOTIFY, so with PostgreSQL away, or behind a pooler without a direct
address, nobody hears it: then the refusal stands, and idle credit comes home by itself later.
"""

from __future__ import annotations

import asyncio
import logging

from lava_proxy.books.leases import Account, Leases
from lava_proxy.books.rates import Rates
from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError
from lava_proxy.store import credit
from lava_proxy.store.credit import LeaseAnswer
from lava_proxy.store.database import Database, StoreConflict, StoreDown
from lava_proxy.store.ledger import announce_credit, recall_credit

log = logging.getLogger(__name__)


class Recalls:
    """Both sides of a recall: asking, and answering."""

    def __init__(self, database: Database, clock: Clock, *, holder_id: str, wait_s: float) -> None:
        self._database = database
        self._clock = clock
        self._holder_id = holder_id
        self._wait_s = wait_s
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._given: dict[str, asyncio.Event] = {}

    async def ask(self, owner_id: str) -> None:
        """Ask, and wait for an answer; whoever asks for the same customer meanwhile shares it."""
        if self._wait_s <= 0:
            return
        task = self._asking.get(owner_id)
        if task is None:
            task = self._asking[owner_id] = asyncio.create_task(self._ask(owner_id))
        await asyncio.shield(task)

    def heard(self, owner_id: str) -> None:
        """Credit of this customer changed: whoever waits may look again."""
        given = self._given.get(owner_id)
        if given is not None:
            given.set()

    async def answer(self, leases: Leases, payload: str, rates: Rates | None = None) -> None:
        """Give back what we do not use of the customer that somebody else asks for."""
        owner_id, _, asker = payload.partition(" ")
        if asker == self._holder_id:
            return
        try:
            await self._give_free(leases, owner_id)
            if rates is not None and await rates.answer(owner_id):
                async with self._database.transaction() as conn:
                    await announce_credit(conn, owner_id)
        except (StoreDown, StoreConflict, LavaError) as error:
            log.warning("recall: %s", error)  # what we had comes back when the lease is over

    async def _give_free(self, leases: Leases, owner_id: str) -> None:
        """Return what nobody holds. We may stand still on the way for longer than our leases last:
        as it is a trip, nobody has fetched a newer one, of which a part would go back by mistake.
        """
        account = leases.accounts.get(owner_id)
        if account is not None and account.trip is not None:
            await asyncio.wait({account.trip})
        if amount_e10 := leases.take_free(owner_id):
            account = leases.accounts[owner_id]
            await asyncio.shield(leases.under_way(account, self._give(account, amount_e10)))

    async def _give(self, account: Account, amount_e10: int) -> LeaseAnswer:
        owner_id, holder_id, now = account.owner_id, self._holder_id, self._clock.now()
        try:
            async with self._database.transaction() as conn:
                await credit.give_back(conn, owner_id, holder_id, amount_e10, now)
                await announce_credit(conn, owner_id)
        finally:
            account.trip = None
        return LeaseAnswer(0, 0, 0)

    async def _ask(self, owner_id: str) -> None:
        given = self._given[owner_id] = asyncio.Event()
        try:
            async with self._database.connection() as conn:
                await recall_credit(conn, owner_id, self._holder_id)
            async with asyncio.timeout(self._wait_s):
                await given.wait()
        except (TimeoutError, StoreDown, StoreConflict):
            pass
        finally:
            del self._given[owner_id], self._asking[owner_id]
