"""Calls that are on their way, so that a request can be asked for before it is booked.

From HOLD until its row is committed a call is in this process's memory: its own questions are
answered from there, without a gap between the end and the commit. So that other processes find it
too, what has run for a moment is told in a table, by one round a second for all calls together; the
call itself never waits for the database, and a short one never meets it. What a process told counts
only while that process is seen.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from itertools import islice

from lava_proxy.books.codec import decode_call, encode_call, meter_id_of
from lava_proxy.core.clock import Clock
from lava_proxy.rules.settlement import Call
from lava_proxy.store import directory
from lava_proxy.store import open_calls as store
from lava_proxy.store.database import Connection, Database

TELL_S = 1.0
"""From one round to the next."""
TELL_AFTER_S = 1.0
"""Calls that last no longer are told to nobody."""
ROUND_MOST = 2000
"""Calls told, and removed, in a round: the others wait for the next one."""
GONE_S = 30.0
"""A process that was not seen for so long is gone; its calls are booked by replay."""


class OpenCalls:
    """Those of one process. They are as many as it serves, and as wait for the ledger writer."""

    def __init__(self, database: Database, clock: Clock, *, holder_id: str) -> None:
        self._database = database
        self._clock = clock
        self._holder_id = holder_id
        self._open: dict[str, Call] = {}
        self._told: set[str] = set()
        self._in_doubt = False
        """Whether the last round was committed."""

    @property
    def count(self) -> int:
        """Calls that are not booked yet."""
        return len(self._open)

    def begun(self, call: Call) -> None:
        """A call was admitted. No await."""
        self._open[call.request_id] = call

    def booked(self, request_id: str) -> None:
        """A call's row is committed. No await."""
        self._open.pop(request_id, None)

    def here(self, merchant_id: str, request_id: str) -> Call | None:
        """A merchant's call that is not booked yet, in this process."""
        call = self._open.get(request_id)
        return call if call is not None and call.merchant_id == merchant_id else None

    async def elsewhere(self, conn: Connection, merchant_id: str, request_id: str) -> Call | None:
        """The same of the other processes, once they have told."""
        found = await store.find(conn, merchant_id, request_id, GONE_S)
        if found is None:
            return None
        holder_id, facts = found
        meter_id = meter_id_of(facts)
        meter = await directory.meter_by_id(conn, meter_id) if meter_id else None
        return decode_call(facts, holder_id, meter)

    async def tell(self) -> None:
        """One round: write down what has run for a moment, remove what is booked."""
        begun = self._untold(self._told)
        if not begun and not self._told:
            return
        try:
            over, begun = await self._round(begun)
        except BaseException:
            self._in_doubt = True
            raise
        self._in_doubt = False
        self._told.difference_update(over)
        self._told.update(told.request_id for told in begun)

    async def _round(self, begun: list[store.Told]) -> tuple[Collection[str], list[store.Told]]:
        """Answers what is not told any more, and what is from now on."""
        over: Collection[str] = list(islice(self._told - self._open.keys(), ROUND_MOST))
        async with self._database.transaction() as conn:
            if self._in_doubt:
                await store.forget(conn, self._holder_id)
            if await store.be_seen(conn, self._holder_id):
                over, begun = set(self._told), self._untold(frozenset())
            elif over:
                await store.untell(conn, self._holder_id, over)
            if begun:
                await store.tell(conn, self._holder_id, begun)
        return over, begun

    def _untold(self, told: Collection[str]) -> list[store.Told]:
        """The eldest of those that are to be told, but for those that are."""
        latest = self._clock.now() - timedelta(seconds=TELL_AFTER_S)
        waiting = (
            call
            for request_id, call in self._open.items()
            if request_id not in told and call.created_at <= latest
        )
        return [
            store.Told(call.merchant_id, call.request_id, encode_call(call))
            for call in islice(waiting, ROUND_MOST)
        ]

    async def forget_gone(self) -> None:
        """Remove what processes told that are gone."""
        async with self._database.transaction() as conn:
            await store.forget_gone(conn, GONE_S)
