"""Limits of cycles that ended long ago: their accounts go, or there would be one more every day.
And with the forward tokens that ended, those that were for their whole life.

A limit is no money: its account holds what was used of it in one cycle, which is in the requests as
well, and in the account of all time (of a forward token: in its row). So nothing that the audit
compares goes with it. A row that comes still later opens the account again and is booked as any
other; then that one goes in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from lava_proxy.rules.limits import ended_before, of_token
from lava_proxy.store.database import Connection, Database
from lava_proxy.store.sql import load

Q = load("limits")

KEPT_DAYS = 35
"""After its cycle's end, or its token's; far longer than a call may run, or a lease stay open."""
MOST = 1000
"""Accounts looked at in one go."""
AT_ONCE = 5
"""Accounts dropped in one go: each may have a lease for every minute of its cycle."""


KINDS = (("ft", "fu"), ("spk", "spl"))
"""Bounds of the ids of what has limits per cycle: forward tokens and spend keys."""


async def used_of(conn: Connection, owner_ids: Sequence[str]) -> dict[str, int]:
    """What was booked on limits' accounts."""
    rows = await Q["used_of_limits"].fetch(conn, owner_ids=owner_ids) if owner_ids else ()
    return {row["owner_id"]: row["used"] for row in rows}


async def prune(database: Database, now: datetime) -> int:
    """Drop the accounts of cycles that are long over; answers how many."""
    return sum([await _prune(database, now, low, high) for low, high in KINDS])


async def _prune(database: Database, now: datetime, low: str, high: str) -> int:
    before, after, gone = now - timedelta(days=KEPT_DAYS), "", 0
    while True:
        async with database.connection() as conn:
            rows = await Q["limits_behind"].fetch(conn, after=after, low=low, high=high, most=MOST)
            over = await _over(conn, [row["owner_id"] for row in rows], before)
        for place in range(0, len(over), AT_ONCE):
            gone += await _drop(database, over[place : place + AT_ONCE])
        if len(rows) < MOST:
            return gone
        after = rows[-1]["owner_id"]


async def _over(conn: Connection, owner_ids: Sequence[str], before: datetime) -> list[str]:
    """Those whose cycle was over by then, or whose forward token had ended."""
    over = [owner_id for owner_id in owner_ids if ended_before(owner_id, before)]
    whole = {owner_id.partition(":")[0]: owner_id for owner_id in owner_ids if of_token(owner_id)}
    if whole:
        rows = await Q["ended_tokens"].fetch(conn, token_ids=list(whole), before=before)
        over += [whole[row["forward_token_id"]] for row in rows]
    return over


async def _drop(database: Database, owner_ids: list[str]) -> int:
    async with database.transaction() as conn:
        locked = await Q["lock_limits"].fetch(conn, owner_ids=owner_ids)
        idle = [row["owner_id"] for row in locked]
        return len(await Q["drop_limits"].fetch(conn, owner_ids=idle)) if idle else 0
