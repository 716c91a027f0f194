"""A lease with what belongs to it: the cycle that is due before, the top-up that is needed after.

Both in the lease's own transaction and under the account's lock, so a worker that is late causes no
false 402, and of many leases at once one buys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lava_proxy.core.ids import is_test, new_id
from lava_proxy.store import credit
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk
from lava_proxy.store.database import Connection
from lava_proxy.store.payments import Q
from lava_proxy.store.subscriptions import lock_account, renew_due


@dataclass(frozen=True, slots=True)
class TopUpRules:
    """When credit is bought by itself: under so many percent of the bundle, up to so much a
    calendar month (UTC) and customer, where the customer has no cap of its own."""

    low_percent: int
    month_max_e10: int


async def lease(conn: Connection, ask: LeaseAsk, rules: TopUpRules, now: datetime) -> LeaseAnswer:
    """`credit.lease`, with renewal and top-up. Inside the caller's transaction."""
    if ask.limit is not None:  # no customer's credit: nothing is renewed or bought
        return await credit.lease(conn, ask, now)
    await renew_due(conn, ask.owner_id, now)
    answer = await credit.lease(conn, ask, now)
    short_e10 = 0 if answer.amount_e10 else ask.least_e10
    reach_e10 = answer.free_e10 + answer.elsewhere_e10
    await top_up(conn, ask.owner_id, rules, now, short_e10=short_e10, reach_e10=reach_e10)
    if answer.amount_e10:
        return answer
    coming = await Q["coming"].fetchval(conn, customer_id=ask.owner_id)
    return replace(answer, coming=bool(coming))


async def look(conn: Connection, owner_id: str, rules: TopUpRules, now: datetime) -> None:
    """Buy credit if it is low: for what was spent past the leases (reports)."""
    await lock_account(conn, owner_id)
    await top_up(conn, owner_id, rules, now)


async def top_up(
    conn: Connection,
    owner_id: str,
    rules: TopUpRules,
    now: datetime,
    *,
    short_e10: int = 0,
    reach_e10: int = 0,
) -> None:
    """Write the payment for a top-up that is needed. The account must be locked."""
    month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    opened = await Q["open_top_up"].fetchval(
        conn,
        payment_id=new_id("payment", test=is_test(owner_id)),
        customer_id=owner_id,
        now=now,
        low_percent=rules.low_percent,
        month_max=rules.month_max_e10,
        month_start=month,
        short=short_e10,
        reach=reach_e10,
    )
    if opened is not None:
        await Q["wake_workers"].fetchrow(conn)
