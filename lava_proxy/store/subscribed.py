"""Subscriptions to look at: with their plan, their customer, and the credit that is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lava_proxy.store.database import Connection
from lava_proxy.store.place import TOP, Place
from lava_proxy.store.sql import load

Q = load("subscribed")


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    """A subscription as the API shows it; amounts in 10^-10 USD."""

    subscription_id: str
    merchant_id: str
    customer_id: str
    plan_id: str
    status: str
    top_up_bundle_id: str | None
    started_at: datetime
    cancelled_at: datetime | None
    cycle_start_at: datetime
    cycle_end_at: datetime
    pending_type: str | None
    pending_plan_id: str | None
    name: str
    period_amount_e10: int
    included_credit_e10: int
    billing_interval: str
    rollover_type: str
    bundle_rollover_type: str
    next_name: str | None
    next_amount_e10: int | None
    next_credit_e10: int | None
    phone: str
    email: str
    first_name: str
    last_name: str
    total_e10: int
    cycle_e10: int
    bundle_e10: int
    pending_payment_id: str | None


async def page(
    conn: Connection,
    merchant_id: str,
    *,
    customer_id: str | None,
    status: str | None,
    behind: Place,
    most: int,
) -> list[SubscriptionRow]:
    """At most `most` subscriptions behind a place, newest first; a None filter lets all pass."""
    rows = await Q["list_subscriptions"].fetch(
        conn,
        merchant_id=merchant_id,
        customer_id=customer_id,
        status=status,
        before_at=behind.at,
        before_id=behind.id,
        most=most,
    )
    return [SubscriptionRow(**dict(row)) for row in rows]


async def active(conn: Connection, merchant_id: str, customer_id: str) -> SubscriptionRow | None:
    """The subscription that a customer is on."""
    rows = await page(
        conn, merchant_id, customer_id=customer_id, status="active", behind=TOP, most=1
    )
    return rows[0] if rows else None


async def active_of(conn: Connection, customer_ids: Sequence[str]) -> dict[str, SubscriptionRow]:
    """The subscriptions that these customers are on, by customer."""
    rows = await Q["active_of"].fetch(conn, customer_ids=list(customer_ids))
    return {row["customer_id"]: SubscriptionRow(**dict(row)) for row in rows}
