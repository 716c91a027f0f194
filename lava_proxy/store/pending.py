"""What happens with the end of a cycle: an end, another plan, or, taken back, nothing. The last
word counts; money that paid for another one becomes credit. The account must be locked."""

from __future__ import annotations

from datetime import datetime

from lava_proxy.store import prepaid
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("subscriptions")


async def keep(conn: Connection, subscription_id: str, now: datetime) -> None:
    """Nothing changes with the cycle's end, whatever was to."""
    await _pend(conn, subscription_id, None, None, None, now)


async def change_later(
    conn: Connection,
    subscription_id: str,
    plan_id: str | None,
    now: datetime,
    payment_id: str | None = None,
) -> None:
    """With the cycle's end, change to another plan, paid for already by this payment, if any; or
    (None) end."""
    pending_type = "cancellation" if plan_id is None else "downgrade"
    await _pend(conn, subscription_id, pending_type, plan_id, payment_id, now)


async def _pend(
    conn: Connection,
    subscription_id: str,
    pending_type: str | None,
    plan_id: str | None,
    payment_id: str | None,
    now: datetime,
) -> None:
    """What happens with the cycle's end; money that paid for something else becomes credit."""
    before = await Q["pend"].fetchval(
        conn,
        subscription_id=subscription_id,
        pending_type=pending_type,
        pending_plan_id=plan_id,
        payment_id=payment_id,
    )
    if before is not None:
        await prepaid.release(conn, before, now)
