"""What payment providers told us: each message once, and the payment or payer that it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("payment_events")


@dataclass(frozen=True, slots=True)
class ToldOf:
    """The payment that a message is about."""

    payment_id: str
    merchant_id: str
    customer_id: str | None
    purpose: str
    amount_e10: int
    status: str
    provider_ref: str | None
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True)
class MethodError:
    """Why a means of payment failed when it was last charged."""

    at: datetime
    code: str
    message: str | None


async def hear(conn: Connection, provider: str, event_id: str, now: datetime) -> bool:
    """Note a message in the transaction that does what it says; False where that was done."""
    heard = await Q["hear_event"].fetchval(conn, provider=provider, event_id=event_id, now=now)
    return heard is not None


async def find(
    conn: Connection, provider: str, payment_id: str | None, ref: str | None
) -> ToldOf | None:
    """The payment that a message names, by our id or else by the provider's."""
    row = await Q["payment_told_of"].fetchrow(
        conn, provider=provider, payment_id=payment_id, ref=ref
    )
    return None if row is None else ToldOf(**dict(row))


async def note_ref(conn: Connection, payment_id: str, ref: str) -> None:
    """The provider's id of a payment: a further try asks for the same one."""
    await Q["note_ref"].execute(conn, payment_id=payment_id, ref=ref)


async def tell_failure(
    conn: Connection,
    payment_id: str,
    *,
    needs_action: bool,
    code: str | None,
    message: str | None,
    at: datetime,
) -> None:
    """A payer's try on a page failed, or waits for them."""
    await Q["tell_failure"].execute(
        conn,
        payment_id=payment_id,
        status="requires_action" if needs_action else "failed",
        code=code,
        message=message,
        at=at,
    )


async def save_payer(
    conn: Connection, owner_id: str, provider: str, payer_ref: str, now: datetime
) -> None:
    """Who a customer, or a merchant for its wallet, is at a provider."""
    await Q["save_payer"].execute(
        conn, owner_id=owner_id, provider=provider, payer_ref=payer_ref, now=now
    )


async def payer_ref(conn: Connection, owner_id: str, provider: str) -> str | None:
    """Who somebody is at a provider, if it knows them."""
    found: str | None = await Q["payer_ref"].fetchval(conn, owner_id=owner_id, provider=provider)
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
