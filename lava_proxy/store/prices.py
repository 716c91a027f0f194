"""Price overrides in PostgreSQL: the operator's, for everybody, and each merchant's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import asyncpg

from lava_proxy.rules.catalog import Match
from lava_proxy.store.database import Connection
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("prices")

PRICES_MAX = 1000
"""Prices of one merchant: every worker keeps all in memory. Calls that race may make a few more."""
SHOWN_MAX = 10_000
"""Most that the command line lists."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A price as stored; `rates` are decimal strings by unit name."""

    price_id: str
    merchant_id: str | None
    """None: the operator's."""
    provider: str
    match: Match
    model: str
    rates: Mapping[str, str]
    effective_from: datetime
    created_at: datetime


async def in_force(conn: Connection, now: datetime) -> list[PriceRow]:
    """All prices in force, the latest of each match last."""
    return [_price(row) for row in await Q["prices_in_force"].fetch(conn, now=now)]


async def next_change(conn: Connection, now: datetime) -> datetime | None:
    """When the next price comes into force."""
    at: datetime | None = await Q["next_price"].fetchval(conn, now=now)
    return at


async def create(conn: Connection, wanted: PriceRow, most: int = PRICES_MAX) -> bool:
    """Add a price; False where its merchant has `most` already."""
    made = await Q["insert_price"].fetchval(
        conn,
        most=most,
        price_id=wanted.price_id,
        merchant_id=wanted.merchant_id,
        provider=wanted.provider,
        match=wanted.match,
        model=wanted.model,
        rates=dict(wanted.rates),
        effective_from=wanted.effective_from,
        created_at=wanted.created_at,
    )
    return made is not None


async def find(conn: Connection, merchant_id: str, price_id: str) -> PriceRow | None:
    """A price that the merchant sees."""
    row = await Q["find_price"].fetchrow(conn, merchant_id=merchant_id, price_id=price_id)
    return None if row is None else _price(row)


async def page(
    conn: Connection, merchant_id: str, provider: str | None, behind: Place, most: int
) -> list[PriceRow]:
    """At most `most` prices that the merchant sees, behind a place, newest first."""
    rows = await Q["list_prices"].fetch(
        conn,
        merchant_id=merchant_id,
        provider=provider,
        before_at=behind.at,
        before_id=behind.id,
        most=most,
    )
    return [_price(row) for row in rows]


async def every(conn: Connection) -> list[PriceRow]:
    """All prices, whoever's, newest first."""
    return [_price(row) for row in await Q["all_prices"].fetch(conn, most=SHOWN_MAX)]


async def remove(conn: Connection, merchant_id: str | None, price_id: str, now: datetime) -> bool:
    """Take away a merchant's own price; the operator (None) takes away anyone's. False where there
    is none."""
    gone = await Q["remove_price"].fetchval(
        conn, merchant_id=merchant_id, price_id=price_id, anyones=merchant_id is None, now=now
    )
    return gone is not None


def _price(row: asyncpg.Record) -> PriceRow:
    return PriceRow(
        row["override_id"],
        row["merchant_id"],
        row["provider"],
        cast(Match, row["match"]),
        row["model"],
        row["rates"],
        row["effective_from"],
        row["created_at"],
    )
