"""In which state the books are, from what can be seen of database, leases, journal and queue.

=========  =============================================  =======================================
state      when                                           what it means
=========  =============================================  =======================================
normal     PostgreSQL answers                             all is served
leases     nothing could be booked or granted for 1 s     leased credit works, others get 503
drain      the spool is over 80 % of its cap, or all      no new prepaid call; what runs goes on
           leases are over                                within its holds
closed     the spool is full, the journal cannot be       no new call; not ready
           written, or the writer met a wrong schema
=========  =============================================  =======================================

The *spool* is what PostgreSQL has yet to get: rows in the writer's queue, bytes in the journal.
"""

from __future__ import annotations

from typing import Literal

from lava_proxy.books.journal import Journal
from lava_proxy.books.leases import Leases
from lava_proxy.books.writer import Writer
from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import unavailable
from lava_proxy.store.outage import AWAY_AFTER_S, Outage

State = Literal["normal", "leases", "drain", "closed"]

DRAIN_PERCENT = 80
"""A spool that is fuller than this takes no new prepaid call: those that run need the rest."""

LOOK_S = 1.0


class Condition:
    """Reads, never changes anything. Asked twice per call, so one look tells that all is well."""

    def __init__(
        self,
        *,
        outage: Outage,
        leases: Leases,
        journal: Journal,
        writer: Writer,
        clock: Clock,
        rows_max: int,
        bytes_max: int,
    ) -> None:
        self._outage = outage
        self._leases = leases
        self._journal = journal
        self._writer = writer
        self._clock = clock
        self._bytes_max = bytes_max
        self._rows_high = DRAIN_PERCENT * rows_max // 100
        self._bytes_high = DRAIN_PERCENT * bytes_max // 100
        self._over = False
        self._over_until_s = 0.0

    def state(self) -> State:
        """The state now."""
        if self._well():
            return "normal"
        if self.closed_by() is not None:
            return "closed"
        away = self._away()
        if self._spool_high() or (away and self._all_over()):
            return "drain"
        return "leases" if away else "normal"

    def closed_by(self) -> str | None:
        """Why no new call may start."""
        if self._journal.closed or self._writer.stopped:
            return self._journal.closed or self._writer.stopped
        if self._writer.full:
            return "the ledger queue is full"
        if self._journal.kept_bytes >= self._bytes_max:
            return "the journal is as large as it may be"
        return None

    def refuse_if_closed(self) -> None:
        """Raise 503 when the outcome of a new call could not be kept."""
        if not self._well() and self.closed_by() is not None:
            raise unavailable("the books are closed; try again", 5)

    def refuse_prepaid_if_draining(self) -> None:
        """Raise 503 when no new call may be opened on leased credit."""
        if not self._well() and self.state() == "drain":
            raise unavailable("the ledger is behind; try again", 5)

    def _well(self) -> bool:
        """Whether nothing at all is wrong, which no other method denies then."""
        journal, writer = self._journal, self._writer
        return (
            journal.failed is None
            and journal.full is None
            and writer.stopped is None
            and writer.failing_since_s is None
            and not self._outage.away
            and writer.depth <= self._rows_high
            and journal.kept_bytes <= self._bytes_high
        )

    def _away(self) -> bool:
        """Whether nothing could be granted, or nothing booked, for a while."""
        since_s = self._writer.failing_since_s
        return self._outage.away or (
            since_s is not None and self._clock.boot_s() - since_s > AWAY_AFTER_S
        )

    def _all_over(self) -> bool:
        """Looked at once a second: it goes through all accounts."""
        now_s = self._clock.boot_s()
        if now_s >= self._over_until_s:
            self._over, self._over_until_s = self._leases.all_over(), now_s + LOOK_S
        return self._over

    def _spool_high(self) -> bool:
        return self._writer.depth > self._rows_high or self._journal.kept_bytes > self._bytes_high
