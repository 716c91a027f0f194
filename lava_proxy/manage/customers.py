"""Customers: who holds credit. `reference_id` is the merchant's own id, and an idempotency key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import orjson
from pydantic import Field, StringConstraints

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import PREFIXES
from lava_proxy.manage.context import JSON, Body, Context, Route, invalid
from lava_proxy.manage.paging import PAGING, cursor_of, limit_of, page
from lava_proxy.manage.shape import time_of
from lava_proxy.store import resources
from lava_proxy.store.resources import Row

METADATA_MAX_BYTES = 16 * 1024

Text255 = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class CreateCustomer(Body):
    """`POST /v1/customers`. Everything is optional."""

    reference_id: Text255 | None = None
    email: (
        Annotated[str, StringConstraints(max_length=320, pattern=r"^[^@\s]+@[^@\s]+$")] | None
    ) = None
    phone: Annotated[str, StringConstraints(pattern=r"^\+[1-9][0-9]{1,14}$")] | None = Field(
        None, description="E.164"
    )
    name: Text255 | None = None
    metadata: dict[str, object] | None = None


async def create(ctx: Context) -> JSON:
    """A new customer, or the one that has this reference."""
    body = ctx.body(CreateCustomer)
    if body.reference_id is not None and body.reference_id.startswith(PREFIXES["customer"]):
        raise invalid("reference_id", f"may not start with {PREFIXES['customer']}")
    check_metadata_size(body.metadata)
    first, _, last = (body.name or "").partition(" ")
    row = await resources.create_customer(
        ctx.transaction,
        ctx.merchant_id,
        reference_id=body.reference_id,
        phone=body.phone or "",
        email=body.email or "",
        first_name=first,
        last_name=last,
        metadata=body.metadata,
        now=ctx.now(),
    )
    return show(row)


async def retrieve(ctx: Context) -> JSON:
    return show(await find(ctx, ctx.params["customer_id"]))


async def list_all(ctx: Context) -> JSON:
    limit = limit_of(ctx.query)
    async with ctx.books.database.connection() as conn:
        rows = await resources.customers_page(
            conn, ctx.merchant_id, cursor_of(ctx.query), limit + 1
        )
    return page(rows, limit, "customer_id", show)


async def find(ctx: Context, customer: str) -> Row:
    """The merchant's customer by id or reference, or 404."""
    if ctx.conn is not None:
        row = await resources.find_customer(ctx.conn, ctx.merchant_id, customer)
    else:
        async with ctx.books.database.connection() as conn:
            row = await resources.find_customer(conn, ctx.merchant_id, customer)
    if row is None:
        raise LavaError("not_found", "There is no such customer.")
    return row


def check_metadata_size(metadata: Mapping[str, object] | None) -> None:
    """422 when the metadata is over the limit as JSON."""
    if metadata is not None and len(orjson.dumps(metadata, default=str)) > METADATA_MAX_BYTES:
        raise invalid("metadata", f"is over {METADATA_MAX_BYTES} bytes")


def show(row: Row) -> JSON:
    """The public object."""
    return {
        "customer_id": row["customer_id"],
        "reference_id": row["reference_id"],
        "contact": {
            "phone": row["phone"],
            "email": row["email"],
            "first_name": row["first_name"],
            "last_name": row["last_name"],
        },
        "subscription": None,
        "metadata": row["metadata"],
        "created_at": time_of(row["created_at"]),
    }


ROUTES = (
    Route("POST", "/customers", create, transaction=True),
    Route("GET", "/customers", list_all, query=PAGING),
    Route("GET", "/customers/{customer_id}", retrieve),
)
