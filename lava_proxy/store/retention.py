"""Retention: old months of requests and ledger are dropped whole, once an audit has verified them.

Dropping a month takes a moment's exclusive lock, deleting its rows would take hours. Before it
goes, what it sums up to is kept per customer and per tier scope (`retired_ledger`,
`retired_units`), in the same transaction; full audits begin from those sums. A month that holds
anything that no audit has verified, or after an audit that found a difference, stays, and so does
all that is younger: a month's requests go before the entries that were booked for them.
"""

from __future__ import annotations

import logging
from datetime import datetime

from dateutil.relativedelta import relativedelta

from lava_proxy.store.database import Connection, Database, StoreConflict
from lava_proxy.store.sql import load

Q = load("retention")
P = load("plumbing")

log = logging.getLogger(__name__)

LOCK_TIMEOUT = "500ms"
"""Writers must not queue behind us for longer; then the month goes another time."""


async def retire(database: Database, months: int, now: datetime) -> list[str]:
    """Drop what is older than `months` whole months; the partitions that went, oldest first."""
    this_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    before = this_month - relativedelta(months=months)
    async with database.connection() as conn:
        parts = await Q["old_parts"].fetch(conn, before=before)
    gone = []
    for row in parts:
        try:
            async with database.transaction() as conn:
                if not await _retire(conn, row["parent"], row["part"], row["ends_at"]):
                    break
            gone.append(row["part"])
        except StoreConflict as error:
            log.info("%s stays for now: %s", row["part"], error)
            break
    return gone


async def _retire(conn: Connection, parent: str, part: str, ends_at: datetime) -> bool:
    await P["set_lock_timeout"].fetchval(conn, lock_timeout=LOCK_TIMEOUT)
    upto_xid = await Q["lock_audit"].fetchval(conn)
    if upto_xid is None:
        return False
    month = {"after": ends_at - relativedelta(months=1), "before": ends_at}
    ledger = parent == "ledger_entries"
    verified = Q["verified_entries" if ledger else "verified_requests"]
    entries = await verified.fetchval(conn, **month, upto=upto_xid)
    if entries is None:
        return False
    signed = await Q["sign_off"].fetchval(
        conn, part=part, upto=ends_at, entries=entries, upto_xid=upto_xid
    )
    if signed is None:  # another process was first
        return False
    await Q["sum_ledger" if ledger else "sum_units"].execute(conn, part=part, **month)
    await Q["drop_part"].execute(conn, part=part)
    return True
