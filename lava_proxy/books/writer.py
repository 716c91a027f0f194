"""The ledger writer: settlements wait in a bounded queue and are booked in batches.

The answer to the client never waits for this. When 200 rows wait, the first has waited for 100 ms
(`LAVA_WRITER_INTERVAL_MS`), or a report wants its answer, one transaction books a batch; nothing
leaves the queue before its commit, and a commit whose fate is unknown is simply tried again,
because request ids make booking idempotent.

When a batch fails, the class of the error decides (store/database.py maps them):

* the database is away or in conflict: wait with full jitter, try the same rows again. When it is
  back, grants go first and what has piled up is booked at a capped rate (`_catch_up`);
* a row is poison (data that PostgreSQL refuses): halve the batch until the row stands alone, set
  it apart (books/quarantine.py: its money is booked all the same), go on with the others;
* anything else is a defect or a wrong schema: the writer stops, admission closes, rows stay in the
  journal.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from lava_proxy.books.quarantine import set_apart
from lava_proxy.core.clock import Clock
from lava_proxy.core.errors import LavaError, unavailable
from lava_proxy.rules.settlement import Booked, Settlement
from lava_proxy.store.database import Database, StoreConflict, StoreDown
from lava_proxy.store.faults import POISON
from lava_proxy.store.settle import settle

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.05
RETRY_MOST_S = 5.0
GRANTS_FIRST_S = 0.3
"""After an outage customers get their leases before the rows of the past are booked."""


@dataclass(slots=True)
class Item:
    """A settlement on its way. `estimate_e10` is what the worker's account has pending for it."""

    settlement: Settlement
    seq: int | None
    """Its number in the journal; None for a report, which is acknowledged after the commit."""
    estimate_e10: int
    queued_s: float
    done: asyncio.Future[Booked] | None = None
    booked: bool = False
    tried: Booked | None = None
    """What the last attempt computed, if its commit may have happened without our hearing of it."""


class Writer:
    """Books items. `on_booked` hears of all items of a batch together, after their commit.

    Batches are taken from the front of the queue in order. When more than one whole batch waits, a
    second one is under way beside the first: while PostgreSQL works on one, we compute the other.
    They cannot deadlock or change each other's outcome: `settle` locks whatever both may touch in
    one order.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        interval_s: float,
        batch_rows: int,
        queue_rows: int,
        on_booked: Callable[[Sequence[tuple[Item, Booked]]], None],
        on_flush: Callable[[int, float], None],
        catch_up_rows_s: int,
    ) -> None:
        self._database = database
        self._clock = clock
        self._interval_s = interval_s
        self._batch_rows = batch_rows
        self._queue_rows = queue_rows
        self._catch_up_rows_s = catch_up_rows_s
        self._behind = False
        """What piled up while the database was away is not all booked yet."""
        self._caught_up = 0
        """Rows booked since the last pause."""
        self._on_booked = on_booked
        self._on_flush = on_flush
        self._queue: deque[Item] = deque()
        self._taken = 0
        """So many at the front are in a batch already."""
        self._beside: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._closing = False
        self.failing_since_s: float | None = None
        self.stopped: str | None = None

    @property
    def depth(self) -> int:
        """Rows waiting, those being written included."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """No new call may be admitted: the queue must not grow without bound."""
        return len(self._queue) >= self._queue_rows

    def age_s(self) -> float:
        """How long the oldest row has waited."""
        return self._clock.boot_s() - self._queue[0].queued_s if self._queue else 0.0

    def put(self, item: Item) -> None:
        """Queue an item. Never refuses: what was used must be booked."""
        self._queue.append(item)
        if not self.stopped:
            self._emptied.clear()
        waiting = len(self._queue) - self._taken
        if waiting == 1 or waiting >= self._batch_rows or item.done:
            self._wake.set()

    async def book(self, settlement: Settlement) -> Booked:
        """Queue a report and wait until it is committed."""
        if self.full or self.stopped or self._closing:
            raise unavailable("the ledger is behind; try again")
        done: asyncio.Future[Booked] = asyncio.get_running_loop().create_future()
        self.put(Item(settlement, None, 0, self._clock.boot_s(), done))
        return await done

    async def run(self) -> None:
        """Write until closed and empty."""
        while self.stopped is None:
            if len(self._queue) == self._taken:
                if self._closing and await self._all_done():
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            if len(self._queue) - self._taken < self._batch_rows and not self._closing:
                await self._gather()
            batch = self._take()
            if self._beside is None and len(self._queue) - self._taken >= self._batch_rows:
                self._beside = asyncio.create_task(self._write_beside(), name="second batch")
            await self._write_until_done(batch)
            await self._catch_up()
        await self._all_done()

    async def _write_beside(self) -> None:
        """Batches beside the first one, as long as whole ones wait."""
        try:
            while self.stopped is None and len(self._queue) - self._taken >= self._batch_rows:
                await self._write_until_done(self._take())
                if self._behind:
                    return  # after an outage one at a time, and not too fast
        finally:
            self._beside = None
            self._wake.set()

    def _take(self) -> list[Item]:
        """The next batch. Its rows stay in the queue until they are committed."""
        end = min(self._taken + self._batch_rows, len(self._queue))
        batch = list(islice(self._queue, self._taken, end))
        self._taken = end
        return batch

    def _drop_booked(self) -> None:
        queue, waiting = self._queue, len(self._queue)
        while queue and queue[0].booked:
            queue.popleft()
        dropped = waiting - len(queue)
        self._taken -= dropped
        self._caught_up += dropped
        if not queue:
            self._emptied.set()

    async def _all_done(self) -> bool:
        """Wait for the batch beside; whether the queue is empty then."""
        if self._beside is not None:
            await asyncio.wait({self._beside})
        return not self._queue

    async def flush(self) -> None:
        """Wait until everything that is queued is booked, or the writer has stopped."""
        await self._emptied.wait()

    def close(self) -> None:
        """Let `run` end once the queue is empty."""
        self._closing = True
        self._wake.set()

    async def _gather(self) -> None:
        """Let a batch grow for a moment: a full one, or a caller who waits, ends it."""
        self._wake.clear()
        if any(item.done for item in islice(self._queue, self._taken, None)):
            return
        try:
            async with asyncio.timeout(self._interval_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _wait_while_away(self) -> None:
        outage = self._database.outage
        if outage.away:
            self._behind = True
            self._fail_waiting("the database is away; try again")
            await outage.answering()
            await asyncio.sleep(random.uniform(0, GRANTS_FIRST_S))  # noqa: S311 - jitter

    async def _catch_up(self) -> None:
        """Pause after a batch, so that many workers with much to book do not take all of the
        database for themselves."""
        if self._behind and self._beside is not None:
            await asyncio.wait({self._beside})
        rows, self._caught_up = self._caught_up, 0
        if self._behind and len(self._queue) >= self._batch_rows and not self._closing:
            await asyncio.sleep(rows / self._catch_up_rows_s)
        else:
            self._behind = False

    async def _write_until_done(self, batch: Sequence[Item]) -> None:
        """Until all of it is committed, or the writer has stopped."""
        delay_s = RETRY_FIRST_S
        while self.stopped is None:
            try:
                await self._write(batch)
            except (StoreDown, StoreConflict) as error:
                if self.failing_since_s is None:
                    self.failing_since_s = self._clock.boot_s()
                    log.warning("ledger: cannot write, will retry: %s", error)
                await asyncio.sleep(random.uniform(0, delay_s))  # noqa: S311 - jitter
                await self._wait_while_away()
                delay_s = min(2 * delay_s, RETRY_MOST_S)
            except Exception as error:  # a defect or a wrong schema: rows stay in the journal
                self.stopped = f"{type(error).__name__}: {error}"
                log.exception("ledger: stopped")
                self._fail_waiting("the ledger has stopped")
                self._emptied.set()
                self._wake.set()
                return
            else:
                self.failing_since_s = None
                self._drop_booked()
                return

    async def _write(self, batch: Sequence[Item]) -> None:
        """One transaction for `batch`, or two for its halves when a row is poison."""
        batch = [item for item in batch if not item.booked]  # a retry may find some done
        if not batch:
            return
        started_s = self._clock.boot_s()
        try:
            async with self._database.transaction() as conn:
                booked = await settle(conn, [i.settlement for i in batch], self._clock.now())
                for item, result in zip(batch, booked, strict=True):
                    if result.fresh:
                        item.tried = result
        except POISON as error:
            if len(batch) > 1:
                half = len(batch) // 2
                await self._write(batch[:half])
                await self._write(batch[half:])
                return
            booked = [await self._quarantine(batch[0], error)]
        self._on_flush(len(batch), self._clock.boot_s() - started_s)
        results = [
            (item, computed if computed.fresh else item.tried or computed)
            for item, computed in zip(batch, booked, strict=True)
        ]
        for item in batch:
            item.booked = True
        self._on_booked(results)
        for item, result in results:
            if item.done is not None and not item.done.done():
                item.done.set_result(result)

    async def _quarantine(self, item: Item, error: Exception) -> Booked:
        row = item.settlement
        if item.done is not None and not item.done.done():
            item.done.set_exception(
                LavaError("validation_error", f"the books refuse this report: {error}")
            )
            return Booked(row.call.request_id, row.call.owner_id, 0, False)
        return await set_apart(self._database, row, error, item.estimate_e10, self._clock.now())

    def _fail_waiting(self, why: str) -> None:
        """Those who wait hear of it now. Their rows stay: a report may be booked after a 503."""
        for item in self._queue:
            if item.done is not None and not item.done.done():
                item.done.set_exception(unavailable(why))
