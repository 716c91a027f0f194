"""Meters in PostgreSQL, as the management API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import asyncpg

from lava_proxy.core.errors import LavaError
from lava_proxy.rules.settlement import Enforcement, Unpriced
from lava_proxy.rules.tiers import RateType, Tariff, Tier, Unit
from lava_proxy.store.database import Connection
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("meters")

PLANS_NAMED = 3


@dataclass(frozen=True, slots=True)
class MeterRow:
    """A meter as stored."""

    meter_id: str
    slug: str
    name: str
    tariff: Tariff
    enforcement: Enforcement
    overdraft_e10: int
    unpriced: Unpriced
    created_at: datetime


async def create(
    conn: Connection, merchant_id: str, wanted: MeterRow, slugs: Sequence[str]
) -> MeterRow | None:
    """Make `wanted` under the first of `slugs` that is free; None when none of them is."""
    made = await Q["create_meter"].fetchrow(
        conn,
        meter_id=wanted.meter_id,
        merchant_id=merchant_id,
        slugs=list(slugs),
        name=wanted.name,
        rate_type=wanted.tariff.rate_type,
        tier_type=wanted.tariff.unit,
        tiers=[(tier.start, tier.rate_e12) for tier in wanted.tariff.tiers],
        enforcement=wanted.enforcement,
        overdraft=wanted.overdraft_e10,
        unpriced=wanted.unpriced,
        created_at=wanted.created_at,
    )
    return None if made is None else _meter(made)


@dataclass(frozen=True, slots=True)
class MeterChange:
    """What is to change; None stays as it is."""

    name: str | None = None
    tiers: tuple[Tier, ...] | None = None
    enforcement: Enforcement | None = None
    overdraft_e10: int | None = None
    unpriced: Unpriced | None = None


async def update(
    conn: Connection, merchant_id: str, meter: str, change: MeterChange
) -> MeterRow | None:
    """Change a meter, by id or slug; None where there is none."""
    tiers = change.tiers
    row = await Q["update_meter"].fetchrow(
        conn,
        merchant_id=merchant_id,
        meter=meter,
        name=change.name,
        tiers=None if tiers is None else [(tier.start, tier.rate_e12) for tier in tiers],
        enforcement=change.enforcement,
        overdraft=change.overdraft_e10,
        unpriced=change.unpriced,
    )
    return None if row is None else _meter(row)


async def delete(conn: Connection, merchant_id: str, meter: str, now: datetime) -> str | None:
    """End a meter, by id or slug; answers its id, None where there is none. 409 while plans have
    it: their customers would be refused without a word."""
    meter_id: str | None = await Q["lock_meter"].fetchval(
        conn, merchant_id=merchant_id, meter=meter
    )
    if meter_id is None:
        return None
    plans = await Q["plans_of_meter"].fetch(conn, meter_id=meter_id, most=PLANS_NAMED)
    if plans:
        names = ", ".join(row["name"] for row in plans)
        raise LavaError("conflict", f"this meter is linked to plans ({names}); unlink it first")
    await Q["delete_meter"].execute(conn, meter_id=meter_id, now=now)
    return meter_id


async def find(conn: Connection, merchant_id: str, meter: str) -> MeterRow | None:
    """A merchant's meter by id or slug."""
    row = await Q["find_meter"].fetchrow(conn, merchant_id=merchant_id, meter=meter)
    return None if row is None else _meter(row)


async def page(conn: Connection, merchant_id: str, behind: Place, most: int) -> list[MeterRow]:
    """At most `most` meters behind a place, newest first."""
    rows = await Q["list_meters"].fetch(
        conn, merchant_id=merchant_id, before_at=behind.at, before_id=behind.id, most=most
    )
    return [_meter(row) for row in rows]


def _meter(row: asyncpg.Record) -> MeterRow:
    tiers = tuple(Tier(start, rate_e12) for start, rate_e12 in row["tiers"])
    return MeterRow(
        row["meter_id"],
        row["slug"],
        row["name"],
        Tariff(cast(RateType, row["rate_type"]), cast(Unit, row["tier_type"]), tiers),
        cast(Enforcement, row["enforcement"]),
        row["overdraft_e10"],
        cast(Unpriced, row["unpriced"]),
        row["created_at"],
    )
