"""Subscriptions and their cycles: begun, renewed, changed and ended, each cycle once.

A cycle is a row unique by (subscription, seq), made under the lock of the customer's account, so a
renewal that runs late, twice or at two places makes one. Free cycles begin here whoever looks
first: the worker, a lease, or a worker's memory. Paid ones open a row in `payments` and begin when
that succeeds (`store/payments.py`).

* Cycles that nobody looked at are skipped where nobody could use them any more (rollover `none`) or
  nobody paid for them: only the current one grants. Free ones with rollover `full` are made up for.
* The rule for what is left belongs to the cycle that grants it: `none` expires with its cycle,
  `full` does not expire until the subscription ends, so nothing has to move at a renewal, and what
  workers hold meanwhile comes back to where it was.
* An upgrade ends the cycle at once: credit that would have ended with it ends now. A downgrade
  waits for its end, also when it was paid for (`prepaid.py`).
* When the subscription ends, so does all cycle credit. Bundles keep the date they were sold with.
  Who left another plan is on the merchant's Free plan from then on, where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import is_test, new_id
from lava_proxy.rules.cycle import cycle_at
from lava_proxy.store import pending, prepaid
from lava_proxy.store.cycles import OPERATOR, begin, move, next_cycle
from lava_proxy.store.database import Connection
from lava_proxy.store.news import credit_moved
from lava_proxy.store.settle import Q as SETTLE
from lava_proxy.store.sql import load

Q = load("subscriptions")
PAYMENTS = load("payments")

MISSED_MOST = 50
"""Cycles that one transaction makes up for."""


async def start(
    conn: Connection,
    *,
    customer_id: str,
    plan_id: str,
    now: datetime,
    source: str = OPERATOR,
    payment_id: str | None = None,
    offered_e10: int | None = None,
) -> str:
    """Put a customer on a plan now, with a new cycle; answers the subscription's id. What the
    customer is on already is changed (an upgrade). `offered_e10`: as of `cycles.begin`."""
    await lock_account(conn, customer_id)
    plan = await _terms(conn, customer_id, plan_id)
    await renew_due(conn, customer_id, now)
    current = await Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)
    span = cycle_at(now, plan["billing_interval"], now)
    if current is None:
        subscription_id, seq = new_id("subscription", test=is_test(customer_id)), 1
        await Q["insert_subscription"].execute(
            conn,
            subscription_id=subscription_id,
            merchant_id=plan["merchant_id"],
            customer_id=customer_id,
            plan_id=plan_id,
            top_up_bundle_id=plan["default_top_up_bundle_id"],
            now=now,
            ends_at=span.end,
        )
    else:
        subscription_id, seq = current["subscription_id"], current["cycle_seq"] + 1
        await Q["end_cycle_credit"].execute(conn, customer_id=customer_id, at=now, kept=True)
        await _drop(conn, subscription_id, ("renewal",), now)
        await move(conn, subscription_id, plan, seq, now, span)
        if current["pending_payment_id"] is not None:
            await prepaid.release(conn, current["pending_payment_id"], now)
    await begin(
        conn, customer_id, subscription_id, seq, plan, span, now, source, payment_id, offered_e10
    )
    return subscription_id


async def subscribe_free(
    conn: Connection, *, customer_id: str, plan_id: str, now: datetime
) -> None:
    """`POST /v1/subscriptions`: onto a free plan; from a paid one that is a downgrade, which waits
    for the cycle's end, if that is not past: then the next cycle is not paid for. The plan that
    the customer is on, whatever it costs, takes back the change that waits."""
    await lock_account(conn, customer_id)
    plan = await _terms(conn, customer_id, plan_id)
    current = await Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)
    if current is not None and current["plan_id"] == plan_id:
        if current["pending_type"] is None or _is_over(current, now):
            raise LavaError("conflict", "the customer is on this plan")
        await pending.keep(conn, current["subscription_id"], now)
    elif plan["period_amount_e10"]:
        raise LavaError("conflict", "this plan is paid: the customer buys it through checkout")
    elif current is None or not current["now_amount_e10"] or _is_over(current, now):
        await start(conn, customer_id=customer_id, plan_id=plan_id, now=now)
        return
    else:
        await pending.change_later(conn, current["subscription_id"], plan_id, now)
    await credit_moved(conn, customer_id, now)


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
    if _is_over(row, now):
        await leave(conn, customer_id, subscription_id, now, now)
    else:
        await pending.change_later(conn, subscription_id, None, now)
    await credit_moved(conn, customer_id, now)
    return customer_id


async def end(
    conn: Connection, customer_id: str, subscription_id: str | None, at: datetime
) -> None:
    """Cancel now (None: whichever they are on); its cycle credit ends, and nobody is asked to pay
    for it any more. The account must be locked."""
    ended = await Q["end_subscription"].fetchrow(
        conn, customer_id=customer_id, subscription_id=subscription_id, at=at
    )
    if ended is None:
        return
    await Q["end_cycle_credit"].execute(conn, customer_id=customer_id, at=at, kept=False)
    await _drop(conn, ended["subscription_id"], ("renewal", "top_up"), at)
    if ended["pending_payment_id"] is not None:
        await prepaid.release(conn, ended["pending_payment_id"], at)


async def leave(
    conn: Connection, customer_id: str, subscription_id: str, at: datetime, now: datetime
) -> None:
    """End a subscription whose customer stays: they go on the merchant's Free plan, where there is
    one. The account must be locked."""
    await end(conn, customer_id, subscription_id, at)
    plan_id = await Q["free_plan_after"].fetchval(conn, subscription_id=subscription_id)
    if plan_id is not None and await on_sale(conn, customer_id, plan_id, now):
        await start(conn, customer_id=customer_id, plan_id=plan_id, now=now)


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
        await leave(conn, customer_id, row["subscription_id"], row["cycle_end_at"], now)
        await credit_moved(conn, customer_id, now)
    elif row["pending_payment_id"] is not None:
        await prepaid.begin(conn, row, now)
    elif row["period_amount_e10"]:
        await _ask_for_payment(conn, row, now)
        await credit_moved(conn, customer_id, now)
    else:
        await _free_cycles(conn, row, now)


async def _free_cycles(conn: Connection, row: asyncpg.Record, now: datetime) -> None:
    """The cycle that `now` falls in, and before it those that were missed and whose credit would
    still be there. What a round leaves the next one does."""
    customer_id: str = row["customer_id"]
    due: asyncpg.Record | None = row
    for _ in range(MISSED_MOST):
        if due is None or due["cycle_end_at"] > now:
            return
        kept = due["rollover_type"] == "full" and due["included_credit_e10"]
        at = due["cycle_end_at"] if kept else now
        await next_cycle(conn, due, at, now, OPERATOR, None)
        due = await Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)


async def lapse(conn: Connection, customer_id: str, asked_before: datetime, now: datetime) -> None:
    """End a subscription whose renewal was asked for before that and is not paid. Money that comes
    later becomes credit."""
    await lock_account(conn, customer_id)
    for row in await Q["lapsed"].fetch(
        conn, customer_id=customer_id, asked_before=asked_before, most=1
    ):
        await leave(conn, customer_id, row["subscription_id"], now, now)
        await credit_moved(conn, customer_id, now)


async def lapsed_customers(conn: Connection, asked_before: datetime, most: int) -> list[str]:
    """Customers for whom `lapse` has something to do."""
    rows = await Q["lapsed"].fetch(conn, customer_id=None, asked_before=asked_before, most=most)
    return [row["customer_id"] for row in rows]


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
    conn: Connection,
    *,
    subscription_id: str,
    merchant_id: str,
    bundle_id: str | None,
    now: datetime,
) -> bool:
    """Set the auto top-up; False where the bundle is not the plan's. Without one, nobody is asked
    any more either for what was due."""
    customer_id = await owner(conn, subscription_id, merchant_id)
    if customer_id is not None and bundle_id is None:
        await lock_account(conn, customer_id)  # a lease may be writing down the next one
        await _drop(conn, subscription_id, ("top_up",), now)
    changed = await Q["set_top_up"].fetchval(
        conn, subscription_id=subscription_id, merchant_id=merchant_id, bundle_id=bundle_id
    )
    return changed is not None


async def lock_account(conn: Connection, customer_id: str) -> None:
    """One at a time per customer."""
    await SETTLE["lock_accounts"].fetch(conn, owner_ids=[customer_id])


async def on_sale(conn: Connection, customer_id: str, plan_id: str, now: datetime) -> bool:
    """Whether `start` can put this customer on this plan, and they are not on it: bought twice, a
    plan's second price would end the first's credit."""
    row = await Q["plan_terms"].fetchrow(conn, plan_id=plan_id, customer_id=customer_id)
    current = await Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)
    if row is None or current is None or current["plan_id"] != plan_id:
        return row is not None
    return current["cycle_end_at"] <= now or current["pending_type"] is not None


def _is_over(row: asyncpg.Record, now: datetime) -> bool:
    """Whether the cycle that was paid for is over. Who waited for the lock comes with an older
    `now`: a renewal that was asked for meanwhile says so too."""
    return row["past_due_since"] is not None or row["cycle_end_at"] <= now


async def _terms(conn: Connection, customer_id: str, plan_id: str) -> asyncpg.Record:
    row = await Q["plan_terms"].fetchrow(conn, plan_id=plan_id, customer_id=customer_id)
    if row is None:
        raise LavaError("not_found", "there is no such plan")
    return row


async def _drop(
    conn: Connection, subscription_id: str, purposes: Sequence[str], now: datetime
) -> None:
    """Ask nobody any more for payments of these purposes."""
    await PAYMENTS["drop_open"].execute(
        conn, subscription_id=subscription_id, purposes=list(purposes), now=now
    )


async def _ask_for_payment(conn: Connection, row: asyncpg.Record, now: datetime) -> None:
    await PAYMENTS["open_renewal"].execute(
        conn,
        payment_id=new_id("payment", test=is_test(row["customer_id"])),
        merchant_id=row["merchant_id"],
        customer_id=row["customer_id"],
        amount=row["period_amount_e10"],
        credit=row["included_credit_e10"],
        plan_id=row["next_plan_id"],
        subscription_id=row["subscription_id"],
        seq=row["cycle_seq"] + 1,
        now=now,
    )
    await Q["past_due"].execute(
        conn, subscription_id=row["subscription_id"], since=row["cycle_end_at"]
    )
    await PAYMENTS["wake_workers"].fetchrow(conn)
