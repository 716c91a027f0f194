"""Checkout sessions in PostgreSQL: what is for sale, to whom, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("checkout_sessions")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a new session names; None where the merchant has no such thing."""

    customer_id: str | None
    active_plan_id: str | None
    plan_id: str | None
    credit_bundle_id: str | None
    bundle_plan_id: str | None


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


async def terms(
    conn: Connection,
    merchant_id: str,
    *,
    customer: str | None,
    plan_id: str | None,
    credit_bundle_id: str | None,
) -> Terms:
    """Look up what a session is to be about; the customer by id or reference."""
    row = await Q["checkout_terms"].fetchrow(
        conn,
        merchant_id=merchant_id,
        customer=customer,
        plan_id=plan_id,
        credit_bundle_id=credit_bundle_id,
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
