"""Money that was paid and is not used as it was meant, or not yet.

A cheaper plan that is paid for while a dearer one runs begins with the end of the cycle
(`subscriptions.pending_payment_id`). Where another change takes its place, its money becomes credit
at once, as does all money that comes for something that is over or gone.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

from lava_proxy.core.ids import is_test, new_id
from lava_proxy.store import credit, reversals
from lava_proxy.store.cycles import next_cycle
from lava_proxy.store.database import Connection
from lava_proxy.store.news import credit_moved
from lava_proxy.store.sql import load

PAYMENTS = load("payments")


async def as_credit(
    conn: Connection,
    row: asyncpg.Record,
    amount_e10: int,
    expires_at: datetime | None,
    now: datetime,
) -> str | None:
    """Bundle credit out of a payment; answers the grant."""
    if not amount_e10:
        return None
    grant_id = new_id("credit", test=is_test(row["customer_id"]))
    await credit.grant(
        conn,
        grant_id=grant_id,
        owner_id=row["customer_id"],
        kind="bundle",
        amount_e10=amount_e10,
        expires_at=expires_at,
        note=row["payment_id"],
        now=now,
        source=source_of(row),
    )
    return grant_id


async def release(conn: Connection, payment_id: str | None, now: datetime) -> None:
    """The change that this paid for will not be. The account is locked."""
    row = await PAYMENTS["lock_payment"].fetchrow(conn, payment_id=payment_id)
    if row is None:
        return
    grant_id = await as_credit(conn, row, row["amount_e10"], None, now)
    await PAYMENTS["set_grant"].execute(conn, payment_id=row["payment_id"], grant_id=grant_id)
    await reversals.settle_new(conn, row["payment_id"], now)
    await credit_moved(conn, row["customer_id"], now)


async def begin(conn: Connection, subscription: asyncpg.Record, now: datetime) -> None:
    """The cycle that was paid for; what of the money went back since goes from its credit. From a
    row of `lock_subscription`."""
    payment_id: str = subscription["pending_payment_id"]
    row = await PAYMENTS["lock_payment"].fetchrow(conn, payment_id=payment_id)
    if row is not None:
        source, offered_e10 = source_of(row), row["credit_e10"]
        await next_cycle(conn, subscription, now, now, source, payment_id, offered_e10)
        await reversals.settle_new(conn, payment_id, now)


def source_of(row: asyncpg.Record) -> str:
    """Where a payment's credit comes from, in the ledger."""
    return f"payments:{row['provider']}"
