"""What a payment pays for, done in the transaction that moves it to `succeeded`.

Money that comes for something that is over, gone or had already becomes credit: it was paid.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

from lava_proxy.core.ids import is_test
from lava_proxy.rules.checkout import waits_for_cycle_end
from lava_proxy.store import pending, subscriptions, wallets
from lava_proxy.store.cycles import next_cycle
from lava_proxy.store.database import Connection
from lava_proxy.store.prepaid import as_credit, source_of
from lava_proxy.store.sql import load

Q = load("payments")


async def deliver(
    conn: Connection, row: asyncpg.Record, now: datetime
) -> tuple[str | None, str | None]:
    """What a payment pays for; answers (grant, subscription)."""
    customer_id: str | None = row["customer_id"]
    if customer_id is None:
        await wallets.fund(
            conn,
            merchant_id=row["merchant_id"],
            test=is_test(row["payment_id"]),
            amount_e10=row["amount_e10"],
            source=source_of(row),
            now=now,
        )
        return None, None
    if row["purpose"] == "subscription" and await subscriptions.on_sale(
        conn, customer_id, row["plan_id"], now
    ):
        return None, await _subscribe(conn, row, now)
    if row["purpose"] == "renewal":
        return await _renew(conn, row, now), None
    return await _buy(conn, row, now), None


async def _subscribe(conn: Connection, row: asyncpg.Record, now: datetime) -> str:
    """Onto the plan at once; or, where the customer came to be on a dearer one since they began to
    pay, with the end of its cycle."""
    customer_id: str = row["customer_id"]
    current = await subscriptions.Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)
    if current is not None and waits_for_cycle_end(
        active_amount_e10=current["now_amount_e10"],
        amount_e10=row["amount_e10"],
        cycle_end_at=current["cycle_end_at"],
        past_due=current["past_due_since"] is not None,
        now=now,
    ):
        subscription_id: str = current["subscription_id"]
        await pending.change_later(
            conn, subscription_id, row["plan_id"], now, payment_id=row["payment_id"]
        )
        return subscription_id
    return await subscriptions.start(
        conn,
        customer_id=customer_id,
        plan_id=row["plan_id"],
        now=now,
        source=source_of(row),
        payment_id=row["payment_id"],
        offered_e10=row["credit_e10"],
    )


async def _buy(conn: Connection, row: asyncpg.Record, now: datetime) -> str | None:
    """A bundle's credit, as it was offered; what was paid, where there is no bundle: for a plan
    that the customer is on by now, or one of them gone."""
    terms = await Q["bundle_terms"].fetchrow(
        conn, credit_bundle_id=row["credit_bundle_id"], customer_id=row["customer_id"]
    )
    if terms is None:
        return await as_credit(conn, row, row["amount_e10"], None, now)
    expires_at = terms["cycle_end_at"] if terms["bundle_rollover_type"] == "none" else None
    if expires_at is not None and expires_at <= now:
        expires_at = None  # the next cycle is not paid for yet: what was bought must be of use
    offered_e10 = row["credit_e10"]
    credit_e10 = terms["credit_e10"] if offered_e10 is None else offered_e10
    return await as_credit(conn, row, credit_e10, expires_at, now)


async def _renew(conn: Connection, row: asyncpg.Record, now: datetime) -> str | None:
    current = await subscriptions.Q["lock_subscription"].fetchrow(
        conn, customer_id=row["customer_id"]
    )
    wanted = (row["subscription_id"], row["seq"] - 1)
    if current is None or (current["subscription_id"], current["cycle_seq"]) != wanted:
        return await as_credit(conn, row, row["amount_e10"], None, now)
    return await next_cycle(
        conn, current, now, now, source_of(row), row["payment_id"], row["credit_e10"]
    )
