"""Re-rating: requests whose price came late, corrected by new ledger rows.

Requests that wait are looked through model by model (`unrated.py`); those of a model that has a
price now are corrected one by one, oldest first, one transaction each (`corrections.py`), once:
whoever comes second changes nothing. A process that dies, or a database that goes away, leaves
whole corrections behind and the rest waiting. The request itself stays as it was booked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import asyncpg
import stamina

from lava_adapters.contract import Usage
from lava_proxy.rules.charge import Charge, Line, charge, recharged
from lava_proxy.rules.pricehistory import PriceHistory
from lava_proxy.rules.rerating import Rerated, recost
from lava_proxy.rules.tiers import Tier
from lava_proxy.store import directory, unrated
from lava_proxy.store.corrections import Change, change_of, correct
from lava_proxy.store.database import Connection, Database, StoreConflict
from lava_proxy.store.faults import POISON
from lava_proxy.store.sql import load
from lava_proxy.store.unrated import FIRST, Group

Q = load("reratings")

ROWS_AT_A_TIME = 200
MODELS_AT_A_TIME = 200
CONFLICTS_MAX = 5
TURN_S = 600.0
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

log = logging.getLogger(__name__)


class Rooms(Protocol):
    """Where connections come from: a share of the database."""

    def reading(self) -> AbstractAsyncContextManager[Connection]: ...

    def writing(self) -> AbstractAsyncContextManager[Connection]: ...


@asynccontextmanager
async def turn(database: Database) -> AsyncIterator[bool]:
    """Whether no other process re-rates by itself now; so it is inside the block."""
    async with database.apart(TURN_S) as lock, lock.transaction():
        yield await Q["alone"].fetchval(lock)


async def rerate(
    rooms: Rooms,
    prices: PriceHistory,
    now: datetime,
    *,
    merchant_id: str | None = None,
    dry: bool = False,
) -> AsyncGenerator[Change, None]:
    """Re-rate all requests whose price is known now, or those of one merchant; `dry`: only tell.
    Each change is told of once it is committed, so the caller may stop anywhere."""
    one_pass = _Pass(rooms, prices, now, dry)
    behind = FIRST
    while True:
        async with rooms.reading() as conn:
            groups = await unrated.groups(conn, behind, MODELS_AT_A_TIME, merchant_id)
        for group in groups:
            await asyncio.sleep(0)  # looking prices up is work, and streams are waiting
            async for change in one_pass.group(group):
                yield change
        if len(groups) < MODELS_AT_A_TIME:
            return
        behind = groups[-1]


@dataclass(frozen=True, slots=True)
class _Pass:
    """One look at all that waits."""

    rooms: Rooms
    prices: PriceHistory
    now: datetime
    dry: bool

    async def group(self, group: Group) -> AsyncIterator[Change]:
        """The requests for one model; none where nobody knows its price."""
        mark = self.prices.mark(group.merchant_id, group.provider, group.names)
        behind = (_BEGINNING, "")
        while mark is not None:
            async with self.rooms.reading() as conn:
                rows = await unrated.waiting(conn, group, mark, behind, ROWS_AT_A_TIME)
            for row in rows:
                change = await self._patiently(group, row, mark)
                if change is not None:
                    yield change
            if len(rows) < ROWS_AT_A_TIME:
                return
            behind = (rows[-1]["created_at"], rows[-1]["request_id"])

    async def _patiently(self, group: Group, row: asyncpg.Record, mark: str) -> Change | None:
        """One request; one that can never be booked is set aside, because it would be in the way
        of all others for ever."""
        try:
            retries = stamina.retry_context(on=StoreConflict, attempts=CONFLICTS_MAX, wait_max=1.0)
            async for attempt in retries:
                with attempt:
                    async with self.rooms.writing() as conn:
                        return await self._one(conn, group, row, mark)
        except POISON as error:
            log.error("request %s cannot be re-rated: %s", row["request_id"], error)
            if not self.dry:
                async with self.rooms.writing() as conn:
                    await unrated.tried_in_vain(conn, row, mark)
        return None

    async def _one(
        self, conn: Connection, group: Group, row: asyncpg.Record, mark: str
    ) -> Change | None:
        found = None if row["gone"] else await self._found(conn, group, row)
        if self.dry:
            return None if found is None else change_of(row, found)
        if row["gone"]:
            await unrated.waits_no_more(conn, row)
        elif found is None:
            await unrated.tried_in_vain(conn, row, mark)
        else:
            return await correct(conn, row, found, self.now)
        return None

    async def _found(self, conn: Connection, group: Group, row: asyncpg.Record) -> Rerated | None:
        candidates = self.prices.candidates(
            group.merchant_id, group.provider, group.names, row["created_at"]
        )
        known = recost(candidates, _usage(row), row["price_version"])
        if known is None:
            return None
        cost, version = known
        by_cost = row["rate_type"] == "percentage" and "unbilled" not in row["flags"]
        charge = await _recharged(conn, row, cost.total_e10) if by_cost else None
        return Rerated(cost, charge, version)


async def _recharged(conn: Connection, row: asyncpg.Record, cost_e10: int) -> Charge | None:
    lines = [
        Line(Tier(start, rate_e12), units, amount_e10)
        for start, rate_e12, units, amount_e10 in row["breakdown"]
    ]
    if lines:
        return recharged(lines, row["units"], cost_e10)
    meter = await directory.meter_by_id(conn, row["meter_id"])
    if meter is None:
        return None
    before = 0
    if len(meter.tariff.tiers) > 1:
        before = await Q["units_before"].fetchval(
            conn,
            merchant_id=row["merchant_id"],
            customer_id=row["customer_id"],
            meter_id=row["meter_id"],
            cycle=row["cycle"],
            before_at=row["created_at"],
            before_id=row["request_id"],
        )
    return charge(meter.tariff, before, row["units"], cost_e10)


def _usage(row: asyncpg.Record) -> Usage:
    return Usage(
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cache_read_tokens=row["cache_read_tokens"],
        cache_write_tokens=row["cache_write_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        input_characters=row["input_characters"],
        output_characters=row["output_characters"],
        input_ms=row["input_ms"],
        output_ms=row["output_ms"],
    )
