"""Checkout sessions in PostgreSQL: what is for sale, to whom, until when, and that it is sold once.

A session has at most one payment, and whatever completes it runs under the locks of
`store/payments.py`: account, subscription, payment, and the session last. Where a session names no
customer, the payment that succeeds makes one, under an id that was chosen before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lava_proxy.core.ids import new_id
from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.rules.contact import split_name
from lava_proxy.store import customers, outbox, subscriptions
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("checkout_sessions")
PAYMENTS = load("payments")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a new session names; None where the merchant has no such thing."""

    customer_id: str | None
    active_plan_id: str | None
    plan_id: str | None
    credit_bundle_id: str | None
    bundle_plan_id: str | None
    price_e10: int
    plan_ends: bool
    """The customer's plan will be left, or its cycle is over."""


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session as it is opened."""

    checkout_session_id: str
    merchant_id: str
    secret_hash: bytes
    test: bool
    checkout_mode: str
    origin_url: str
    customer_id: str | None
    plan_id: str | None
    credit_bundle_id: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as its page needs it; amounts in 10^-10 USD. None: not there, or ended."""

    checkout_session_id: str
    merchant_id: str
    merchant_name: str
    secret_hash: bytes
    test: bool
    checkout_mode: str
    origin_url: str
    customer_id: str | None
    buyer_id: str | None
    buyer_name: str | None
    buyer_email: str | None
    redirect_url: str | None
    created_at: datetime
    expires_at: datetime
    completed_at: datetime | None
    email: str | None
    customer_gone: bool
    plan_id: str | None
    plan_name: str | None
    period_amount_e10: int | None
    included_credit_e10: int | None
    billing_interval: str | None
    credit_bundle_id: str | None
    bundle_plan_id: str | None
    bundle_name: str | None
    cost_e10: int | None
    credit_e10: int | None
    subscription_id: str | None
    active_plan_id: str | None
    cycle_end_at: datetime | None
    plan_ends: bool
    """It will be left, for another or for none."""
    waits: bool
    """For the plan that this session sells."""
    past_due: bool
    active_name: str | None
    active_amount_e10: int | None
    payment_id: str | None
    payment_status: str | None
    payment_amount_e10: int | None
    attempts: int | None
    provider_ref: str | None
    error_message: str | None
    answered: bool
    """The provider (or nobody, by hand) has answered what was asked last."""
    payer_ref: str | None


@dataclass(frozen=True, slots=True)
class Buyer:
    """Who a new customer says to be."""

    name: str
    email: str


async def terms(
    conn: Connection,
    merchant_id: str,
    *,
    customer: str | None,
    plan_id: str | None,
    credit_bundle_id: str | None,
    now: datetime,
) -> Terms:
    """Look up what a session is to be about; the customer by id or reference."""
    row = await Q["checkout_terms"].fetchrow(
        conn,
        merchant_id=merchant_id,
        customer=customer,
        plan_id=plan_id,
        credit_bundle_id=credit_bundle_id,
        now=now,
    )
    if row is None:
        raise InvariantBroken("the terms of a session are always one row")
    return Terms(**dict(row))


async def create(conn: Connection, made: NewSession) -> None:
    """Open a session."""
    await Q["insert_checkout_session"].execute(
        conn,
        checkout_session_id=made.checkout_session_id,
        merchant_id=made.merchant_id,
        secret_hash=made.secret_hash,
        test=made.test,
        checkout_mode=made.checkout_mode,
        origin_url=made.origin_url,
        customer_id=made.customer_id,
        plan_id=made.plan_id,
        credit_bundle_id=made.credit_bundle_id,
        created_at=made.created_at,
        expires_at=made.expires_at,
    )


async def find(conn: Connection, secret_hash: bytes, provider: str) -> SessionRow | None:
    """A session by its secret's hash; the payer as `provider` knows them."""
    row = await Q["find_checkout_session"].fetchrow(
        conn, secret_hash=secret_hash, provider=provider
    )
    return None if row is None else SessionRow(**dict(row))


async def lock(conn: Connection, seen: SessionRow, provider: str) -> SessionRow:
    """The session again, with its customer's account and itself locked."""
    if seen.customer_id is not None:
        await subscriptions.lock_account(conn, seen.customer_id)
    await Q["lock_checkout_session"].fetchrow(conn, checkout_session_id=seen.checkout_session_id)
    row = await find(conn, seen.secret_hash, provider)
    if row is None:
        raise InvariantBroken("sessions are never deleted")
    return row


async def begin(conn: Connection, row: SessionRow, payment_id: str, buyer: Buyer) -> str:
    """Give a session its payment, and the buyer's details where it names no customer; answers who
    buys: a customer, or the id that a new one will have."""
    new = row.customer_id is None
    buyer_id = row.customer_id or row.buyer_id or new_id("customer", test=row.test)
    await Q["begin_checkout"].execute(
        conn,
        checkout_session_id=row.checkout_session_id,
        payment_id=payment_id,
        buyer_id=buyer_id if new else None,
        buyer_name=buyer.name if new else None,
        buyer_email=buyer.email if new else None,
    )
    return buyer_id


async def ask_again(
    conn: Connection, payment_id: str, provider: str, now: datetime, look_at: datetime
) -> None:
    """The payer tries once more: the same payment, so it is made once at most."""
    await PAYMENTS["ask_again"].execute(
        conn, payment_id=payment_id, provider=provider, now=now, look_at=look_at
    )


async def set_redirect(conn: Connection, checkout_session_id: str, url: str | None) -> None:
    """Remember the provider's page."""
    await Q["set_redirect"].execute(conn, checkout_session_id=checkout_session_id, redirect_url=url)


async def record_buyer(
    conn: Connection, checkout_session_id: str, payment_id: str, now: datetime
) -> None:
    """Make the customer that this payment is of. The payment is locked; nobody knows the customer
    yet, so locking its account after this waits for nobody."""
    row = await Q["buyer_of_session"].fetchrow(conn, checkout_session_id=checkout_session_id)
    if row is None or row["buyer_id"] is None:
        raise InvariantBroken("a session that was begun without a customer has a buyer")
    first_name, last_name = split_name(row["buyer_name"])
    wanted = customers.CustomerRow(
        customer_id=row["buyer_id"],
        reference_id=None,
        phone="",
        email=row["buyer_email"] or "",
        first_name=first_name,
        last_name=last_name,
        metadata=None,
        created_at=now,
    )
    made = await customers.create(conn, row["merchant_id"], wanted)
    await PAYMENTS["set_payer"].execute(conn, payment_id=payment_id, customer_id=made.customer_id)
    news = outbox.Event(row["merchant_id"], outbox.CREATED, made.customer_id)
    await outbox.emit(conn, [news], now)


async def complete(
    conn: Connection, checkout_session_id: str, customer_id: str | None, now: datetime
) -> None:
    """What was sold is delivered; once."""
    await Q["complete_checkout"].execute(
        conn, checkout_session_id=checkout_session_id, customer_id=customer_id, now=now
    )
