"""What payment providers told us: each message once, and the payment that it is about."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from lava_proxy.core.money import format_e10
from lava_proxy.store import payments
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("payment_events")

log = logging.getLogger(__name__)

KEPT_DAYS = 90
"""Stripe sends a message for three days, and by hand again for thirty."""


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


async def hear(conn: Connection, provider: str, event_id: str, now: datetime) -> bool:
    """Note a message in the transaction that does what it says; False where that was done."""
    heard = await Q["hear_event"].fetchval(conn, provider=provider, event_id=event_id, now=now)
    return heard is not None


async def forget(conn: Connection, now: datetime) -> None:
    """Forget messages of long ago."""
    await Q["forget_events"].execute(conn, before=now - timedelta(days=KEPT_DAYS))


async def find(
    conn: Connection, provider: str, payment_id: str | None, ref: str | None
) -> ToldOf | None:
    """The payment that a message names, by our id or else by the provider's."""
    row = await Q["payment_told_of"].fetchrow(
        conn, provider=provider, payment_id=payment_id, ref=ref
    )
    return None if row is None else ToldOf(**dict(row))


async def paid(
    conn: Connection, payment: ToldOf, ref: str | None, amount_e10: int, now: datetime
) -> bool:
    """The provider has the money, for the first time and in full: deliver. Else somebody has to
    look at it. True where money moved."""
    if amount_e10 < payment.amount_e10:
        log.error(
            "%s: %s paid instead of %s (%s); it counts as not paid",
            payment.payment_id,
            format_e10(amount_e10),
            format_e10(payment.amount_e10),
            ref,
        )
        return False
    if await payments.succeeded(conn, payment.payment_id, ref, now):
        return True
    made = await payments.lock(conn, payment.payment_id)
    if ref and made is not None and made["provider_ref"] not in (None, ref):
        log.error("%s is paid twice: refund %s", payment.payment_id, ref)
    return False


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
