"""Auto top-ups: what leases asked for is bought; what reports spent is looked at."""

from __future__ import annotations

import logging

from lava_proxy.books.bank import Books
from lava_proxy.core.errors import LavaError
from lava_proxy.payments.seam import Payments
from lava_proxy.store.database import StoreConflict, StoreDown, StorePoison
from lava_proxy.store.leasing import look
from lava_proxy.workers.charges import ask_for_due

log = logging.getLogger(__name__)


async def run_once(books: Books, payments: Payments) -> None:
    """Look at customers whose credit was spent past our leases, then buy what is due."""
    owners, books.spent_free = sorted(books.spent_free), set()
    for owner_id in owners:
        await _look(books, owner_id)
    await ask_for_due(books, payments, "top_up")


async def _look(books: Books, owner_id: str) -> None:
    """One customer's trouble is not the others'; who cannot be looked at now is in the next
    round."""
    try:
        async with books.database.transaction() as conn:
            await look(conn, owner_id, books.top_up_rules, books.now())
    except (StoreConflict, StoreDown):
        books.spent_free.add(owner_id)
    except (StorePoison, LavaError) as error:
        log.warning("top-up of %s: %s", owner_id, error)
