"""Booked requests, as the management API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import asyncpg

from lava_proxy.rules.charge import Charge, Counts
from lava_proxy.rules.charge import Line as Part
from lava_proxy.rules.settlement import Call, Settlement
from lava_proxy.rules.tiers import Tier
from lava_proxy.store.database import Connection
from lava_proxy.store.lines import COLUMNS, Line, columns
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("requests")
S = load("settle")

USUAL = 1000
"""Requests looked through one by one for some metadata, before those that have it are collected: of
what is usual there are too many for that, and of what is rare too few among these."""


@dataclass(frozen=True, slots=True)
class Rerating:
    """What a request came to once its price was known. `input_cost_e10`, `breakdown`: None where
    they are not known apart, or stayed."""

    version: str
    cost_e10: int
    charge_e10: int
    input_cost_e10: int | None
    breakdown: Sequence[Part] | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A request as booked."""

    request_id: str
    created_at: datetime
    customer_id: str | None
    meter_id: str | None
    provider: str
    provider_key_type: str
    model: str | None
    endpoint: str
    response_id: str | None
    status: str
    outcome: str | None
    """None, as `usage_source`, while the call is not over."""
    usage_source: str | None
    stream: bool
    counts: Counts
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    input_cost_e10: int
    output_cost_e10: int
    cost_e10: int
    charge_e10: int
    rate_type: str | None
    tier_type: str | None
    breakdown: Sequence[Part]
    metadata: Mapping[str, str]
    price_version: str | None
    duration_ms: int | None
    first_byte_ms: int | None
    completed_at: datetime | None
    content_hash: bytes | None
    """What was reported under this id; None for the gateway's own, and in lists."""
    rerated: Rerating | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A request id that was booked, and what was reported under it."""

    content_hash: bytes | None


async def find(conn: Connection, merchant_id: str, request_id: str) -> RequestRow | None:
    """A merchant's request by id."""
    row = await Q["find_request"].fetchrow(conn, merchant_id=merchant_id, request_id=request_id)
    return None if row is None else _request(row)


async def taken(conn: Connection, merchant_id: str, request_id: str) -> Taken | None:
    """Whether an id was ever booked, also where the request is not kept any more."""
    row = await S["booked_request"].fetchrow(conn, merchant_id=merchant_id, request_id=request_id)
    return None if row is None else Taken(row["content_hash"])


async def page(
    conn: Connection,
    merchant_id: str,
    *,
    customer_id: str | None,
    meter_id: str | None,
    metadata: Mapping[str, str] | None,
    behind: Place,
    most: int,
) -> list[RequestRow]:
    """At most `most` requests behind a place, newest first; a None filter lets all pass. Rows must
    have every pair of `metadata`."""
    of: dict[str, object] = {"merchant_id": merchant_id}
    place: dict[str, object] = {"before_at": behind.at, "before_id": behind.id, "most": most}
    if customer_id is not None:
        of |= {"customer_id": customer_id, "meter_id": meter_id, "metadata": metadata}
        rows = await Q["list_requests_of_customer"].fetch(conn, **of, **place)
    elif metadata:
        of |= {"meter_id": meter_id, "metadata": metadata}
        rows = await Q["list_newest_requests_with"].fetch(conn, **of, **place, among=USUAL)
        if len(rows) < most:
            rows = await Q["list_requests_with"].fetch(conn, **of, **place)
    elif meter_id is not None:
        rows = await Q["list_requests_of_meter"].fetch(conn, **of, **place, meter_id=meter_id)
    else:
        rows = await Q["list_requests"].fetch(conn, **of, **place)
    return [_request(row) for row in rows]


def as_booked(row: Settlement, charge: Charge) -> RequestRow:
    """What `find` would read of a settlement that was booked with this charge."""
    values = dict(zip(COLUMNS, columns(Line(row, 0, charge)), strict=True))
    for name in ("merchant_id", "cycle", "units", "flags", "breakdown"):
        del values[name]
    counts = Counts(**{name: values.pop(name) for name in _COUNTS})  # type: ignore[arg-type]
    metadata = values.pop("metadata") or {}
    return RequestRow(
        **values,  # type: ignore[arg-type]
        counts=counts,
        breakdown=charge.lines,
        metadata=metadata,  # type: ignore[arg-type]
        content_hash=row.content_hash,
    )


def as_open(call: Call) -> RequestRow:
    """A call that is not booked yet: nothing is counted, nothing is charged."""
    nothing = Settlement(
        call=call,
        outcome="completed",
        usage_source="estimate",
        counts=Counts(),
        cost=None,
        model=call.model,
    )
    row = as_booked(nothing, Charge(0, ()))
    return replace(row, status="pending", outcome=None, usage_source=None)


_COUNTS = tuple(Counts.__dataclass_fields__)


def _request(row: asyncpg.Record) -> RequestRow:
    values = dict(row)
    del values["merchant_id"]
    counts = Counts(**{name: values.pop(name) for name in _COUNTS})
    breakdown = _parts(values.pop("breakdown"))
    metadata = values.pop("metadata") or {}
    rerated = _rerating(values)
    return RequestRow(
        **values, counts=counts, breakdown=breakdown, metadata=metadata, rerated=rerated
    )


def _rerating(values: dict[str, Any]) -> Rerating | None:
    """Takes what a late price changed out of a row's values."""
    names = ("version", "cost_e10", "charge_e10", "input_cost_e10", "breakdown", "at")
    found = {name: values.pop(f"rerated_{name}") for name in names}
    if found["version"] is None:
        return None
    lines = found.pop("breakdown")
    return Rerating(**found, breakdown=None if lines is None else _parts(lines))


def _parts(lines: Sequence[Sequence[int]]) -> list[Part]:
    return [
        Part(Tier(start, rate_e12), units, amount_e10)
        for start, rate_e12, units, amount_e10 in lines
    ]
