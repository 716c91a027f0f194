"""Rows behind the REST API: customers, meters, requests, ledger. One or two statements each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import asyncpg

from lava_proxy.core.ids import new_id
from lava_proxy.rules.settlement import Enforcement
from lava_proxy.rules.tiers import Tariff
from lava_proxy.store.credit import Q as CREDIT
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

CUSTOMERS = load("customers")
METERS = load("meters")
REQUESTS = load("requests")

Row = asyncpg.Record
Cursor = tuple[datetime, str]
"""(created_at, id) of the last row of the page before."""

START: Cursor = (datetime(9999, 1, 1, tzinfo=UTC), "")
LEDGER_START = 2**62


async def create_customer(
    conn: Connection,
    merchant_id: str,
    *,
    reference_id: str | None,
    phone: str,
    email: str,
    first_name: str,
    last_name: str,
    metadata: Mapping[str, object] | None,
    now: datetime,
) -> Row:
    """A new customer with an account, or the one that has this reference already."""
    customer_id = new_id("customer")
    row = await CUSTOMERS["insert_customer"].fetchrow(
        conn,
        customer_id=customer_id,
        merchant_id=merchant_id,
        reference_id=reference_id,
        phone=phone,
        email=email,
        first_name=first_name,
        last_name=last_name,
        metadata=metadata,
        created_at=now,
    )
    if row is None:
        found = await find_customer(conn, merchant_id, reference_id or "")
        if found is None:
            raise LookupError("the reference was taken and is gone again")
        return found
    await CREDIT["insert_account"].execute(conn, owner_id=customer_id, merchant_id=merchant_id)
    return row


async def find_customer(conn: Connection, merchant_id: str, customer: str) -> Row | None:
    return await CUSTOMERS["customer"].fetchrow(conn, merchant_id=merchant_id, customer=customer)


async def customers_page(
    conn: Connection, merchant_id: str, cursor: Cursor, most: int
) -> Sequence[Row]:
    return await CUSTOMERS["customers_page"].fetch(
        conn, merchant_id=merchant_id, before_at=cursor[0], before_id=cursor[1], most=most
    )


async def create_meter(
    conn: Connection,
    merchant_id: str,
    *,
    slug: str,
    name: str,
    tariff: Tariff,
    enforcement: Enforcement,
    overdraft_e10: int,
    now: datetime,
) -> Row | None:
    """A new meter; None when the slug is taken."""
    return await METERS["insert_meter"].fetchrow(
        conn,
        meter_id=new_id("meter"),
        merchant_id=merchant_id,
        slug=slug,
        name=name,
        rate_type=tariff.rate_type,
        tier_type=tariff.unit,
        tiers=[(tier.start, tier.rate_e12) for tier in tariff.tiers],
        enforcement=enforcement,
        overdraft=overdraft_e10,
        created_at=now,
    )


async def find_meter(conn: Connection, merchant_id: str, meter: str) -> Row | None:
    return await METERS["meter"].fetchrow(conn, merchant_id=merchant_id, meter=meter)


async def meters_page(
    conn: Connection, merchant_id: str, cursor: Cursor, most: int
) -> Sequence[Row]:
    return await METERS["meters_page"].fetch(
        conn, merchant_id=merchant_id, before_at=cursor[0], before_id=cursor[1], most=most
    )


async def find_request(conn: Connection, merchant_id: str, request_id: str) -> Row | None:
    return await REQUESTS["request"].fetchrow(conn, merchant_id=merchant_id, request_id=request_id)


async def requests_page(
    conn: Connection,
    merchant_id: str,
    *,
    customer_id: str | None,
    meter_id: str | None,
    metadata: Mapping[str, str] | None,
    cursor: Cursor,
    most: int,
) -> Sequence[Row]:
    return await REQUESTS["requests_page"].fetch(
        conn,
        merchant_id=merchant_id,
        customer_id=customer_id,
        meter_id=meter_id,
        metadata=metadata or None,
        before_at=cursor[0],
        before_id=cursor[1],
        most=most,
    )


async def ledger_page(
    conn: Connection,
    merchant_id: str,
    *,
    customer_id: str | None,
    request_id: str | None,
    before_id: int,
    most: int,
) -> Sequence[Row]:
    return await REQUESTS["ledger_page"].fetch(
        conn,
        merchant_id=merchant_id,
        customer_id=customer_id,
        request_id=request_id,
        before_id=before_id,
        most=most,
    )
