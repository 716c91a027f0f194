"""What a worker's books need from time to time: leases renewed and given back, memory kept fresh,
journal synced, figures sampled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping

from lava_proxy.books import open_calls
from lava_proxy.books.bank import Books
from lava_proxy.books.condition import State
from lava_proxy.books.renewal import to_renew
from lava_proxy.payments.factory import make_payments
from lava_proxy.payments.seam import Payments
from lava_proxy.store import (
    credit,
    directory,
    idempotency,
    learned,
    limits,
    logins,
    payment_events,
    reaping,
    retention,
)
from lava_proxy.store.database import Connection, StoreConflict, StoreDown
from lava_proxy.store.kept import KEPT
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers import lookups, renewals, top_ups
from lava_proxy.workers.auditor import Auditor
from lava_proxy.workers.loop import every
from lava_proxy.workers.rerater import Rerater
from lava_proxy.workers.takeover import Takeover
from lava_proxy.workers.webhooks import Sender

LEASE_IDLE_S = 20.0
"""Credit of a customer who has been quiet for so long goes back."""

KEEP_S = 5.0
REAP_S = 15.0
"""How often, unless leases are shorter than usual."""
REAP_MOST = 100
AUDIT_LOOK_S = 30.0
"""How often the last audit's result is looked at."""
LEARNED_KEPT_DAYS = 180
HOUSEKEEPING_S = 3600.0
KEY_USES_S = 2.0
"""How old `last_used_at` of a spend key may be."""
LEARNED_S = 60.0
"""How often workers tell each other what they learned about models."""
UNSYNCED_MS = 1000
"""How often the journal is tended where fsync is left to the kernel."""
CHANGES_KEPT_S = 86_400.0
"""Far longer than a worker may go without the change feed (`LAVA_AUTH_STALE_S`)."""
CHANGES_CHANNEL = "lava_changes"
CREDIT_CHANNEL = "lava_credit"
RECALL_CHANNEL = "lava_recall"
WORK_CHANNEL = "lava_work"
RENEWALS_S = 5.0
TOP_UPS_S = 2.0
LOOKUPS_S = 30.0
WORK_PAUSE_S = 0.05
STATES: Mapping[State, int] = {"normal": 0, "leases": 1, "drain": 2, "closed": 3}

log = logging.getLogger(__name__)


class Upkeep:
    """The loops of one worker."""

    def __init__(
        self,
        books: Books,
        metrics: Metrics,
        sweep: Callable[[], None],
        on_broken: Callable[[str], None] = lambda why: None,
        payments: Payments | None = None,
    ) -> None:
        """`on_broken` is told, once, why this process can never write its journal again."""
        self._books = books
        self._metrics = metrics
        self._sweep = sweep
        self._payments = payments or make_payments(books.settings)
        self._on_broken = on_broken
        self._broken = False
        self._state: State = "normal"
        grace_s = books.settings.lease_grace_s + books.settings.lease_reclaim_s
        self._judge = reaping.Judge(books.settings.lease_s + grace_s)
        self._sender = Sender(books.settings, books.database, books.clock, metrics)
        self._tasks: list[asyncio.Task[None]] = []
        self._answers: set[asyncio.Task[None]] = set()
        self._work_due = False

    def start(self) -> None:
        """Start every loop; `stop` ends them."""
        books, settings = self._books, self._books.settings
        loops: list[Coroutine[object, object, None]] = [
            every(settings.directory_poll_s, "directory", self.refresh),
            every(min(KEEP_S, settings.lease_s / 4), "leases", self.keep_leases),
            every(max(1.0, min(REAP_S, settings.lease_reclaim_s / 2)), "lease reaper", self.reap),
            every(1.0, "sweep", self.sweep),
            every(HOUSEKEEPING_S, "housekeeping", self.keep_house),
            every(LEARNED_S, "learned factors", books.share_learned),
            every(KEY_USES_S, "uses of keys", books.key_uses.flush),
            every(open_calls.TELL_S, "open calls", books.open_calls.tell),
            every(open_calls.GONE_S, "calls of others", books.open_calls.forget_gone),
            every(settings.webhook_interval_s, "webhooks", self._sender.run_once),
        ]
        loops.append(every(RENEWALS_S, "renewals", self.renew_cycles))
        loops.append(every(TOP_UPS_S, "top-ups", self.buy_top_ups))
        pause_s = min(LOOKUPS_S, settings.payment_lookup_s)
        loops.append(every(pause_s, "payment lookups", self.look_up_payments))
        pause_s = (settings.journal_fsync_ms or UNSYNCED_MS) / 1000
        loops.append(every(pause_s, "journal", self.tend_journal))
        if settings.journal_takeover_s:
            takeover = Takeover(books, self._metrics)
            loops.append(every(settings.journal_takeover_s, "takeover", takeover.run_once))
        loops.append(books.database.watch())
        if settings.audit_interval_s:
            auditor = Auditor(books.database, self._metrics, settings.audit_interval_s)
            pause_s = min(AUDIT_LOOK_S, settings.audit_interval_s)
            loops.append(every(pause_s, "audit", auditor.run_once))
        if settings.rerate_interval_s:
            rerater = Rerater(books)
            loops.append(every(settings.rerate_interval_s, "late prices", rerater.run_once))
        if books.database.can_listen:
            heard = {
                CHANGES_CHANNEL: books.directory.heard,
                CREDIT_CHANNEL: self._credit_heard,
                RECALL_CHANNEL: self._recall_heard,
                WORK_CHANNEL: self._work_heard,
            }
            loops.append(books.database.listen(heard))
        self._tasks = [asyncio.create_task(self._guarded(loop)) for loop in loops]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sender.close()

    async def refresh(self) -> None:
        """Read the change feed, and prices when they changed."""
        await self._books.directory.poll()
        if self._books.prices_stale:
            await self._books.refresh_prices()

    async def keep_leases(self) -> None:
        """Renew what is in use past half of its time, return what is idle."""
        leases = self._books.leases
        if self._books.database.outage.away:
            return  # what cannot be returned now is better kept: it is all that its customer has
        crowded = len(leases.accounts) > self._books.settings.account_entries
        for account in leases.idle_accounts(0.0 if crowded else LEASE_IDLE_S):
            if account.idle:
                await leases.give_back(account)
        for owner_id in to_renew(leases):
            await self._books.renew(owner_id)
        await self._books.rates.tend()

    async def reap(self) -> None:
        """Take back leases that are over, grace and reclaim time included: their worker is gone or
        was stopped for too long."""
        settings, database = self._books.settings, self._books.database
        grace_s = settings.lease_grace_s + settings.lease_reclaim_s
        async with database.connection() as conn:
            if not await self._may_judge(conn):
                return
            over = await reaping.expired(conn, grace_s, REAP_MOST)
        for owner_id, holder_id in over:
            back_e10 = 0
            with contextlib.suppress(StoreConflict):  # somebody is at it: the next round has it
                async with database.transaction() as conn:
                    if not await self._may_judge(conn):
                        return
                    now = self._books.now()
                    back_e10 = await reaping.reclaim(conn, owner_id, holder_id, grace_s, now)
            if back_e10 and holder_id.startswith(KEPT):
                response = holder_id.removeprefix(KEPT)
                log.warning("%s was never read to its end: uncharged, hold is free", response)

    async def _may_judge(self, conn: Connection) -> bool:
        return self._judge.may(await reaping.clock_s(conn), self._books.clock.boot_s())

    async def tend_journal(self) -> None:
        """fsync the journal and make its next segment, off the event loop."""
        fsync = bool(self._books.settings.journal_fsync_ms)
        journal = self._books.journal
        await asyncio.to_thread(journal.tend, fsync=fsync)
        if journal.failed is not None and not self._broken:
            self._broken = True
            log.critical("%s: this process must be replaced", journal.failed)
            self._on_broken(journal.failed)

    async def sweep(self) -> None:
        """Watch open calls' clocks, and sample the figures."""
        self._sweep()
        books = self._books
        self._tell_state()
        accounts = books.leases.accounts.values()
        self._metrics.sample(
            ledger_queue_rows=books.writer.depth,
            ledger_queue_age_seconds=books.writer.age_s(),
            ledger_failing=int(books.writer.failing_since_s is not None),
            leased_e10=sum(max(a.free_e10, 0) + a.held_e10 + a.pending_e10 for a in accounts),
            held_e10=sum(a.held_e10 for a in accounts),
            books_state=STATES[self._state],
            journal_open_calls=books.journal.open_calls,
            journal_kept_bytes=books.journal.kept_bytes,
            journal_failed=int(books.journal.failed is not None),
        )
        self._metrics.sample_totals(lease_trips=books.leases.trips, warm_holds=books.leases.warm)

    def _tell_state(self) -> None:
        condition = self._books.condition
        state = condition.state()
        if state != self._state:
            level = logging.INFO if state == "normal" else logging.WARNING
            why = condition.closed_by() or "as PostgreSQL and the spool are"
            log.log(level, "books: %s (was %s): %s", state, self._state, why)
            self._state = state

    async def keep_house(self) -> None:
        """Make next months' partitions ahead of time, drop those that are kept no longer; forget
        what nobody asks for any more."""
        database = self._books.database
        async with database.transaction() as conn:
            await credit.Q["ensure_partitions"].fetchval(conn, ahead=3)
        months = self._books.settings.retention_months
        if months:
            for part in await retention.retire(database, months, self._books.now()):
                log.info("%s is past its retention and was dropped", part)
        async with database.transaction() as conn:
            await directory.prune_changes(conn, CHANGES_KEPT_S)
            await idempotency.prune(conn, self._books.now())
            await logins.prune(conn)
            await payment_events.forget(conn, self._books.now())
            await learned.forget(conn, LEARNED_KEPT_DAYS)
        await limits.prune(database, self._books.now())

    def _credit_heard(self, owner_id: str | None) -> None:
        if owner_id is not None:
            self._books.leases.credit_changed(owner_id)
            self._books.recalls.heard(owner_id)

    def _recall_heard(self, payload: str | None) -> None:
        if payload is None:
            return
        going = self._books.recalls.answer(self._books.leases, payload, self._books.rates)
        task = asyncio.create_task(going)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def renew_cycles(self) -> None:
        """Begin the cycles that are due, or charge for them."""
        await renewals.run_once(self._books, self._payments)

    async def buy_top_ups(self) -> None:
        """Buy the credit that leases asked for."""
        await top_ups.run_once(self._books, self._payments)

    async def look_up_payments(self) -> None:
        """Ask the provider about payments whose end nobody told us."""
        await lookups.run_once(self._books, self._payments)

    def _work_heard(self, payload: str | None) -> None:
        if self._work_due:
            return
        self._work_due = True
        task = asyncio.create_task(self._pay_soon())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _pay_soon(self) -> None:
        """When many payments are due at once, as at a month's end, one look finds many. A provider
        that is slow does not keep the next look waiting."""
        await asyncio.sleep(WORK_PAUSE_S)
        self._work_due = False
        await asyncio.gather(self._quietly(self.buy_top_ups()), self._quietly(self.renew_cycles()))

    async def _quietly(self, going: Coroutine[object, object, None]) -> None:
        """The loop tries again, and says why it fails."""
        with contextlib.suppress(StoreDown, StoreConflict):
            await going

    async def _guarded(self, loop: Coroutine[object, object, None]) -> None:
        await loop
