"""Auto top-ups: what leases asked for is bought; what reports spent is looked at."""

from __future__ import annotations

from lava_proxy.books.bank import Books
from lava_proxy.payments.seam import Payments
from lava_proxy.store.leasing import look
from lava_proxy.workers.charges import ask_for_due


async def run_once(books: Books, payments: Payments) -> None:
    """Look at customers whose credit was spent past our leases, then buy what is due."""
    owners, books.spent_free = sorted(books.spent_free), set()
    for owner_id in owners:
        async with books.database.transaction() as conn:
            await look(conn, owner_id, books.top_up_rules, books.now())
    await ask_for_due(books, payments, "top_up")
