"""Takes over what a process left that died beside us and was not started again: its journal is
booked, its leases go back. `Books.open` does the same at start."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from lava_proxy.books.bank import Books
from lava_proxy.books.folder import abandoned
from lava_proxy.books.journal import JournalError
from lava_proxy.books.replay import take_one
from lava_proxy.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Takeover:
    """Looks after the other journals in our data directory."""

    def __init__(self, books: Books, metrics: Metrics) -> None:
        self._books = books
        self._metrics = metrics
        self._unreadable: set[str] = set()

    async def run_once(self) -> None:
        """One look at every folder."""
        if self._books.database.outage.away:
            return
        for folder in await asyncio.to_thread(abandoned, self._books.journals_dir):
            if folder.name == self._books.journal.holder_id:
                continue
            try:
                await self._take(folder)
            except (JournalError, OSError) as error:  # of another version, of another user
                if folder.name not in self._unreadable:
                    self._unreadable.add(folder.name)
                    log.error("journal %s is left as it is: %s", folder.name, error)

    async def _take(self, folder: Path) -> None:
        books = self._books
        left = await take_one(folder, books.database, books.clock, books.prices, beside_calls=True)
        if left is not None and left.damaged:
            self._metrics.anomaly("journal_damaged")
