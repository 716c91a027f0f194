"""Payments whose end nobody told us: which of them to look up at the provider, and when.

A payment is looked up by one process at a time, after pauses that grow. What the provider says is
booked as a message of its own would be (`payments.py`), so a message that comes late, or meanwhile,
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lava_proxy.store import payments
from lava_proxy.store.database import Connection
from lava_proxy.store.payments import Purpose
from lava_proxy.store.sql import load

Q = load("lookups")

PAUSE_MAX_S = 6 * 3600.0
EXPIRED = {"code": "expired", "message": "It was not paid in time."}


@dataclass(frozen=True, slots=True)
class Open:
    """A payment to look up."""

    payment_id: str
    purpose: Purpose
    attempts: int
    created_at: datetime
    provider_ref: str | None
    page_ref: str | None
    answered: bool
    """The provider's answer to the last ask was written down."""
    given_up: bool
    """Its payer had their time."""
    may_try_again: bool
    """Its session is open: where one page ended, there may be another."""
    owner_id: str
    payer_ref: str | None


async def claim(
    conn: Connection, provider: str, now: datetime, *, pause_s: float, give_up_s: float, most: int
) -> list[Open]:
    """Payments to look up now; nobody else gets them before their next time."""
    rows = await Q["claim_lookups"].fetch(
        conn,
        provider=provider,
        now=now,
        pause_s=pause_s,
        pause_max_s=PAUSE_MAX_S,
        give_up_s=give_up_s,
        most=most,
    )
    return [Open(**dict(row)) for row in rows]


async def note_page(conn: Connection, payment_id: str, page_ref: str) -> None:
    """The provider's page that a payment is to be made on."""
    await Q["note_page"].execute(conn, payment_id=payment_id, page_ref=page_ref)


async def still(conn: Connection, seen: Open) -> bool:
    """Whether a payment is as it was when it was claimed, now that it is locked: not made, and not
    asked for anew since."""
    row = await payments.lock(conn, seen.payment_id)
    if row is None or row["status"] == "succeeded":
        return False
    now_at = (row["attempts"], row["page_ref"], row["next_attempt_at"] is None)
    return now_at == (seen.attempts, seen.page_ref, seen.answered)


async def give_up(conn: Connection, payment_id: str, now: datetime) -> None:
    """Nobody pays this any more. The payment is locked."""
    await Q["give_up"].execute(conn, payment_id=payment_id, now=now, **EXPIRED)


async def end_try(conn: Connection, payment_id: str, now: datetime) -> None:
    """The page that it was to be paid on is over; its payer may have another. The payment is
    locked."""
    await Q["end_try"].execute(conn, payment_id=payment_id, now=now, **EXPIRED)


async def look_soon(conn: Connection, payment_id: str, now: datetime) -> None:
    """The provider told that something ended: what became of it is asked at the next round."""
    await Q["look_soon"].execute(conn, payment_id=payment_id, now=now)
