"""The books check: granted = available + open leases + spent + expired, and every sum behind it.

Each audit looks at one read-only snapshot, so it may run while traffic does. It is incremental:

* Every row of `requests` and `ledger_entries` carries the id of the transaction that wrote it. In a
  snapshot all transactions below its *horizon* are decided, so nothing can appear below it later,
  however late it commits. An audit that finds no difference moves the checkpoint up to its horizon,
  with the sums that it verified until there: ledger by customer, units by tier scope.
* The next one compares today's balances and counters with those sums plus all rows since. So any
  error in a balance, a counter, an open lease or grant is found whenever it came to be, and any
  error in the new rows and the quarters of an hour that they belong to. What it does not see is an
  old row that was changed behind the triggers: that takes `full`, which begins from nothing.
* A difference leaves the checkpoint where it was: it is found again until it is mended.

On another server than last time (a restored copy), whose transaction ids mean nothing here, an
audit is a full one by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from lava_proxy.store.database import Connection, Database
from lava_proxy.store.sql import load

Q = load("audit")

CHECKS = (
    "grants_unbalanced",
    "leases_unbalanced",
    "overdrafts_unbalanced",
    "accounts_unbalanced",
    "transactions_unbalanced",
    "charges_unbalanced",
    "costs_unbalanced",
    "reratings_unbalanced",
    "counters_unbalanced",
    "rollups_unbalanced",
    "wallets_unbalanced",
    "wallet_costs_unbalanced",
)
MOST = 20
"""Differences shown per check."""
TIMEOUT_S = 600.0
"""Of one statement: a full audit reads everything."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that does not add up."""

    check: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. Amounts in 10^-10 USD; `granted` is net of withdrawals; `requests` and
    `entries` are the rows looked at."""

    differences: tuple[Difference, ...]
    requests: int
    entries: int
    granted_e10: int
    available_e10: int
    leased_e10: int
    spent_e10: int
    expired_e10: int
    debt_e10: int
    quarantined: int
    """Rows that could not be booked and that nobody has decided on, and what they may come to."""
    quarantined_e10: int
    full: bool

    @property
    def sound(self) -> bool:
        """No difference, and the one-line equation holds."""
        parts = self.available_e10 + self.leased_e10 + self.spent_e10 + self.expired_e10
        return not self.differences and parts == self.granted_e10


@dataclass(frozen=True, slots=True)
class LastAudit:
    """What the last audit found, by whichever process; None where there was none."""

    age_s: float | None
    sound_age_s: float | None
    """Since one that found nothing."""
    differences: int
    quarantined: int
    quarantined_e10: int


async def audit(database: Database, *, full: bool = True) -> Audit:
    """Check everything, or without `full` what is new since the last audit."""
    async with database.apart(TIMEOUT_S) as conn:
        return await _audit(conn, full=full)


async def audit_alone(database: Database) -> Audit | None:
    """Check what is new, unless another process does so by routine already."""
    async with database.apart(TIMEOUT_S) as lock, lock.transaction():
        if not await Q["alone"].fetchval(lock):
            return None
        return await audit(database, full=False)


async def _audit(conn: Connection, *, full: bool) -> Audit:
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        state = await Q["state"].fetchrow(conn)
        if state is None:
            raise LookupError("no audit state")
        known = state["server"] == state["here"] and state["upto_xid"] <= state["horizon_xid"]
        since = 0 if full or not known else state["upto_xid"]
        found = await _look(conn, since)
    await _note(conn, found, since, state)
    return found


async def last_audit(conn: Connection) -> LastAudit:
    """The last one, of whichever process."""
    row = await Q["state"].fetchrow(conn)
    if row is None:
        raise LookupError("no audit state")
    return LastAudit(
        row["age_s"],
        row["sound_age_s"],
        row["differences"],
        row["quarantined"],
        row["quarantined_e10"],
    )


async def _look(conn: Connection, since: int) -> Audit:
    found: list[Difference] = []
    for check in CHECKS:
        rows = await Q[check].fetch(conn, since=since, most=MOST)
        found += [Difference(check, dict(row)) for row in rows]
    totals = await Q["totals"].fetchrow(conn, since=since)
    if totals is None:
        raise LookupError("no totals")
    return Audit(tuple(found), **dict(totals), full=since == 0)


async def _note(conn: Connection, found: Audit, since: int, state: asyncpg.Record) -> None:
    """Move the checkpoint where nothing was found, unless another audit did so meanwhile."""
    before, upto = state["upto_xid"], state["horizon_xid"]
    async with conn.transaction():
        if await Q["lock_state"].fetchval(conn) != before:
            return
        if not found.sound:
            differences = max(1, len(found.differences))
            await Q["keep_state"].execute(
                conn, upto=before, server=state["server"], differences=differences
            )
            return
        if since == 0:
            await Q["forget_ledger"].execute(conn)
            await Q["forget_units"].execute(conn)
        await Q["keep_ledger"].execute(conn, since=since, upto=upto)
        await Q["keep_units"].execute(conn, since=since, upto=upto)
        await Q["keep_state"].execute(conn, upto=upto, server=state["here"], differences=0)
