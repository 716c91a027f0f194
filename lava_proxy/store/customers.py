"""Customers in PostgreSQL, as the management API shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lava_proxy.core.errors import LavaError
from lava_proxy.store.database import Connection, StoreConflict, StorePoison
from lava_proxy.store.faults import mapped
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("customers")

TRIES = 3
"""A taken reference whose customer is deleted before we read it is free again."""


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """A customer as stored; `metadata` is JSON text, numbers as they came."""

    customer_id: str
    reference_id: str | None
    phone: str
    email: str
    first_name: str
    last_name: str
    metadata: str | None
    created_at: datetime
    top_up_max_e10: int | None = None
    """Of auto top-ups per calendar month (UTC); None: what the settings say."""
    subscription_id: str | None = None
    plan_id: str | None = None
    status: str | None = None
    plan_name: str | None = None
    """The subscription that it is on."""


async def create(conn: Connection, merchant_id: str, wanted: CustomerRow) -> CustomerRow:
    """Make `wanted` and its credit account, or answer the customer that has its reference."""
    for _ in range(TRIES):
        made = await Q["create_customer"].fetchrow(
            conn,
            customer_id=wanted.customer_id,
            merchant_id=merchant_id,
            reference_id=wanted.reference_id,
            phone=wanted.phone,
            email=wanted.email,
            first_name=wanted.first_name,
            last_name=wanted.last_name,
            metadata=wanted.metadata,
            top_up_max=wanted.top_up_max_e10,
            created_at=wanted.created_at,
        )
        if made is not None:
            return CustomerRow(**dict(made))
        known = await find(conn, merchant_id, wanted.reference_id or "")
        if known is not None:
            return known
    raise StoreConflict("the reference is being taken and given up all the time")


async def find(conn: Connection, merchant_id: str, customer: str) -> CustomerRow | None:
    """A merchant's customer by id or reference."""
    row = await Q["find_customer"].fetchrow(conn, merchant_id=merchant_id, customer=customer)
    return None if row is None else CustomerRow(**dict(row))


async def page(conn: Connection, merchant_id: str, behind: Place, most: int) -> list[CustomerRow]:
    """At most `most` customers behind a place, newest first."""
    rows = await Q["list_customers"].fetch(
        conn, merchant_id=merchant_id, before_at=behind.at, before_id=behind.id, most=most
    )
    return [CustomerRow(**dict(row)) for row in rows]


async def update(
    conn: Connection, merchant_id: str, customer: str, change: Mapping[str, str | int | None]
) -> CustomerRow | None:
    """Change a customer, by id or reference; None where there is none, 409 for a taken reference.
    `change` has what is to change, by the names of `CustomerRow`; both names go together."""

    def text(name: str) -> str | int | None:
        return (change[name] or "") if name in change else None

    try:
        with mapped():
            row = await Q["update_customer"].fetchrow(
                conn,
                merchant_id=merchant_id,
                customer=customer,
                set_reference="reference_id" in change,
                reference_id=change.get("reference_id"),
                phone=text("phone"),
                email=text("email"),
                first_name=text("first_name"),
                last_name=text("last_name"),
                set_metadata="metadata" in change,
                metadata=change.get("metadata"),
                set_top_up_max="top_up_max_e10" in change,
                top_up_max=change.get("top_up_max_e10"),
            )
    except StorePoison as error:
        if error.constraint != "customers_reference":
            raise
        taken = change.get("reference_id")
        raise LavaError("conflict", f"the reference_id {taken!r} is another customer's") from None
    return None if row is None else await find(conn, merchant_id, row["customer_id"])


async def delete(conn: Connection, merchant_id: str, customer: str, now: datetime) -> str | None:
    """End a customer, by id or reference; answers its id, None where there is none."""
    gone: str | None = await Q["delete_customer"].fetchval(
        conn, merchant_id=merchant_id, customer=customer, now=now
    )
    return gone
