"""Subscriptions and their cycles: begun, renewed, changed and ended, each cycle once.

A cycle is a row unique by (subscription, seq), made under the lock of the customer's account, so a
renewal that runs late, twice or at two places makes one. Free cycles begin here whoever looks
first: the worker, a lease, or a worker's memory. Paid ones open a row in `payments` and begin when
that succeeds (`store/payments.py`).

* Cycles that nobody looked at are skipped: only the current one grants. Nobody could use them.
* The rule for what is left belongs to the cycle that grants it: `none` expires with its cycle,
  `full` does not expire until the subscription ends, so nothing has to move at a renewal, and what
  workers hold meanwhile comes back to where it was.
* An upgrade ends the cycle at once: credit with rollover `none` ends with it.
* When the subscription ends, so does all cycle credit. Bundles keep the date they were sold with.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.core.money import format_e10
from lava_proxy.rules.cycle import Span, cycle_at
from lava_proxy.store import credit
from lava_proxy.store.database import Connection
from lava_proxy.store.ledger import announce_credit
from lava_proxy.store.settle import Q as SETTLE
from lava_proxy.store.sql import load

Q = load("subscriptions")
PAYMENTS = load("payments")

OPERATOR = "operator:grants"
"""What a free cycle's credit comes from, in the ledger."""


async def start(
    conn: Connection,
    *,
    customer_id: str,
    plan_id: str,
    now: datetime,
    source: str = OPERATOR,
    payment_id: str | None = None,
) -> str:
    """Put a customer on a plan now, with a new cycle; answers the subscription's id. What the
    customer is on already is changed (an upgrade)."""
    await lock_account(conn, customer_id)
    current = await Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)
    merchant_id = await _merchant(conn, customer_id)
    plan = await Q["plan_terms"].fetchrow(conn, plan_id=plan_id, merchant_id=merchant_id)
    if plan is None:
        raise LavaError("not_found", "there is no such plan")
    span = cycle_at(now, plan["billing_interval"], now)
    if current is None:
        subscription_id, seq = new_id("subscription", test="_test_" in customer_id), 1
        await Q["insert_subscription"].execute(
            conn,
            subscription_id=subscription_id,
            merchant_id=merchant_id,
            customer_id=customer_id,
            plan_id=plan_id,
            top_up_bundle_id=plan["default_top_up_bundle_id"],
            now=now,
            ends_at=span.end,
        )
    else:
        subscription_id, seq = current["subscription_id"], current["cycle_seq"] + 1
        if current["now_rollover"] == "none":
            await Q["end_cycle_credit"].execute(conn, customer_id=customer_id, at=now)
        await PAYMENTS["drop_pending"].execute(conn, subscription_id=subscription_id, now=now)
        await _move(conn, subscription_id, plan, seq, now, span)
    await _cycle(conn, customer_id, subscription_id, seq, plan, span, now, source, payment_id)
    return subscription_id


async def subscribe_free(
    conn: Connection, *, customer_id: str, plan_id: str, merchant_id: str, now: datetime
) -> None:
    """`POST /v1/subscriptions`: onto a free plan; from a paid one that is a downgrade, which waits
    for the cycle's end."""
    await lock_account(conn, customer_id)
    plan = await Q["plan_terms"].fetchrow(conn, plan_id=plan_id, merchant_id=merchant_id)
    if plan is None:
        raise LavaError("not_found", "there is no such plan")
    if plan["period_amount_e10"]:
        raise LavaError("conflict", "this plan is paid: the customer buys it through checkout")
    current = await Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)
    if current is None or not current["now_amount_e10"]:
        if current is not None and current["plan_id"] == plan_id:
            raise LavaError("conflict", "the customer is on this plan")
        await start(conn, customer_id=customer_id, plan_id=plan_id, now=now)
        return
    await downgrade(conn, current["subscription_id"], plan_id)


async def downgrade(conn: Connection, subscription_id: str, plan_id: str) -> None:
    """Change to another plan at the cycle's end. The account must be locked."""
    await Q["pend"].execute(
        conn, subscription_id=subscription_id, pending_type="downgrade", pending_plan_id=plan_id
    )


async def cancel(
    conn: Connection, *, subscription_id: str, merchant_id: str, now: datetime
) -> str | None:
    """End a subscription with its cycle, or now when the next cycle is already owed for; answers
    whose it is, None where there is none."""
    customer_id = await owner(conn, subscription_id, merchant_id)
    if customer_id is None:
        return None
    await lock_account(conn, customer_id)
    row = await Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)
    if row is None or row["subscription_id"] != subscription_id:
        raise LavaError("conflict", "the subscription is cancelled")
    if row["past_due_since"] is not None or row["cycle_end_at"] <= now:
        await end(conn, customer_id, subscription_id, now)
    else:
        await Q["pend"].execute(
            conn, subscription_id=subscription_id, pending_type="cancellation", pending_plan_id=None
        )
    return customer_id


async def end(conn: Connection, customer_id: str, subscription_id: str, at: datetime) -> None:
    """Cancel now; its cycle credit ends, and nobody is asked to pay for it any more. The account
    must be locked."""
    await Q["end_subscription"].execute(conn, subscription_id=subscription_id, at=at)
    await Q["end_cycle_credit"].execute(conn, customer_id=customer_id, at=at)
    await PAYMENTS["drop_pending"].execute(conn, subscription_id=subscription_id, now=at)


async def renew_due(conn: Connection, customer_id: str, now: datetime) -> None:
    """What is due when a cycle is over: cancellation, the next free cycle, or the payment for a
    paid one. Harmless at any time and any number of times."""
    due = await Q["subscription_due"].fetchval(conn, customer_id=customer_id, now=now)
    if due is None:
        return
    await lock_account(conn, customer_id)
    row = await Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)
    if row is None or row["cycle_end_at"] > now or row["past_due_since"] is not None:
        return
    if row["pending_type"] == "cancellation":
        await end(conn, customer_id, row["subscription_id"], row["cycle_end_at"])
    elif row["period_amount_e10"]:
        await _ask_for_payment(conn, row, now)
    else:
        await next_cycle(conn, row, now, OPERATOR, None)


async def next_cycle(
    conn: Connection, row: asyncpg.Record, now: datetime, source: str, payment_id: str | None
) -> str | None:
    """The cycle that `now` falls in, from a row of `lock_subscription`; answers its grant."""
    same = row["next_plan_id"] == row["plan_id"] or row["billing_interval"] == row["now_interval"]
    anchor = row["anchor_at"] if same else row["cycle_end_at"]
    span = cycle_at(anchor, row["billing_interval"], now)
    seq = row["cycle_seq"] + 1
    await _move(conn, row["subscription_id"], row, seq, anchor, span)
    return await _cycle(
        conn, row["customer_id"], row["subscription_id"], seq, row, span, now, source, payment_id
    )


async def due_customers(conn: Connection, now: datetime, most: int) -> list[str]:
    """Customers whose cycle is over, the longest first."""
    rows = await Q["due_customers"].fetch(conn, now=now, most=most)
    return [row["customer_id"] for row in rows]


async def owner(conn: Connection, subscription_id: str, merchant_id: str) -> str | None:
    """Whose subscription it is, of this merchant's customers."""
    customer_id: str | None = await Q["customer_of"].fetchval(
        conn, subscription_id=subscription_id, merchant_id=merchant_id
    )
    return customer_id


async def set_top_up(
    conn: Connection, *, subscription_id: str, merchant_id: str, bundle_id: str | None
) -> bool:
    """Set the auto top-up; False where the bundle is not the plan's."""
    changed = await Q["set_top_up"].fetchval(
        conn, subscription_id=subscription_id, merchant_id=merchant_id, bundle_id=bundle_id
    )
    return changed is not None


async def lock_account(conn: Connection, customer_id: str) -> None:
    """One at a time per customer."""
    await SETTLE["lock_accounts"].fetch(conn, owner_ids=[customer_id])


async def _merchant(conn: Connection, customer_id: str) -> str:
    rows = await SETTLE["lock_accounts"].fetch(conn, owner_ids=[customer_id])
    if not rows:
        raise LavaError("not_found", "there is no such customer")
    merchant_id: str = rows[0]["merchant_id"]
    return merchant_id


async def _ask_for_payment(conn: Connection, row: asyncpg.Record, now: datetime) -> None:
    await PAYMENTS["open_renewal"].execute(
        conn,
        payment_id=new_id("payment", test="_test_" in row["customer_id"]),
        merchant_id=row["merchant_id"],
        customer_id=row["customer_id"],
        amount=row["period_amount_e10"],
        plan_id=row["next_plan_id"],
        subscription_id=row["subscription_id"],
        seq=row["cycle_seq"] + 1,
        now=now,
    )
    await Q["past_due"].execute(
        conn, subscription_id=row["subscription_id"], since=row["cycle_end_at"]
    )


async def _move(
    conn: Connection,
    subscription_id: str,
    plan: asyncpg.Record,
    seq: int,
    anchor: datetime,
    span: Span,
) -> None:
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


async def _cycle(
    conn: Connection,
    customer_id: str,
    subscription_id: str,
    seq: int,
    plan: asyncpg.Record,
    span: Span,
    now: datetime,
    source: str,
    payment_id: str | None,
) -> str | None:
    """The row of a cycle and its credit; answers the grant."""
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
    amount: int = plan["included_credit_e10"]
    if made is None or not amount:
        return None
    grant_id = new_id("credit", test="_test_" in customer_id)
    await credit.grant(
        conn,
        grant_id=grant_id,
        owner_id=customer_id,
        kind="cycle",
        amount_e10=amount,
        expires_at=span.end if plan["rollover_type"] == "none" else None,
        note=f"cycle {seq}: {format_e10(amount)}",
        now=now,
        source=source,
    )
    await Q["cycle_granted"].execute(
        conn, subscription_id=subscription_id, seq=seq, grant_id=grant_id
    )
    await announce_credit(conn, customer_id)
    return grant_id
