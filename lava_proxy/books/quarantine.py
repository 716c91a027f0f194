"""Rows that PostgreSQL refuses, now and always: their money is booked, and they are kept whole.

What is refused is mostly text that a caller or a provider made up. So the row is booked without it
first: same call, same counts, same charge. Only if that is refused too, nothing is booked; then the
customer's credit is held for what the row may cost, until `lava-proxy quarantine` decides.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime

from lava_proxy.books.codec import decode_settlement, encode_settlement, meter_id_of_settlement
from lava_proxy.core.errors import LavaError
from lava_proxy.rules.settlement import Booked, Settlement
from lava_proxy.store import directory
from lava_proxy.store import quarantine as kept_rows
from lava_proxy.store.database import Connection, Database
from lava_proxy.store.faults import POISON
from lava_proxy.store.quarantine import Wanted, printable
from lava_proxy.store.settle import settle

log = logging.getLogger(__name__)

FLAG = "quarantined"
"""On a row that was booked without what its caller made."""
TEXT_CHARS_MAX = 200
HELD_MOST_E10 = 2**62


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of a quarantined row: booked with this charge, or why not."""

    quarantine_id: int
    charge_e10: int
    error: str | None


async def set_apart(
    database: Database, row: Settlement, error: Exception, most_e10: int, now: datetime
) -> Booked:
    """Book a poisoned row bare and keep it whole; if it cannot be booked, hold `most_e10` for it,
    which is what it may cost."""
    log.error("ledger: row %s is quarantined: %s", row.call.request_id, error)
    wanted = _wanted(row, error)
    try:
        async with database.transaction() as conn:
            (booked,) = await settle(conn, [bare(row)], now)
            await kept_rows.keep(conn, wanted, "booked", booked.charge_e10)
        return replace(booked, quarantined=True)
    except POISON as again:
        log.error("ledger: row %s cannot be booked at all: %s", row.call.request_id, again)
    return await hold_back(database, row, error, most_e10, now)


async def hold_back(
    database: Database,
    row: Settlement,
    error: Exception,
    most_e10: int,
    now: datetime,
    facts: bytes | None = None,
) -> Booked:
    """Keep a row that cannot be booked, and its customer's credit for it. `facts` of its HOLD name
    the meter that is gone."""
    call = row.call
    charged = call.billable and call.customer_id is not None
    amount_e10 = min(most_e10, HELD_MOST_E10) if charged else 0
    async with database.transaction() as conn:
        quarantine_id = await kept_rows.keep(conn, _wanted(row, error, facts), "held", amount_e10)
        if quarantine_id is not None:
            await kept_rows.hold(
                conn,
                quarantine_id,
                owner_id=call.owner_id,
                holder_id=call.holder_id,
                amount_e10=amount_e10,
                overdraft_e10=call.meter.overdraft_e10 if call.meter else 0,
                now=now,
            )
    return Booked(call.request_id, call.owner_id, 0, False, quarantined=True)


def bare(row: Settlement) -> Settlement:
    """The same money without what a caller or a provider made up: metadata is left out, names are
    made plain, ids that are not plain are left out (an object that can't be named can't be read
    again)."""
    call = replace(
        row.call,
        model=_plain(row.call.model),
        endpoint=_plain(row.call.endpoint) or "",
        metadata=None,
    )
    return replace(
        row,
        call=call,
        model=_plain(row.model),
        price_version=_plain(row.price_version),
        response_id=_plain(row.response_id),
        metered_object=row.metered_object if _is_plain(row.metered_object) else None,
        object_ids=tuple(made for made in row.object_ids if _is_plain(made)),
        flags=(*(flag for flag in row.flags if _is_plain(flag)), FLAG),
    )


async def retry(database: Database, quarantine_id: int, now: datetime) -> Retried:
    """Try again to book a row that is held: as it is, else bare. Said twice, it is booked once."""
    error: Exception | None = None
    for attempt in (_whole, bare):
        try:
            async with database.transaction() as conn:
                row = attempt(await _read(conn, quarantine_id))
                (booked,) = await settle(conn, [row], now)
                await kept_rows.decide(conn, quarantine_id, "booked", now)
            return Retried(quarantine_id, booked.charge_e10, None)
        except POISON as refused:
            error = refused
        except (LookupError, ValueError) as unreadable:
            error = unreadable
            break
    return Retried(quarantine_id, 0, str(error))


async def release(database: Database, quarantine_id: int, now: datetime) -> None:
    """Give the credit that is held for a row back to its customer; the row stays unbooked."""
    async with database.transaction() as conn:
        await _held(conn, quarantine_id)
        await kept_rows.decide(conn, quarantine_id, "released", now)


async def _read(conn: Connection, quarantine_id: int) -> Settlement:
    """A held row as it was refused, paid for by what is held for it."""
    kept = await _held(conn, quarantine_id)
    meter_id = meter_id_of_settlement(kept)
    meter = None if meter_id is None else await directory.meter_by_id(conn, meter_id)
    if meter_id is not None and meter is None:
        raise LookupError(f"there is no meter {meter_id}")
    return decode_settlement(kept, kept_rows.holder_of(quarantine_id), meter)


async def _held(conn: Connection, quarantine_id: int) -> bytes:
    kept = await kept_rows.lock_held(conn, quarantine_id)
    if kept is None:
        raise LavaError("not_found", f"no row {quarantine_id} is held in quarantine")
    return kept


def _wanted(row: Settlement, error: Exception, facts: bytes | None = None) -> Wanted:
    call = row.call
    return Wanted(
        merchant_id=call.merchant_id,
        request_id=call.request_id,
        owner_id=call.owner_id,
        settlement=encode_settlement(row, facts),
        error=str(error),
    )


def _whole(row: Settlement) -> Settlement:
    return row


def _plain(text: str | None) -> str | None:
    return None if text is None else printable(text)[:TEXT_CHARS_MAX]


def _is_plain(text: str | None) -> bool:
    return text is not None and _plain(text) == text
