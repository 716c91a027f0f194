"""The books check: granted = available + open leases + spent + expired, and every sum behind it.

One read-only snapshot, so it may run while traffic does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lava_proxy.store.database import Database
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
    "counters_unbalanced",
)
MOST = 20
"""Differences shown per check."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that does not add up."""

    check: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. Amounts in 10^-10 USD; `granted` is net of withdrawals."""

    differences: tuple[Difference, ...]
    requests: int
    entries: int
    granted_e10: int
    available_e10: int
    leased_e10: int
    spent_e10: int
    expired_e10: int
    debt_e10: int

    @property
    def sound(self) -> bool:
        """No difference, and the one-line equation holds."""
        parts = self.available_e10 + self.leased_e10 + self.spent_e10 + self.expired_e10
        return not self.differences and parts == self.granted_e10


async def audit(database: Database) -> Audit:
    """Check everything, from the beginning."""
    found: list[Difference] = []
    async with (
        database.connection() as conn,
        conn.transaction(isolation="repeatable_read", readonly=True),
    ):
        for check in CHECKS:
            rows = await Q[check].fetch(conn, most=MOST)
            found += [Difference(check, dict(row)) for row in rows]
        totals = await Q["totals"].fetchrow(conn)
    if totals is None:
        raise LookupError("no totals")
    return Audit(tuple(found), **dict(totals))
