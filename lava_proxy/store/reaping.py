"""Leases whose time is over go back: their worker is gone, or was stopped for too long.

That is judged by the database's clock, and so is only as good as that clock. When it is set forward
(by hand, or because another server took over), the leases of all workers look over at once, while
those go on spending from them by clocks of their own. So nobody judges until it has seen the
database's clock go like its own for as long as a lease lasts, grace and all: what was leased before
is over by then by any clock, or renewed.
"""

from __future__ import annotations

import logging
from datetime import datetime

from lava_proxy.store.credit import give_back, lock
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("credit")

_log = logging.getLogger(__name__)

JUMP_S = 5.0
"""Two clocks that part by more between two looks: one of them was set. Less is drift and delay, and
within the time after the grace (`LAVA_LEASE_RECLAIM_S`)."""


class Judge:
    """Whether leases may be judged by the database's clock, as one process sees it."""

    def __init__(self, lasting_s: float) -> None:
        """`lasting_s`: from a lease's beginning until it may be taken back."""
        self._lasting_s = lasting_s
        self._ahead_s: float | None = None
        self._steady_since_s = float("inf")

    def may(self, database_s: float, boot_s: float) -> bool:
        """Both clocks now. False until they have gone alike for long enough."""
        ahead_s = database_s - boot_s
        if self._ahead_s is None or abs(ahead_s - self._ahead_s) > JUMP_S:
            if self._ahead_s is not None:
                _log.warning("the database's clock went by %+.0f s", ahead_s - self._ahead_s)
            self._steady_since_s = boot_s
        self._ahead_s = ahead_s
        return boot_s - self._steady_since_s >= self._lasting_s


async def clock_s(conn: Connection) -> float:
    """The database's clock."""
    now_s: float = await Q["clock"].fetchval(conn)
    return now_s


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
