"""Reads what workers keep in memory: keys, customers, meters, the change feed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import cast

import asyncpg

from lava_proxy.rules.limits import Cycle, Rate, SpendKey
from lava_proxy.rules.settlement import Customer, Enforcement, Merchant, Meter, Subscribed, Unpriced
from lava_proxy.rules.tiers import RateType, Tariff, Tier, Unit
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("directory")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who holds a secret key."""

    merchant: Merchant
    secret_key_id: str
    test: bool


@dataclass(frozen=True, slots=True)
class Scoped:
    """Whom a forward token stands for. It names objects that may be deleted since."""

    merchant: Merchant
    forward_token_id: str
    test: bool
    customer_id: str | None
    meter_id: str | None
    disable_billing: bool
    expires_at: datetime | None
    spend_limit_e10: int | None
    spend_cycle: Cycle | None


async def find_key(conn: Connection, key_hash: bytes) -> Principal | None:
    row = await Q["key_by_hash"].fetchrow(conn, key_hash=key_hash)
    if row is None:
        return None
    return Principal(_merchant(row), row["secret_key_id"], row["test"])


async def find_token(conn: Connection, token_hash: bytes) -> Scoped | None:
    row = await Q["token_by_hash"].fetchrow(conn, token_hash=token_hash)
    if row is None:
        return None
    return Scoped(
        _merchant(row),
        row["forward_token_id"],
        row["test"],
        row["customer_id"],
        row["meter_id"],
        row["disable_billing"],
        row["expires_at"],
        row["spend_limit_e10"],
        row["spend_cycle"],
    )


def _merchant(row: asyncpg.Record) -> Merchant:
    return Merchant(
        row["merchant_id"],
        row["name"],
        row["upgrade_url"],
        row["require_plan"],
        tuple((url, model) for url, model in row["fallback_chain"] or ()),
    )


async def find_spend_key(conn: Connection, key_hash: bytes) -> SpendKey | None:
    row = await Q["spend_key_by_hash"].fetchrow(conn, key_hash=key_hash)
    if row is None:
        return None
    rpm, models, providers = row["rate_rpm"], row["allowed_models"], row["allowed_providers"]
    return SpendKey(
        spend_key_id=row["spend_key_id"],
        merchant=_merchant(row),
        status=row["status"],
        request_shape=row["request_shape"],
        allowed_models=None if models is None else frozenset(models),
        allowed_providers=None if providers is None else frozenset(providers),
        spend_limit_e10=row["spend_limit_e10"],
        spend_cycle=row["spend_cycle"],
        request_limit=row["request_limit"],
        request_cycle=row["request_cycle"],
        rate=None if rpm is None else Rate(rpm, row["rate_burst"] or rpm),
        expires_at=row["expires_at"],
    )


async def find_customer(conn: Connection, merchant_id: str, customer: str) -> Customer | None:
    row = await Q["customer_by_id"].fetchrow(conn, merchant_id=merchant_id, customer=customer)
    if row is None:
        return None
    subscription = None
    if row["subscription_id"] is not None:
        subscription = Subscribed(
            f"{row['subscription_id']}:{row['cycle_seq']}",
            row["cycle_end_at"],
            frozenset(row["meter_ids"]),
        )
    return Customer(row["customer_id"], row["merchant_id"], row["reference_id"], subscription)


async def find_meter(conn: Connection, merchant_id: str, meter: str) -> Meter | None:
    row = await Q["meter_by_slug"].fetchrow(conn, merchant_id=merchant_id, meter=meter)
    return None if row is None else meter_of(row)


async def meter_by_id(conn: Connection, meter_id: str) -> Meter | None:
    row = await Q["meter_by_id"].fetchrow(conn, meter_id=meter_id)
    return None if row is None else meter_of(row)


def meter_of(row: asyncpg.Record) -> Meter:
    """A meter from its row."""
    tiers = tuple(Tier(start, rate_e12) for start, rate_e12 in row["tiers"])
    return Meter(
        row["meter_id"],
        row["merchant_id"],
        row["slug"],
        Tariff(cast(RateType, row["rate_type"]), cast(Unit, row["tier_type"]), tiers),
        cast(Enforcement, row["enforcement"]),
        row["overdraft_e10"],
        cast(Unpriced, row["unpriced"]),
    )


async def changes_since(conn: Connection, seconds: float) -> list[tuple[int, str, str]]:
    """(change id, kind, object id) of the last `seconds`."""
    rows = await Q["changes_since"].fetch(conn, seconds=seconds)
    return [(r["change_id"], r["kind"], r["object_id"]) for r in rows]


async def customers_named(conn: Connection, customer: str) -> list[str]:
    """Ids of customers, of any merchant, with this id or reference (three at most)."""
    rows = await Q["customers_named"].fetch(conn, customer=customer)
    return [row["customer_id"] for row in rows]


async def backend_pid(conn: Connection) -> int:
    """The server process that answers."""
    async with conn.transaction():
        pid: int = await Q["backend_pid"].fetchval(conn)
    return pid


async def prune_changes(conn: Connection, seconds: float) -> None:
    """Forget changes older than `seconds`."""
    await Q["prune_changes"].execute(conn, seconds=seconds)
