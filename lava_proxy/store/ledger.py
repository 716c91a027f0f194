"""Ledger entries to look at, and the word to all workers that somebody's credit changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("ledger")

NEWEST = 2**63 - 1
"""The place before the newest entry."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One side of a transaction; the amounts of a transaction sum to zero."""

    entry_id: int
    transaction_id: str
    account: str
    amount_e10: int
    kind: str
    request_id: str | None
    created_at: datetime


async def page(
    conn: Connection,
    merchant_id: str,
    *,
    customer_id: str | None,
    request_id: str | None,
    before: int,
    most: int,
) -> list[LedgerRow]:
    """At most `most` entries with ids below `before`, newest first; a None filter lets all pass."""
    if request_id is not None:
        rows = await Q["ledger_of_request"].fetch(
            conn,
            merchant_id=merchant_id,
            request_id=request_id,
            customer_id=customer_id,
            before=before,
            most=most,
        )
    elif customer_id is not None:
        rows = await Q["ledger_of_customer"].fetch(
            conn, merchant_id=merchant_id, customer_id=customer_id, before=before, most=most
        )
    else:
        rows = await Q["ledger_of_merchant"].fetch(
            conn, merchant_id=merchant_id, before=before, most=most
        )
    return [LedgerRow(**dict(row)) for row in rows]


async def announce_credit(conn: Connection, owner_id: str) -> None:
    """Have every worker forget, once this transaction commits, that it refused this account."""
    await Q["announce_credit"].fetchrow(conn, owner_id=owner_id)


async def recall_credit(conn: Connection, owner_id: str, holder_id: str) -> None:
    """Ask all other workers for what they do not use of an account's credit."""
    await Q["recall"].fetchval(conn, owner_id=owner_id, holder_id=holder_id)
