"""Payments: a row before the provider is asked, and its state moved once, with what it pays for.

`succeeded` and `failed` may be told the same thing twice and in any order: success counts once,
whatever was said before; a failure after it changes nothing. Lock order: account, subscription,
payment, checkout session. What a payment pays for: `delivery.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import asyncpg

from lava_proxy.rules.limits import wallet_account
from lava_proxy.store import checkout_sessions, reversals, subscriptions
from lava_proxy.store.database import Connection
from lava_proxy.store.delivery import deliver
from lava_proxy.store.ledger import announce_credit
from lava_proxy.store.news import credit_moved
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("payments")

Purpose = Literal["subscription", "renewal", "bundle", "top_up", "wallet"]
BY_WORKERS: tuple[Purpose, ...] = ("renewal", "top_up")
"""A worker asks for these, and hears itself that they fail; the others are paid on a page."""
AGAIN_S = 60.0
"""A payment that was asked for and not answered is asked for again so much later."""
RENEWAL_PAUSES_H = (1, 6, 24)
"""Between the tries of a declined renewal; the last one repeats."""
TOP_UP_PAUSE_MAX_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Retry:
    """What follows a decline."""

    grace_days: int
    top_up_pause_s: float


@dataclass(frozen=True, slots=True)
class Due:
    """A payment that a worker has to ask the provider for."""

    payment_id: str
    merchant_id: str
    customer_id: str
    amount_e10: int
    attempts: int
    provider_ref: str | None
    """The charge that an earlier try made there: one that waits for its payer is not made twice."""
    payer_ref: str | None


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """A payment as stored."""

    payment_id: str
    customer_id: str | None
    purpose: str
    amount_e10: int
    status: str
    provider: str
    provider_ref: str | None
    plan_id: str | None
    subscription_id: str | None
    credit_bundle_id: str | None
    refunded_e10: int
    disputed_at: datetime | None
    attempts: int
    error_code: str | None
    error_message: str | None
    created_at: datetime
    settled_at: datetime | None


async def open_payment(
    conn: Connection,
    *,
    payment_id: str,
    merchant_id: str,
    customer_id: str | None,
    purpose: Purpose,
    amount_e10: int,
    provider: str,
    now: datetime,
    plan_id: str | None = None,
    subscription_id: str | None = None,
    credit_bundle_id: str | None = None,
    credit_e10: int | None = None,
    checkout_session_id: str | None = None,
    due_at: datetime | None = None,
    look_at: datetime | None = None,
) -> None:
    """Write a payment down, before anybody is asked for it. `credit_e10`: what was offered for it;
    None: what the plan or bundle gives when it is paid. `due_at`: the provider is to be
    asked, and has not answered yet. `look_at`: when to look it up there, if its end is not known
    then."""
    await Q["open_payment"].execute(
        conn,
        payment_id=payment_id,
        merchant_id=merchant_id,
        customer_id=customer_id,
        purpose=purpose,
        amount=amount_e10,
        provider=provider,
        plan_id=plan_id,
        subscription_id=subscription_id,
        credit_bundle_id=credit_bundle_id,
        credit=credit_e10,
        checkout_session_id=checkout_session_id,
        due_at=due_at,
        look_at=look_at,
        now=now,
    )


async def claim(
    conn: Connection, purpose: Purpose, provider: str, now: datetime, most: int
) -> list[Due]:
    """Payments to ask for now; nobody else gets them for a minute."""
    rows = await Q["claim_payments"].fetch(
        conn,
        purpose=purpose,
        provider=provider,
        now=now,
        again_at=now + timedelta(seconds=AGAIN_S),
        most=most,
    )
    return [Due(**dict(row)) for row in rows]


async def succeeded(conn: Connection, payment_id: str, ref: str | None, now: datetime) -> bool:
    """The money is there: do what it pays for. False where that was done before."""
    row = await lock(conn, payment_id)
    if row is None or row["status"] == "succeeded":
        return False
    session_id: str | None = row["checkout_session_id"]
    if session_id is not None and row["customer_id"] is None:
        await checkout_sessions.record_buyer(conn, session_id, payment_id, now)
        row = await lock(conn, payment_id) or row
    grant_id, subscription_id = await deliver(conn, row, now)
    await Q["settle_payment"].execute(
        conn,
        payment_id=payment_id,
        ref=ref,
        grant_id=grant_id,
        subscription_id=subscription_id,
        now=now,
    )
    await reversals.settle_new(conn, payment_id, now)
    if session_id is not None:
        await checkout_sessions.complete(conn, session_id, row["customer_id"], now)
    if row["customer_id"] is not None:
        await credit_moved(conn, row["customer_id"], now)
    else:
        await announce_credit(conn, wallet_account(row["merchant_id"]))
    return True


async def failed(
    conn: Connection,
    payment_id: str,
    now: datetime,
    retry: Retry,
    *,
    ref: str | None = None,
    code: str | None = None,
    message: str | None = None,
    needs_action: bool = False,
) -> bool:
    """The provider declined. A renewal is tried again until its grace is over, then the
    subscription ends; a top-up makes the next one wait. False where nothing changes."""
    row = await lock(conn, payment_id)
    if row is None or row["status"] in ("succeeded", "cancelled", "failed"):
        return False
    status, next_at = ("requires_action" if needs_action else "failed"), None
    if row["purpose"] == "renewal":
        next_at = _renewal_retry(row, now, retry)
        again = "requires_action" if needs_action else "pending"
        status = again if next_at else "failed"
    elif row["purpose"] == "top_up":
        declines = await Q["declines"].fetchval(conn, subscription_id=row["subscription_id"])
        pause_s = min(retry.top_up_pause_s * 2 ** min(declines, 16), TOP_UP_PAUSE_MAX_S)
        next_at = now + timedelta(seconds=pause_s)
    await Q["refuse_payment"].execute(
        conn,
        payment_id=payment_id,
        status=status,
        ref=ref,
        code=code,
        message=message,
        next_at=next_at,
    )
    if row["purpose"] == "renewal" and next_at is None:
        await subscriptions.leave(conn, row["customer_id"], row["subscription_id"], now, now)
        await credit_moved(conn, row["customer_id"], now)
    return True


async def wait_for_provider(
    conn: Connection, payment_id: str, ref: str | None, look_at: datetime
) -> None:
    """The answer will come by itself; or it is looked up."""
    await Q["wait_for_provider"].execute(conn, payment_id=payment_id, ref=ref, look_at=look_at)


async def find(conn: Connection, merchant_id: str, payment_id: str) -> PaymentRow | None:
    """A merchant's payment."""
    row = await Q["find_payment"].fetchrow(conn, merchant_id=merchant_id, payment_id=payment_id)
    return None if row is None else _payment(row)


async def page(
    conn: Connection, merchant_id: str, customer_id: str | None, behind: Place, most: int
) -> list[PaymentRow]:
    """At most `most` payments behind a place, newest first."""
    rows = await Q["list_payments"].fetch(
        conn,
        merchant_id=merchant_id,
        customer_id=customer_id,
        before_at=behind.at,
        before_id=behind.id,
        most=most,
    )
    return [_payment(row) for row in rows]


def _payment(row: asyncpg.Record) -> PaymentRow:
    return PaymentRow(**{name: row[name] for name in PaymentRow.__dataclass_fields__})


async def lock(conn: Connection, payment_id: str) -> asyncpg.Record | None:
    """A payment, to be moved; whose it is locked before it."""
    customer_id = await Q["payer_of_payment"].fetchval(conn, payment_id=payment_id)
    if customer_id is not None:
        await subscriptions.lock_account(conn, customer_id)
        await subscriptions.Q["lock_subscription"].fetchrow(conn, customer_id=customer_id)
    return await Q["lock_payment"].fetchrow(conn, payment_id=payment_id)


def _renewal_retry(row: asyncpg.Record, now: datetime, retry: Retry) -> datetime | None:
    """When a declined renewal is tried again, for the last time as its grace ends; then None."""
    pause_h = RENEWAL_PAUSES_H[min(row["attempts"], len(RENEWAL_PAUSES_H) - 1)]
    last: datetime = row["created_at"] + timedelta(days=retry.grace_days)
    return min(now + timedelta(hours=pause_h), last) if now < last else None
