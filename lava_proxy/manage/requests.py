"""Requests: usage reported after the fact, and every call that was ever booked.

A report is booked by the same writer, in the same transaction, as calls through the gateway, and is
acknowledged after its commit. `request_id` makes it idempotent for ever: the same content again
answers the stored object, other content is 409 and writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

import orjson
from pydantic import Field, StringConstraints

from lava_proxy.core.errors import LavaError
from lava_proxy.core.money import format_e10
from lava_proxy.manage import customers
from lava_proxy.manage.context import JSON, Body, Context, Route, invalid
from lava_proxy.manage.meters import show_tier
from lava_proxy.manage.paging import PAGING, cursor_of, limit_of, page
from lava_proxy.manage.shape import amount_of, time_of
from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.rules.settlement import Call, Customer, Meter, Settlement, calendar_cycle
from lava_proxy.store import resources
from lava_proxy.store.database import StoreConflict, StoreDown
from lava_proxy.store.resources import Row
from lava_proxy.store.settle import Q as SETTLE
from lava_proxy.wire.metadata import check_metadata
from lava_proxy.wire.problem import storable

REPORTED = "reported"
"""Provider of rows that ran elsewhere."""
ENDPOINT = "POST /v1/requests"
COUNT_MAX = 10**12
"""Units of one report; more is a mistake."""

Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Report(Body):
    """`POST /v1/requests`."""

    request_id: Name
    customer_id: Name | None = None
    connection_id: Name | None = None
    meter_slug: Name
    metadata: object = None
    input_tokens: Count = 0
    output_tokens: Count = 0
    input_characters: Count = 0
    output_characters: Count = 0
    input_seconds: int | Decimal = 0
    output_seconds: int | Decimal = 0
    cost: str | None = None


async def create(ctx: Context) -> JSON:
    """Book a report, or answer with the one that has this id."""
    body = ctx.body(Report)
    if not storable(body.request_id):
        raise invalid("request_id", "holds a NUL or half of a surrogate pair")
    metadata = check_metadata(body.metadata)
    customer = await _customer(ctx, body)
    meter = await ctx.books.directory.meter(ctx.merchant_id, body.meter_slug)
    if meter is None:
        raise LavaError("not_found", "There is no such meter.")
    row = _settlement(ctx, body, metadata, customer, meter)
    try:
        booked = await ctx.books.writer.book(row)
        async with ctx.books.database.connection() as conn:
            if not booked.fresh:
                known = await SETTLE["booked_request"].fetchrow(
                    conn, merchant_id=ctx.merchant_id, request_id=body.request_id
                )
                if known is None or known["content_hash"] != row.content_hash:
                    raise LavaError(
                        "idempotency_conflict",
                        f"The request_id {body.request_id!r} is booked with other content.",
                    )
            stored = await resources.find_request(conn, ctx.merchant_id, body.request_id)
    except (StoreDown, StoreConflict):
        raise LavaError(
            "unavailable",
            "the database is away; send the same report again",
            headers={"retry-after": "1"},
        ) from None
    if stored is None:
        raise LavaError("internal_error")
    return show(stored)


async def retrieve(ctx: Context) -> JSON:
    async with ctx.books.database.connection() as conn:
        row = await resources.find_request(conn, ctx.merchant_id, ctx.params["request_id"])
    if row is None:
        raise LavaError("not_found", "There is no such request.")
    return show(row)


async def list_all(ctx: Context) -> JSON:
    limit = limit_of(ctx.query)
    metadata = metadata_filter(ctx.query)
    named = _one_of(ctx.query.get("customer_id"), ctx.query.get("connection_id"))
    meter_id = await _meter_id(ctx)
    async with ctx.books.database.connection() as conn:
        ctx.conn = conn
        customer_id = None if named is None else (await customers.find(ctx, named))["customer_id"]
        rows = await resources.requests_page(
            conn,
            ctx.merchant_id,
            customer_id=customer_id,
            meter_id=meter_id,
            metadata=metadata,
            cursor=cursor_of(ctx.query),
            most=limit + 1,
        )
    return page(rows, limit, "request_id", show)


async def _meter_id(ctx: Context) -> str | None:
    named = ctx.query.get("meter_id")
    if named is None:
        return None
    meter = await ctx.books.directory.meter(ctx.merchant_id, named)
    if meter is None:
        raise LavaError("not_found", "There is no such meter.")
    return meter.meter_id


def metadata_filter(query: Mapping[str, str]) -> dict[str, str]:
    """``metadata_filters``: a JSON array of [key, value] pairs, all of which must match."""
    text = query.get("metadata_filters")
    if text is None:
        return {}
    try:
        pairs = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid("metadata_filters", "is not JSON") from None
    found: dict[str, str] = {}
    for pair in pairs if isinstance(pairs, list) else [None]:
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)
        ):
            raise invalid("metadata_filters", "must be an array of [key, value] pairs of strings")
        if found.setdefault(pair[0], pair[1]) != pair[1]:
            raise invalid("metadata_filters", f"{pair[0]!r} cannot have two values")
    return check_metadata(found)


async def _customer(ctx: Context, body: Report) -> Customer:
    named = _one_of(body.customer_id, body.connection_id)
    if named is None:
        raise invalid("customer_id", "is required")
    customer = await ctx.books.directory.customer(ctx.merchant_id, named)
    if customer is None:
        raise LavaError("not_found", "There is no such customer.")
    return customer


def _one_of(customer_id: str | None, connection_id: str | None) -> str | None:
    """`connection_id` is the older name of `customer_id`; both must agree."""
    if customer_id is not None and connection_id is not None and customer_id != connection_id:
        raise LavaError(
            "invalid_request", "customer_id and connection_id are given and differ; send one."
        )
    return customer_id if customer_id is not None else connection_id


def _settlement(
    ctx: Context, body: Report, metadata: dict[str, str], customer: Customer, meter: Meter
) -> Settlement:
    now = ctx.now()
    counts = Counts(
        body.input_tokens,
        body.output_tokens,
        body.input_characters,
        body.output_characters,
        _milliseconds(body.input_seconds, "input_seconds"),
        _milliseconds(body.output_seconds, "output_seconds"),
    )
    cost_e10 = None if body.cost is None else amount_of(body.cost, "cost")
    if cost_e10 is not None and cost_e10 < 0:
        raise invalid("cost", "must not be negative")
    if cost_e10 is None and meter.tariff.rate_type == "percentage":
        raise LavaError(
            "meter_needs_cost", f"The meter {meter.slug!r} charges a percentage: send cost."
        )
    content = (body.request_id, customer.customer_id, meter.meter_id, metadata, counts, cost_e10)
    call = Call(
        request_id=body.request_id,
        merchant_id=ctx.merchant_id,
        holder_id=ctx.books.journal.holder_id,
        owner_id=customer.customer_id,
        customer_id=customer.customer_id,
        meter=meter,
        cycle=calendar_cycle(now),
        billable=True,
        provider=REPORTED,
        provider_key_type="unmanaged",
        model=None,
        endpoint=ENDPOINT,
        stream=False,
        created_at=now,
        metadata=metadata or None,
    )
    return Settlement(
        call=call,
        outcome="completed",
        usage_source="reported",
        counts=counts,
        cost=None if cost_e10 is None else Cost(0, cost_e10, cost_e10),
        model=None,
        completed_at=now,
        content_hash=hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest(),
    )


def _milliseconds(seconds: int | Decimal, path: str) -> int:
    ms = Decimal(seconds) * 1000
    if ms != ms.to_integral_value() or not 0 <= ms <= COUNT_MAX:
        raise invalid(path, "must be 0 or more, with at most three decimal places")
    return int(ms)


def show(row: Row) -> JSON:
    """The public object, with our extensions."""
    shown: dict[str, object] = {
        "request_id": row["request_id"],
        "status": row["status"],
        "customer_id": row["customer_id"],
        "meter_id": row["meter_id"],
        "provider": row["provider"],
        "provider_key_type": row["provider_key_type"],
        "model": row["model"],
        "endpoint": row["endpoint"],
        "response_id": row["response_id"],
        "model_usage": _usage(row),
        "cost": format_e10(row["cost_e10"]),
        "charge": _charge(row),
        "metadata": row["metadata"] or {},
        "timestamp": time_of(row["completed_at"]),
        "created_at": time_of(row["created_at"]),
        "outcome": row["outcome"],
        "usage_source": row["usage_source"],
        "stream": row["stream"],
        "duration_ms": row["duration_ms"],
        "time_to_first_byte_ms": row["first_byte_ms"],
        "price_version": row["price_version"],
    }
    return {name: value for name, value in shown.items() if value is not None}


def _usage(row: Row) -> JSON:
    return {
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "total_tokens": row["input_tokens"] + row["output_tokens"],
        "input_characters": row["input_characters"],
        "output_characters": row["output_characters"],
        "total_characters": row["input_characters"] + row["output_characters"],
        "input_seconds": row["input_ms"] / 1000,
        "output_seconds": row["output_ms"] / 1000,
        "total_seconds": (row["input_ms"] + row["output_ms"]) / 1000,
        "cache_read_tokens": row["cache_read_tokens"],
        "cache_write_tokens": row["cache_write_tokens"],
        "reasoning_tokens": row["reasoning_tokens"],
        "input_cost": format_e10(row["input_cost_e10"]),
        "output_cost": format_e10(row["output_cost_e10"]),
        "total_cost": format_e10(row["cost_e10"]),
    }


def _charge(row: Row) -> JSON:
    tier_type = row["tier_type"]
    lines = [
        {
            "tier": show_tier(start, rate_e12, tier_type),
            "tokens": units if tier_type == "tokens_1m" else 0,
            "characters": units if tier_type == "characters_1m" else 0,
            "seconds": units / 1000 if tier_type == "minutes" else 0,
            "cost": format_e10(amount_e10),
        }
        for start, rate_e12, units, amount_e10 in row["breakdown"]
    ]
    return {
        "amount": format_e10(row["charge_e10"]),
        "rate_type": row["rate_type"] or "fixed",
        "breakdown": lines,
    }


FILTERS = frozenset({"customer_id", "connection_id", "meter_id", "metadata_filters"})

ROUTES = (
    Route("POST", "/requests", create),
    Route("GET", "/requests", list_all, query=PAGING | FILTERS),
    Route("GET", "/requests/{request_id}", retrieve),
)
