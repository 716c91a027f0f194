"""Leases whose time is over go back: their worker is gone, or was stopped for too long."""

from __future__ import annotations

from datetime import datetime

from lava_proxy.store.credit import give_back, lock
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("credit")


async def expired(conn: Connection, grace_s: float, most: int) -> list[tuple[str, str]]:
    """(owner, holder) pairs whose leases are over, by the database's own clock."""
    rows = await Q["expired_leases"].fetch(conn, grace_s=grace_s, most=most)
    return [(row["owner_id"], row["holder_id"]) for row in rows]


async def reclaim(
    conn: Connection, owner_id: str, holder_id: str, grace_s: float, now: datetime
) -> int:
    """Take back leases that are over, unless their holder renewed them a moment ago."""
    await lock(conn, owner_id)
    over = await Q["still_over"].fetchval(
        conn, owner_id=owner_id, holder_id=holder_id, grace_s=grace_s
    )
    return await give_back(conn, owner_id, holder_id, None, now) if over else 0
