"""``/v1/requests``, reading: what was booked, through the gateway or by report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NotRequired, cast

from typing_extensions import TypedDict

from lava_proxy.core.money import format_e10, format_rate_e12
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import read_query
from lava_proxy.manage.filters import metadata_filters, narrowed
from lava_proxy.manage.open_requests import find
from lava_proxy.manage.paging import (
    PAGE_PARAMETERS,
    Page,
    PageView,
    Position,
    position_at,
    read_page,
)
from lava_proxy.manage.text import seconds_number, time_text
from lava_proxy.rules.charge import Line
from lava_proxy.store import requests as store
from lava_proxy.store.requests import RequestRow

Status = Literal["pending", "completed", "error"]
PARAMETERS = PAGE_PARAMETERS | {"customer_id", "connection_id", "meter_id", "metadata_filters"}


class ModelUsage(TypedDict):
    """Counts and provider cost. Input includes cached tokens, output includes reasoning."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_characters: int
    output_characters: int
    total_characters: int
    input_seconds: float
    output_seconds: float
    total_seconds: float
    input_cost: str
    output_cost: str
    total_cost: str
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int


class ChargedTier(TypedDict):
    """A tier of the meter, as it was."""

    start: int
    rate: str
    type: str


class ChargePart(TypedDict):
    """The part of a charge that fell in one tier."""

    tier: ChargedTier
    tokens: int
    characters: int
    seconds: float
    cost: str


class ChargeView(TypedDict):
    """What the customer was charged."""

    amount: str
    rate_type: str
    breakdown: list[ChargePart]


class RerateView(TypedDict):
    """That a price came late: as what the request was booked. All else shows what it came to."""

    booked_cost: str
    booked_charge: str
    booked_price_version: str | None
    rerated_at: str


class RequestView(TypedDict):
    """A request as the API shows it: what is not known is absent. `pending`: the call runs, or its
    row is on its way to the books; what it came to is not known yet, and counts and amounts are 0.
    """

    request_id: str
    status: Status
    provider: str
    provider_key_type: str
    endpoint: str
    stream: bool
    model_usage: ModelUsage
    cost: str
    charge: ChargeView
    metadata: dict[str, str]
    created_at: str
    outcome: NotRequired[str]
    usage_source: NotRequired[str]
    customer_id: NotRequired[str]
    meter_id: NotRequired[str]
    model: NotRequired[str]
    response_id: NotRequired[str]
    price_version: NotRequired[str]
    duration_ms: NotRequired[int]
    time_to_first_byte_ms: NotRequired[int]
    timestamp: NotRequired[str]
    rerated: NotRequired[RerateView]


async def retrieve(desk: Desk, call: Call) -> Answer:
    """A request by id; `pending` from the start of the call until it is booked."""
    row = await find(desk, call.merchant_id, call.params[0])
    if row is None:
        raise no_such("request")
    return answer(view(row))


async def page(desk: Desk, call: Call) -> Answer:
    """What is booked, newest first. An unknown customer or meter is 404, a deleted one is not."""
    query = read_query(call, PARAMETERS)
    page = read_page("requests", query)
    wanted = metadata_filters(query.get("metadata_filters"))
    customer_id, meter_id = await narrowed(desk, call, query)
    if wanted is None:
        return Page(page.kind, None, page.limit).answer([], view, _position)
    async with desk.reading() as conn:
        rows = await store.page(
            conn,
            call.merchant_id,
            customer_id=customer_id,
            meter_id=meter_id,
            metadata=wanted or None,
            behind=page.place,
            most=page.most,
        )
    return page.answer(rows, view, _position)


def view(row: RequestRow) -> RequestView:
    """A request as the API shows it: optional members are absent rather than null. Where a price
    came late it shows what it came to, so that usage is the sum of the requests."""
    now = _present(row)
    shown: RequestView = {
        "request_id": row.request_id,
        "status": cast(Status, row.status),
        "provider": row.provider,
        "provider_key_type": row.provider_key_type,
        "endpoint": row.endpoint,
        "stream": row.stream,
        "model_usage": _model_usage(now),
        "cost": format_e10(now.cost_e10),
        "charge": {
            "amount": format_e10(now.charge_e10),
            "rate_type": now.rate_type or "fixed",
            "breakdown": [_part(line, now.tier_type or "") for line in now.breakdown],
        },
        "metadata": dict(row.metadata),
        "created_at": time_text(row.created_at),
    }
    optional: Mapping[str, object | None] = {
        "outcome": row.outcome,
        "usage_source": row.usage_source,
        "rerated": _rerated(row),
        "customer_id": row.customer_id,
        "meter_id": row.meter_id,
        "model": row.model,
        "response_id": row.response_id,
        "price_version": now.price_version,
        "duration_ms": row.duration_ms,
        "time_to_first_byte_ms": row.first_byte_ms,
        "timestamp": time_text(row.completed_at) if row.completed_at else None,
    }
    return cast(RequestView, {**shown, **{n: v for n, v in optional.items() if v is not None}})


def _present(row: RequestRow) -> RequestRow:
    """A row with what it came to. Where the parts of the new cost are not known, all is output."""
    rerated = row.rerated
    if rerated is None:
        return row
    input_e10 = rerated.input_cost_e10 or 0
    return replace(
        row,
        input_cost_e10=input_e10,
        output_cost_e10=rerated.cost_e10 - input_e10,
        cost_e10=rerated.cost_e10,
        charge_e10=rerated.charge_e10,
        price_version=rerated.version,
        breakdown=row.breakdown if rerated.breakdown is None else rerated.breakdown,
    )


def _rerated(row: RequestRow) -> RerateView | None:
    if row.rerated is None:
        return None
    return {
        "booked_cost": format_e10(row.cost_e10),
        "booked_charge": format_e10(row.charge_e10),
        "booked_price_version": row.price_version,
        "rerated_at": time_text(row.rerated.at),
    }


def _model_usage(row: RequestRow) -> ModelUsage:
    counts = row.counts
    return {
        "input_tokens": counts.input_tokens,
        "output_tokens": counts.output_tokens,
        "total_tokens": counts.input_tokens + counts.output_tokens,
        "input_characters": counts.input_characters,
        "output_characters": counts.output_characters,
        "total_characters": counts.input_characters + counts.output_characters,
        "input_seconds": seconds_number(counts.input_ms),
        "output_seconds": seconds_number(counts.output_ms),
        "total_seconds": seconds_number(counts.input_ms + counts.output_ms),
        "input_cost": format_e10(row.input_cost_e10),
        "output_cost": format_e10(row.output_cost_e10),
        "total_cost": format_e10(row.cost_e10),
        "cache_read_tokens": row.cache_read_tokens,
        "cache_write_tokens": row.cache_write_tokens,
        "reasoning_tokens": row.reasoning_tokens,
    }


def _part(line: Line, unit: str) -> ChargePart:
    """The part of a charge that fell in one tier, with the units of the meter's own kind."""
    return {
        "tier": {
            "start": line.tier.start,
            "rate": format_rate_e12(line.tier.rate_e12),
            "type": unit,
        },
        "tokens": line.units if unit == "tokens_1m" else 0,
        "characters": line.units if unit == "characters_1m" else 0,
        "seconds": seconds_number(line.units if unit == "minutes" else 0),
        "cost": format_e10(line.amount_e10),
    }


def _position(row: RequestRow) -> Position:
    return position_at(row.created_at, row.request_id)


ROUTES = (
    Route(
        "GET",
        "requests",
        page,
        answer=PageView[RequestView],
        query=PARAMETERS,
        errors=("not_found",),
    ),
    Route("GET", "requests/*", retrieve, answer=RequestView),
)
