"""What a payment pays for, done in the transaction that moves it to `succeeded`.

Money that comes for something that is over, gone or had already becomes credit: it was paid.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

from lava_proxy.core.ids import is_test, new_id
from lava_proxy.store import credit, subscriptions, wallets
from lava_proxy.store.cycles import next_cycle
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("payments")


async def deliver(
    conn: Connection, row: asyncpg.Record, now: datetime
) -> tuple[str | None, str | None]:
    """What a payment pays for; answers (grant, subscription)."""
    customer_id, source = row["customer_id"], f"payments:{row['provider']}"
    if customer_id is None:
        await wallets.fund(
            conn,
            merchant_id=row["merchant_id"],
            test=is_test(row["payment_id"]),
            amount_e10=row["amount_e10"],
            source=source,
            now=now,
        )
        return None, None
    if row["purpose"] == "subscription" and await subscriptions.on_sale(
        conn, customer_id, row["plan_id"], now
    ):
        return None, await subscriptions.start(
            conn,
            customer_id=customer_id,
            plan_id=row["plan_id"],
            now=now,
            source=source,
            payment_id=row["payment_id"],
        )
    if row["purpose"] == "renewal":
        return await _renew(conn, row, now, source), None
    return await _buy(conn, row, now, source), None


async def _buy(conn: Connection, row: asyncpg.Record, now: datetime, source: str) -> str | None:
    """A bundle's credit; what was paid, where there is no bundle: for a plan that the customer
    is on by now, or one of them gone."""
    terms = await Q["bundle_terms"].fetchrow(
        conn, credit_bundle_id=row["credit_bundle_id"], customer_id=row["customer_id"]
    )
    if terms is None:
        return await _bundle(conn, row, row["amount_e10"], None, now, source)
    expires_at = terms["cycle_end_at"] if terms["bundle_rollover_type"] == "none" else None
    if expires_at is not None and expires_at <= now:
        expires_at = None  # the next cycle is not paid for yet: what was bought must be of use
    return await _bundle(conn, row, terms["credit_e10"], expires_at, now, source)


async def _renew(conn: Connection, row: asyncpg.Record, now: datetime, source: str) -> str | None:
    current = await subscriptions.Q["lock_subscription"].fetchrow(
        conn, customer_id=row["customer_id"]
    )
    wanted = (row["subscription_id"], row["seq"] - 1)
    if current is None or (current["subscription_id"], current["cycle_seq"]) != wanted:
        return await _bundle(conn, row, row["amount_e10"], None, now, source)
    return await next_cycle(conn, current, now, now, source, row["payment_id"])


async def _bundle(
    conn: Connection,
    row: asyncpg.Record,
    amount_e10: int,
    expires_at: datetime | None,
    now: datetime,
    source: str,
) -> str | None:
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
        source=source,
    )
    return grant_id
