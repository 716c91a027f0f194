"""The books of one process, put together: what `proxy/` and `manage/` ask money questions of.

A call's life here: `admit` writes HOLD, `sent` and `progress` follow it, and `settle` ends it,
once: SETTLE in the journal, the hold released, the row queued. A call that came to nothing is
settled too (outcome ``void``, charge 0), so that replay knows that it ended.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import orjson

from lava_proxy.books import renewal, replay
from lava_proxy.books.codec import encode_call, encode_result
from lava_proxy.books.condition import Condition
from lava_proxy.books.directory import Directory
from lava_proxy.books.holds import Holds
from lava_proxy.books.journal import Journal, JournalError
from lava_proxy.books.key_uses import KeyUses
from lava_proxy.books.leases import Hold, Leases
from lava_proxy.books.open_calls import OpenCalls
from lava_proxy.books.pending import give_back
from lava_proxy.books.prices import load_history, load_prices
from lava_proxy.books.rates import Rates
from lava_proxy.books.recall import Recalls
from lava_proxy.books.writer import Item, Writer
from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError, unavailable
from lava_proxy.core.ids import new_id
from lava_proxy.core.money import E10
from lava_proxy.core.settings import Settings
from lava_proxy.rules.estimate import Learned
from lava_proxy.rules.limits import Rate
from lava_proxy.rules.pricebook import NO_NAMES, PriceBook
from lava_proxy.rules.pricehistory import PriceHistory
from lava_proxy.rules.settlement import Booked, Call, Settlement
from lava_proxy.store import credit, learned, leasing, rates
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk
from lava_proxy.store.database import Database, StoreConflict, StoreDown

log = logging.getLogger(__name__)

LEASE_TRIES = 3
LEASE_RETRY_S = 0.2


class Books:
    """Everything that knows about money in this process. `open` it once, `close` it once."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Clock,
        *,
        on_flush: Callable[[int, float], None],
        on_booked: Callable[[Sequence[tuple[Settlement, Booked]]], None],
        price_names: Mapping[str, str] = NO_NAMES,
    ) -> None:
        """`price_names`: provider id -> its name in the bundled prices."""
        self.settings = settings
        self.database = database
        self.clock = clock
        self.learned = Learned()
        self._price_names = price_names
        self.prices = PriceBook(bundled=price_names)
        self._prices_stale = True
        self._pricing = asyncio.Lock()
        self._on_booked = on_booked
        monthly_e10 = settings.top_up_monthly_max * E10
        self.top_up_rules = leasing.TopUpRules(settings.top_up_low_percent, monthly_e10)
        self.spent_free: set[str] = set()
        """Customers whose credit was spent past our leases (reports): it may be low now."""
        self.directory = Directory(
            database,
            clock,
            entries=settings.directory_entries,
            stale_s=settings.auth_stale_s,
            wait_s=settings.database_wait_s,
        )
        self.directory.on_prices_changed = self._prices_changed
        self.journals_dir = Path(settings.data_dir) / "journals"
        self.journal = Journal(
            self.journals_dir / new_id("holder"), segment_bytes=settings.journal_segment_bytes
        )
        self.recalls = Recalls(
            database, clock, holder_id=self.journal.holder_id, wait_s=settings.recall_wait_s
        )
        self.leases = self._make_leases()
        self.rates = Rates(
            self._draw, clock, wait_s=settings.database_wait_s, recall=self.recalls.ask
        )
        self.writer = Writer(
            database,
            clock,
            interval_s=settings.writer_interval_ms / 1000,
            batch_rows=settings.writer_batch_rows,
            queue_rows=settings.writer_queue_rows,
            on_booked=self._booked,
            on_flush=on_flush,
            catch_up_rows_s=settings.writer_catch_up_rows_s,
        )
        self.condition = Condition(
            outage=database.outage,
            leases=self.leases,
            journal=self.journal,
            writer=self.writer,
            clock=clock,
            rows_max=settings.writer_queue_rows,
            bytes_max=settings.journal_limit_bytes,
        )
        self.key_uses = KeyUses(database)
        self.open_calls = OpenCalls(database, clock, holder_id=self.journal.holder_id)
        self._writing: asyncio.Task[None] | None = None

    def _make_leases(self) -> Leases:
        settings = self.settings
        return Leases(
            self._lease_trip,
            self._give_back,
            self.clock,
            holder_id=self.journal.holder_id,
            lease_s=settings.lease_s,
            grace_s=settings.lease_grace_s,
            burn_s=settings.lease_burn_s,
            refusal_s=settings.refusal_cache_s,
            wait_s=settings.database_wait_s,
            top_up_wait_s=settings.top_up_wait_s,
            recall=self.recalls.ask,
        )

    async def open(self) -> list[replay.Replayed]:
        """Settle what dead processes left behind, then start the writer; answers what they left."""
        await self.directory.poll()  # what changed before is no news to an empty memory
        await self.refresh_prices()
        await self.share_learned()
        left = await replay.take_over(self.journals_dir, self.database, self.clock, self.prices)
        self._writing = asyncio.create_task(self.writer.run(), name="ledger writer")
        return left

    async def close(self) -> None:
        """Book what is queued, give leases back, close the journal."""
        self.writer.close()
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=self.settings.drain_timeout_s + 5)
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        try:
            await self.leases.close()
            if not self.writer.depth:
                await self._return_all()
        finally:
            self.journal.close()

    async def _return_all(self) -> None:
        try:
            await self.rates.tend(all_of_them=True)
            async with self.database.transaction() as conn:
                await credit.close_holder(conn, self.journal.holder_id, self.clock.now())
            await self.share_learned()
            await self.key_uses.flush()
            await self.open_calls.tell()
        except (StoreDown, StoreConflict, LavaError) as error:
            log.warning("leases stay open until they expire: %s", error)

    def admit(self, call: Call) -> int:
        """Write HOLD; returns the call's number in the journal."""
        try:
            seq = self.journal.hold(encode_call(call))
        except JournalError:
            raise unavailable("the journal cannot be written; try again", 5) from None
        self.open_calls.begun(call)
        return seq

    def amend(self, seq: int, call: Call) -> None:
        """Write HOLD again: more is known of the call, before its answer goes out."""
        self.journal.amend(seq, encode_call(call))

    def settle(
        self, seq: int, row: Settlement, hold: Hold | Holds | None, estimate_e10: int
    ) -> None:
        """End a call. `estimate_e10` is an upper bound of its charge, and of what it keeps."""
        try:
            self.journal.settle(seq, encode_result(row))
        except (JournalError, orjson.JSONEncodeError):
            log.exception("journal: SETTLE of %s is not written", row.call.request_id)
        if isinstance(hold, Holds):
            hold.release(row, estimate_e10)
            estimate_e10 = estimate_e10 if hold.credit else 0
        elif hold is not None:
            hold.release(estimate_e10)
        self.writer.put(Item(row, seq, estimate_e10 if hold else 0, self.clock.boot_s()))

    def record(self, row: Settlement) -> None:
        """Queue a row that no money hangs on; it is not journaled."""
        self.writer.put(Item(row, None, 0, self.clock.boot_s()))

    async def refresh_prices(self) -> None:
        """Read the prices in force; one at a time, or an old look could come last."""
        async with self._pricing:
            self._prices_stale = False
            try:
                now = self.clock.now()
                self.prices = await load_prices(self.database, now, self._price_names)
            except BaseException:
                self._prices_stale = True
                raise

    async def price_history(self, known_for_s: float = 0.0) -> PriceHistory:
        """Prices for requests that came before them."""
        now, known_for = self.clock.now(), timedelta(seconds=known_for_s)
        return await load_history(self.database, now, self._price_names, known_for=known_for)

    async def share_learned(self) -> None:
        """Tell the other workers what was learned here, and take what they know."""
        await learned.share(self.database, self.learned)

    @property
    def prices_stale(self) -> bool:
        """Whether prices were changed, or one came into force."""
        return self._prices_stale or self.prices.outdated(self.clock.now())

    def _prices_changed(self) -> None:
        self._prices_stale = True

    def _booked(self, batch: Sequence[tuple[Item, Booked]]) -> None:
        for item, booked in batch:
            call = item.settlement.call
            if item.seq is not None:
                self.journal.committed(item.seq)
                self.open_calls.booked(call.request_id)
            if call.customer_id and booked.fresh and booked.charge_e10 > booked.leased_e10:
                self.spent_free.add(call.owner_id)
            give_back(self.leases, item, booked)
        self._on_booked([(item.settlement, booked) for item, booked in batch])

    async def _lease_trip(self, ask: LeaseAsk) -> LeaseAnswer:
        for attempt in range(LEASE_TRIES):
            try:
                async with self.database.transaction() as conn:
                    return await leasing.lease(conn, ask, self.top_up_rules, self.clock.now())
            except (StoreDown, StoreConflict) as error:
                if self.database.outage.away:
                    break
                log.warning("lease: %s", error)
                if attempt + 1 < LEASE_TRIES:
                    await asyncio.sleep(random.uniform(0, LEASE_RETRY_S))  # noqa: S311 - jitter
        raise unavailable("credit cannot be looked up now; try again")

    async def _draw(
        self, owner_id: str, rate: Rate, kept: int, used_us: list[int], want: int, lease_s: float
    ) -> rates.Draw:
        try:
            async with self.database.transaction() as conn:
                return await rates.draw(
                    conn,
                    owner_id=owner_id,
                    holder_id=self.journal.holder_id,
                    rate=rate,
                    kept=kept,
                    used_us=used_us,
                    want=want,
                    lease_s=lease_s,
                )
        except (StoreDown, StoreConflict) as error:
            raise unavailable("the rate cannot be looked up now; try again") from error

    async def _give_back(self, owner_id: str) -> None:
        holder_id, now = self.journal.holder_id, self.clock.now()
        try:
            async with self.database.transaction() as conn:
                await credit.give_back(conn, owner_id, holder_id, None, now)
        except (StoreDown, StoreConflict) as error:
            raise unavailable("credit cannot be given back now") from error

    async def renew(self, owner_id: str) -> None:
        """More time for the leases on an account in use."""
        asked_s = self.clock.boot_s()
        if not renewal.renewable(self.leases, owner_id):
            return  # others were renewed first, and this process may have stood still meanwhile
        holder_id, lease_s = self.journal.holder_id, self.settings.lease_s
        async with self.database.transaction() as conn:
            there = await credit.renew(conn, owner_id, holder_id, lease_s)
        renewal.renewed(self.leases, owner_id, asked_s, there)

    def now(self) -> datetime:
        """Wall time, to be written down."""
        return self.clock.now()
