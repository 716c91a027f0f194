"""Usage by day, exact to the last digit: roll-ups where whole quarters of an hour are asked for,
rows for the loose ends. Both are read in one statement, so in one state of the books."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("usage")

QUARTER = timedelta(minutes=15)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Range:
    """From `since` to before `upto`; days begin at `origin` and every 24 hours from there."""

    since: datetime
    upto: datetime
    origin: datetime


@dataclass(frozen=True, slots=True)
class Used:
    """What was used in a day; amounts in 10^-10 USD."""

    requests: int = 0
    tokens: int = 0
    cost_e10: int = 0
    charge_e10: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.cost_e10 + other.cost_e10,
            self.charge_e10 + other.charge_e10,
        )


async def by_day(
    conn: Connection,
    merchant_id: str,
    span: Range,
    *,
    customer_id: str | None,
    meter_id: str | None,
    metadata: Mapping[str, str] | None,
) -> dict[datetime, Used]:
    """Usage by the day's first instant; days without any are absent."""
    if metadata:
        rows = await Q["usage_of_rows"].fetch(
            conn,
            merchant_id=merchant_id,
            customer_id=customer_id,
            meter_id=meter_id,
            metadata=dict(metadata),
            since=span.since,
            upto=span.upto,
            origin=span.origin,
        )
        return _days(rows)
    whole_since = min(-(-(span.since - _EPOCH) // QUARTER) * QUARTER + _EPOCH, span.upto)
    whole_upto = max((span.upto - _EPOCH) // QUARTER * QUARTER + _EPOCH, whole_since)
    rows = await Q["usage_of_days"].fetch(
        conn,
        merchant_id=merchant_id,
        customer_id=customer_id,
        meter_id=meter_id,
        since=span.since,
        upto=span.upto,
        whole_since=whole_since,
        whole_upto=whole_upto,
        origin=span.origin,
    )
    return _days(rows)


async def had_customer(conn: Connection, merchant_id: str, customer_id: str) -> bool:
    """Whether this was ever the id of a customer of the merchant."""
    found = await Q["had_customer"].fetchval(conn, merchant_id=merchant_id, customer_id=customer_id)
    return bool(found)


async def had_meter(conn: Connection, merchant_id: str, meter_id: str) -> bool:
    """Whether this was ever the id of a meter of the merchant."""
    found = await Q["had_meter"].fetchval(conn, merchant_id=merchant_id, meter_id=meter_id)
    return bool(found)


def _days(rows: list[asyncpg.Record]) -> dict[datetime, Used]:
    return {
        row["day"]: Used(row["requests"], row["tokens"], row["cost_e10"], row["charge_e10"])
        for row in rows
    }
