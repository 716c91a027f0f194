"""Cycles that are over: free ones begin, paid ones are charged for. Late or twice is harmless."""

from __future__ import annotations

from lava_proxy.books.bank import Books
from lava_proxy.payments.seam import Payments
from lava_proxy.store.subscriptions import due_customers, renew_due
from lava_proxy.workers.charges import ask_for_due

MOST = 100


async def run_once(books: Books, payments: Payments) -> None:
    """Look after at most `MOST` cycles, one transaction each."""
    async with books.database.connection() as conn:
        customers = await due_customers(conn, books.now(), MOST)
    for customer_id in customers:
        async with books.database.transaction() as conn:
            await renew_due(conn, customer_id, books.now())
    await ask_for_due(books, payments, "renewal")
