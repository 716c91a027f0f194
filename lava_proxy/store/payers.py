"""Who customers and merchants are at a payment provider, and how their cards last did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("payers")


@dataclass(frozen=True, slots=True)
class MethodError:
    """Why a means of payment failed when it was last charged."""

    at: datetime
    code: str
    message: str | None


async def save_payer(
    conn: Connection, owner_id: str, provider: str, payer_ref: str, now: datetime
) -> None:
    """Who a customer, or a merchant for its wallet, is at a provider."""
    await Q["save_payer"].execute(
        conn, owner_id=owner_id, provider=provider, payer_ref=payer_ref, now=now
    )


async def forget_payer(
    conn: Connection, owner_id: str, provider: str, payer_ref: str | None
) -> None:
    """They are known there under this name no more: the next one that is told counts."""
    await Q["forget_payer"].execute(conn, owner_id=owner_id, provider=provider, payer_ref=payer_ref)


async def payer_ref(conn: Connection, owner_id: str, provider: str) -> str | None:
    """Who a customer (or a merchant, for its wallet) is at a provider; None where it met nobody."""
    found: str | None = await Q["payer_of"].fetchval(conn, owner_id=owner_id, provider=provider)
    return found


async def owner_of(conn: Connection, payer_ref: str, provider: str, merchant_id: str) -> str | None:
    """Who of a merchant's is behind a payer."""
    found: str | None = await Q["owner_of_payer"].fetchval(
        conn, payer_ref=payer_ref, provider=provider, merchant_id=merchant_id
    )
    return found


async def note_method(
    conn: Connection,
    provider: str,
    method_ref: str,
    at: datetime,
    *,
    code: str | None,
    message: str | None,
) -> None:
    """What became of a means of payment when it was charged; no code, it paid."""
    await Q["note_method"].execute(
        conn, provider=provider, method_ref=method_ref, at=at, code=code, message=message
    )


async def failed_methods(
    conn: Connection, provider: str, method_refs: Sequence[str]
) -> Mapping[str, MethodError]:
    """Of these means of payment, those that failed last time, by their id."""
    rows = await Q["failed_methods"].fetch(conn, provider=provider, method_refs=method_refs)
    return {
        row["method_ref"]: MethodError(row["told_at"], row["error_code"], row["error_message"])
        for row in rows
    }
