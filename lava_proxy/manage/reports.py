"""``POST /v1/requests``: usage that happened elsewhere, into the same books.

The work is done, so a report is never refused for want of credit: what no credit covers becomes
debt. It goes through the ledger writer like any call, and is answered after its commit. The id is
the merchant's, and is kept for ever with a hash of what was reported: the same report again answers
the stored request, any other under that id is 409 and changes nothing. So a caller who got 503 or
nothing just sends it again, also after the customer's plan changed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from hashlib import sha256

import orjson
from pydantic import Field

from lava_proxy.core.errors import LavaError
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import (
    Body,
    Cost,
    Milliseconds,
    Name,
    Units,
    customer_named,
    read_fields,
    refuse,
)
from lava_proxy.manage.idempotency import once_apart
from lava_proxy.manage.open_requests import runs
from lava_proxy.manage.requests import RequestView, view
from lava_proxy.rules import price
from lava_proxy.rules import settlement as rules
from lava_proxy.rules.charge import Counts
from lava_proxy.rules.entitlement import tier_cycle
from lava_proxy.rules.settlement import Customer, Meter
from lava_proxy.store import requests as store
from lava_proxy.wire.metadata import check_metadata

COMMIT_WAIT_S = 5.0
"""Longest wait for the ledger writer; then 503, and the report may still be booked."""

PROVIDER = "reported"
ENDPOINT = "POST /v1/requests"
NO_HOLDER = ""
"""Reports are paid from credit that no worker holds: a lease that its worker does not know to be
spent would be spent twice."""


class Report(Body):
    """What was used. `cost` is ours: what it cost the merchant, the base of percentage meters."""

    request_id: Name
    customer_id: Name | None = None
    connection_id: Name | None = None
    meter_slug: Name
    metadata: object = None
    input_tokens: Units = 0
    output_tokens: Units = 0
    input_characters: Units = 0
    output_characters: Units = 0
    input_ms: Milliseconds = Field(0, alias="input_seconds")
    output_ms: Milliseconds = Field(0, alias="output_seconds")
    cost: Cost | None = None

    @property
    def counts(self) -> Counts:
        return Counts(
            self.input_tokens,
            self.output_tokens,
            self.input_characters,
            self.output_characters,
            self.input_ms,
            self.output_ms,
        )


@dataclass(frozen=True, slots=True)
class _Named:
    """A report with what it names."""

    body: Report
    customer: Customer
    meter: Meter
    metadata: dict[str, str]

    @property
    def content_hash(self) -> bytes:
        """By meaning: a customer's id and reference are the same customer."""
        body, counts = self.body, self.body.counts
        facts = [
            self.customer.customer_id,
            self.meter.meter_id,
            [getattr(counts, name) for name in Counts.__dataclass_fields__],
            self.metadata,
            body.cost,
        ]
        return sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).digest()


async def create(desk: Desk, call: Call) -> Answer:
    """Book a report, or answer what was booked under its id."""
    named = await _named(desk, call)
    try:
        row = _settlement(desk, call, named)
    except LavaError as error:
        booked = await _booked(desk, call, named) if error.code == "meter_not_on_plan" else None
        if booked is None:
            raise
        return booked  # its plan changed since
    if await runs(desk, call.merchant_id, named.body.request_id):
        raise LavaError("idempotency_conflict", "a call runs through the gateway under this id")
    return await once_apart(desk, call, lambda _: _book(desk, row))


async def _named(desk: Desk, call: Call) -> _Named:
    body = read_fields(Report, call)
    # In the order that jsonb keeps, so that the first answer is also that of every repeat.
    pairs = sorted(check_metadata(body.metadata).items(), key=lambda pair: (len(pair[0]), pair[0]))
    name = customer_named({"customer_id": body.customer_id, "connection_id": body.connection_id})
    if name is None:
        refuse("customer_id", "is required")
    customer = await desk.customer(call, name)
    meter = await desk.meter(call, body.meter_slug)
    if meter.tariff.rate_type == "percentage" and body.cost is None:
        raise LavaError(
            "meter_needs_cost",
            f"the meter {meter.slug} charges a percentage: send the field cost",
            details=[{"path": "cost", "message": "is required by a percentage meter"}],
        )
    return _Named(body, customer, meter, dict(pairs))


def _settlement(desk: Desk, call: Call, named: _Named) -> rules.Settlement:
    body, customer, meter = named.body, named.customer, named.meter
    now = desk.books.now()
    return rules.Settlement(
        call=rules.Call(
            request_id=body.request_id,
            merchant_id=call.merchant_id,
            holder_id=NO_HOLDER,
            owner_id=customer.customer_id,
            customer_id=customer.customer_id,
            meter=meter,
            cycle=tier_cycle(call.known.merchant, customer, meter, now),
            billable=True,
            provider=PROVIDER,
            provider_key_type="unmanaged",
            model=None,
            endpoint=ENDPOINT,
            stream=False,
            created_at=now,
            metadata=named.metadata or None,
        ),
        outcome="completed",
        usage_source="reported",
        counts=body.counts,
        cost=None if body.cost is None else price.Cost(0, body.cost, body.cost),
        model=None,
        completed_at=now,
        content_hash=named.content_hash,
    )


async def _book(desk: Desk, row: rules.Settlement) -> Answer:
    if desk.books.condition.state() != "normal":
        raise _away()
    try:
        async with asyncio.timeout(COMMIT_WAIT_S):
            made = await desk.books.writer.book(row)
    except TimeoutError:
        raise _away() from None
    if made.fresh and made.charge is not None:
        return answer(view(store.as_booked(row, made.charge)))
    merchant_id, request_id = row.call.merchant_id, row.call.request_id
    async with desk.reading() as conn:
        booked = await store.find(conn, merchant_id, request_id)
        known = booked or await store.taken(conn, merchant_id, request_id)
    if known is None or known.content_hash != row.content_hash:
        raise LavaError("idempotency_conflict", "this request_id was booked with other content")
    if booked is None:
        raise LavaError("conflict", "this report was booked, and its month is not kept any more")
    return answer(view(booked))


async def _booked(desk: Desk, call: Call, named: _Named) -> Answer | None:
    """What was booked of this very report before; None where nothing was."""
    async with desk.reading() as conn:
        booked = await store.find(conn, call.merchant_id, named.body.request_id)
    if booked is None or booked.content_hash != named.content_hash:
        return None
    return answer(view(booked))


def _away() -> LavaError:
    return LavaError(
        "unavailable",
        "the books cannot be written now; send the same report again",
        headers={"retry-after": "1"},
    )


ROUTES = (
    Route(
        "POST",
        "requests",
        create,
        answer=RequestView,
        body=Report,
        errors=("not_found", "conflict", "meter_needs_cost", "meter_not_on_plan"),
        paced=False,  # traffic, like a forwarded call: the writer's queue bounds it
    ),
)
