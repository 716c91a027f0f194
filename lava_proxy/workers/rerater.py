"""Late prices as a routine: one process at a time re-rates what has a price by now.

A price must have been there for `LAVA_RERATE_AFTER_S`, because each request is re-rated once: a
mistake that is taken back in time did no harm. A round is bounded, and the next one goes on; what
dies in between has corrected whole requests.
"""

from __future__ import annotations

import logging
from contextlib import aclosing

from lava_proxy.books.bank import Books
from lava_proxy.books.share import Share
from lava_proxy.store import unrated
from lava_proxy.store.reratings import rerate, turn

ROWS_MAX = 5000
"""Requests that one round corrects."""

log = logging.getLogger(__name__)


class Rerater:
    """One process's part of it."""

    def __init__(self, books: Books) -> None:
        self._books = books

    async def run_once(self) -> int:
        """Look, and correct what has a price now unless another process does; how many."""
        database = self._books.database
        async with database.connection() as conn:
            if not await unrated.anything(conn):
                return 0
        async with turn(database) as ours:
            return await self._correct() if ours else 0

    async def _correct(self) -> int:
        books = self._books
        prices = await books.price_history(books.settings.rerate_after_s)
        done = 0
        async with aclosing(rerate(Share(books.database, 1), prices, books.now())) as changes:
            async for change in changes:
                done += 1
                if change.customer_id is not None and change.charge_change_e10 > 0:
                    books.spent_free.add(change.customer_id)  # a top-up may be due
                if done == ROWS_MAX:
                    break
        if done:
            log.info("%d requests re-rated by prices that came late", done)
        return done
