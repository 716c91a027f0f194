"""Rows that PostgreSQL refused, in PostgreSQL: kept whole, with the credit that is held for them.

What a row may cost is leased to the row itself, for as good as ever: so it is neither the
customer's to spend nor booked, and the books add up. Deciding gives back what was not booked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from lava_proxy.core.ids import id_from
from lava_proxy.store import credit
from lava_proxy.store.credit import LeaseAsk
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("quarantine")
S = load("settle")

State = Literal["held", "booked", "released"]
FOR_EVER_S = 100 * 366 * 86_400.0
ERROR_CHARS_MAX = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One quarantined row."""

    quarantine_id: int
    merchant_id: str
    request_id: str
    owner_id: str | None
    settlement: bytes
    error: str
    charge_e10: int
    """What it may come to; 0 where nobody knows."""
    held_e10: int
    """The customer's credit that is kept for it."""
    state: State
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A row to be kept."""

    merchant_id: str
    request_id: str
    owner_id: str
    settlement: bytes
    error: str


async def keep(conn: Connection, wanted: Wanted, state: State, charge_e10: int = 0) -> int | None:
    """Keep a row; its id, or None where it is kept already."""
    quarantine_id: int | None = await Q["keep"].fetchval(
        conn,
        merchant_id=wanted.merchant_id,
        request_id=wanted.request_id,
        owner_id=wanted.owner_id,
        settlement=wanted.settlement,
        error=printable(wanted.error)[:ERROR_CHARS_MAX],
        charge_e10=charge_e10,
        state=state,
    )
    return quarantine_id


async def hold(
    conn: Connection,
    quarantine_id: int,
    *,
    owner_id: str,
    holder_id: str,
    amount_e10: int,
    overdraft_e10: int,
    now: datetime,
) -> None:
    """Move what a row may cost from its worker's leases (else from what is free) to the row. An
    account that is not there any more has nothing."""
    if not amount_e10 or not await S["lock_accounts"].fetch(conn, owner_ids=[owner_id]):
        return
    await credit.give_back(conn, owner_id, holder_id, amount_e10, now)
    holder = holder_of(quarantine_id)
    ask = LeaseAsk(
        lease_id=id_from("lease", holder),
        owner_id=owner_id,
        holder_id=holder,
        least_e10=1,
        hold_e10=amount_e10,
        burn_e10=0,
        overdraft_e10=overdraft_e10,
        lease_s=FOR_EVER_S,
    )
    await credit.lease(conn, ask, now)


def holder_of(quarantine_id: int) -> str:
    """Whose leases they are that are held for a row."""
    return f"quarantine_{quarantine_id}"


async def newest(conn: Connection, *, held_only: bool, most: int) -> list[Kept]:
    """Quarantined rows, newest first."""
    rows = await Q["newest"].fetch(conn, held_only=held_only, most=most)
    return [Kept(**dict(row)) for row in rows]


async def held_ids(conn: Connection) -> Sequence[int]:
    """Rows that nobody decided on, oldest first."""
    return [row["quarantine_id"] for row in await Q["held_ids"].fetch(conn)]


async def lock_held(conn: Connection, quarantine_id: int) -> bytes | None:
    """The settlement of a row that nobody decided on, locked for this transaction."""
    row = await Q["lock_held"].fetchrow(conn, quarantine_id=quarantine_id)
    return None if row is None else row["settlement"]


async def decide(conn: Connection, quarantine_id: int, state: State, now: datetime) -> None:
    """Note what became of a row; what is still held for it goes back to its customer."""
    await credit.close_holder(conn, holder_of(quarantine_id), now)
    await Q["decide"].execute(conn, quarantine_id=quarantine_id, state=state)


def printable(text: str) -> str:
    """`text` as PostgreSQL can store it."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
