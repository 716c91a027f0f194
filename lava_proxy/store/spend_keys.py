"""Spend keys in PostgreSQL: the rules of each, and what was used of its limits.

A key is seen once, when it is made or rotated; only its hash is kept. What it used is not counted
here: the accounts of its limits (rules/limits.py) are booked with the ledger, and are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import asyncpg

from lava_proxy.rules.limits import Cycle, Shape, account_of
from lava_proxy.store.database import Connection
from lava_proxy.store.limits import used_of
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("spend_keys")

Status = Literal["active", "paused"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a key may do. None: no limit, or all."""

    name: str
    status: Status
    request_shape: Shape
    allowed_models: tuple[str, ...] | None = None
    allowed_providers: tuple[str, ...] | None = None
    spend_limit_e10: int | None = None
    spend_cycle: Cycle | None = None
    request_limit: int | None = None
    request_cycle: Cycle | None = None
    rate_rpm: int | None = None
    rate_burst: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """What was booked: in the limits' present cycles, and in all. Without a limit there is no
    cycle, and both are the same."""

    spend_e10: int = 0
    total_spend_e10: int = 0
    requests: int = 0
    total_requests: int = 0


@dataclass(frozen=True, slots=True)
class SpendKeyRow:
    """A spend key, as it may be shown."""

    spend_key_id: str
    merchant_id: str
    wallet_id: str
    key_preview: str
    created_at: datetime
    rules: Rules
    last_used_at: datetime | None = None
    used: Used = Used()


async def create(conn: Connection, wanted: SpendKeyRow, key_hash: bytes) -> None:
    await Q["insert_spend_key"].execute(
        conn,
        spend_key_id=wanted.spend_key_id,
        merchant_id=wanted.merchant_id,
        wallet_id=wanted.wallet_id,
        key_hash=key_hash,
        key_preview=wanted.key_preview,
        created_at=wanted.created_at,
        **_columns(wanted.rules),
    )


async def find(
    conn: Connection, merchant_id: str, spend_key_id: str, now: datetime, *, lock: bool = False
) -> SpendKeyRow | None:
    """A merchant's key; `lock` keeps it as it is until the transaction ends."""
    wanted = {"merchant_id": merchant_id, "spend_key_id": spend_key_id}
    if lock and await Q["lock_spend_key"].fetchrow(conn, **wanted) is None:
        return None
    row = await Q["spend_key_by_id"].fetchrow(conn, **wanted)
    return None if row is None else (await _with_use(conn, [row], now))[0]


async def page(
    conn: Connection, merchant_id: str, behind: Place, most: int, now: datetime
) -> list[SpendKeyRow]:
    """At most `most` keys that are not revoked behind a place, newest first."""
    rows = await Q["list_spend_keys"].fetch(
        conn, merchant_id=merchant_id, before_at=behind.at, before_id=behind.id, most=most
    )
    return await _with_use(conn, rows, now)


async def change(conn: Connection, spend_key_id: str, rules: Rules) -> None:
    """New rules for a key that is locked; the change feed tells the workers."""
    await Q["change_spend_key"].execute(conn, spend_key_id=spend_key_id, **_columns(rules))


async def rotate(conn: Connection, spend_key_id: str, key_hash: bytes, key_preview: str) -> None:
    """Another key for the same limits and history; the one before is worth nothing."""
    await Q["rotate_spend_key"].execute(
        conn, spend_key_id=spend_key_id, key_hash=key_hash, key_preview=key_preview
    )


async def revoke(conn: Connection, merchant_id: str, spend_key_id: str) -> bool:
    """End a key, everywhere at once (the change feed tells the workers); False: not in force."""
    row = await Q["revoke_spend_key"].fetchrow(
        conn, merchant_id=merchant_id, spend_key_id=spend_key_id
    )
    return row is not None


async def note_uses(conn: Connection, uses: Mapping[str, datetime]) -> None:
    """Remember when keys were used last."""
    await Q["note_uses"].execute(
        conn, spend_key_ids=list(uses.keys()), used_ats=list(uses.values())
    )


def limit_accounts(spend_key_id: str, rules: Rules, at: datetime) -> tuple[str, str]:
    """The accounts of its money and of its requests in the cycles that `at` falls in."""
    return (
        account_of(spend_key_id, "money", rules.spend_cycle or "total", at),
        account_of(spend_key_id, "requests", rules.request_cycle or "total", at),
    )


def _columns(rules: Rules) -> dict[str, object]:
    models, providers = rules.allowed_models, rules.allowed_providers
    return {
        "name": rules.name,
        "status": rules.status,
        "request_shape": rules.request_shape,
        "allowed_models": None if models is None else list(models),
        "allowed_providers": None if providers is None else list(providers),
        "spend_limit": rules.spend_limit_e10,
        "spend_cycle": rules.spend_cycle,
        "request_limit": rules.request_limit,
        "request_cycle": rules.request_cycle,
        "rpm": rules.rate_rpm,
        "burst": rules.rate_burst,
        "expires_at": rules.expires_at,
    }


def _row(row: asyncpg.Record) -> SpendKeyRow:
    models, providers = row["allowed_models"], row["allowed_providers"]
    return SpendKeyRow(
        spend_key_id=row["spend_key_id"],
        merchant_id=row["merchant_id"],
        wallet_id=row["wallet_id"],
        key_preview=row["key_preview"],
        created_at=row["created_at"],
        rules=Rules(
            name=row["name"],
            status=row["status"],
            request_shape=row["request_shape"],
            allowed_models=None if models is None else tuple(models),
            allowed_providers=None if providers is None else tuple(providers),
            spend_limit_e10=row["spend_limit_e10"],
            spend_cycle=row["spend_cycle"],
            request_limit=row["request_limit"],
            request_cycle=row["request_cycle"],
            rate_rpm=row["rate_rpm"],
            rate_burst=row["rate_burst"],
            expires_at=row["expires_at"],
        ),
        last_used_at=row["last_used_at"],
    )


async def _with_use(
    conn: Connection, rows: Sequence[asyncpg.Record], now: datetime
) -> list[SpendKeyRow]:
    """Rows with what was booked for each, in one question for all."""
    keys = [_row(row) for row in rows]
    owners = [owner for key in keys for owner in _accounts(key, now)]
    used = await used_of(conn, owners)
    return [
        replace(key, used=Used(*(used.get(owner, 0) for owner in _accounts(key, now))))
        for key in keys
    ]


def _accounts(key: SpendKeyRow, now: datetime) -> tuple[str, str, str, str]:
    spend, asked = limit_accounts(key.spend_key_id, key.rules, now)
    total_spend = account_of(key.spend_key_id, "money", "total", now)
    return spend, total_spend, asked, account_of(key.spend_key_id, "requests", "total", now)
