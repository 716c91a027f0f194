"""Cycles of subscriptions: the next one is begun, once, with the credit that it grants.

A cycle is a row unique by (subscription, seq). Nothing here locks: the account is locked.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

from lava_proxy.core.ids import is_test, new_id
from lava_proxy.core.money import format_e10
from lava_proxy.rules.cycle import Span, cycle_at
from lava_proxy.store import credit
from lava_proxy.store.database import Connection
from lava_proxy.store.news import credit_moved
from lava_proxy.store.sql import load

Q = load("subscriptions")

OPERATOR = "operator:grants"
"""What a free cycle's credit comes from, in the ledger."""


async def next_cycle(
    conn: Connection,
    row: asyncpg.Record,
    at: datetime,
    now: datetime,
    source: str,
    payment_id: str | None,
    offered_e10: int | None = None,
) -> str | None:
    """The cycle that `at` falls in, from a row of `lock_subscription`; answers its grant."""
    same = row["next_plan_id"] == row["plan_id"] or row["billing_interval"] == row["now_interval"]
    anchor = row["anchor_at"] if same else row["cycle_end_at"]
    span = cycle_at(anchor, row["billing_interval"], at)
    seq = row["cycle_seq"] + 1
    await move(conn, row["subscription_id"], row, seq, anchor, span)
    return await begin(
        conn, row["customer_id"], row["subscription_id"], seq, row, span, now, source, payment_id,
        offered_e10,
    )  # fmt: skip


async def move(
    conn: Connection,
    subscription_id: str,
    plan: asyncpg.Record,
    seq: int,
    anchor: datetime,
    span: Span,
) -> None:
    """Put a subscription into a cycle, of another plan perhaps."""
    await Q["move_subscription"].execute(
        conn,
        subscription_id=subscription_id,
        plan_id=plan.get("next_plan_id") or plan["plan_id"],
        top_up_bundle_id=plan["default_top_up_bundle_id"],
        anchor_at=anchor,
        seq=seq,
        starts_at=span.start,
        ends_at=span.end,
    )


async def begin(
    conn: Connection,
    customer_id: str,
    subscription_id: str,
    seq: int,
    plan: asyncpg.Record,
    span: Span,
    now: datetime,
    source: str,
    payment_id: str | None,
    offered_e10: int | None,
) -> str | None:
    """The row of a cycle and its credit; answers the grant. `offered_e10`: the credit that its
    payment was begun for; None, what the plan gives now."""
    made = await Q["insert_cycle"].fetchval(
        conn,
        subscription_id=subscription_id,
        seq=seq,
        plan_id=plan.get("next_plan_id") or plan["plan_id"],
        starts_at=span.start,
        ends_at=span.end,
        grant_id=None,
        payment_id=payment_id,
    )
    if made is None:
        return None
    amount_e10 = plan["included_credit_e10"] if offered_e10 is None else offered_e10
    grant_id = await _grant(conn, customer_id, seq, amount_e10, plan, span, now, source)
    if grant_id is not None:
        await Q["cycle_granted"].execute(
            conn, subscription_id=subscription_id, seq=seq, grant_id=grant_id
        )
    await credit_moved(conn, customer_id, now)
    return grant_id


async def _grant(
    conn: Connection,
    customer_id: str,
    seq: int,
    amount_e10: int,
    plan: asyncpg.Record,
    span: Span,
    now: datetime,
    source: str,
) -> str | None:
    if not amount_e10:
        return None
    grant_id = new_id("credit", test=is_test(customer_id))
    await credit.grant(
        conn,
        grant_id=grant_id,
        owner_id=customer_id,
        kind="cycle",
        amount_e10=amount_e10,
        expires_at=span.end if plan["rollover_type"] == "none" else None,
        note=f"cycle {seq}: {format_e10(amount_e10)}",
        now=now,
        source=source,
    )
    return grant_id
