"""Cycles that are over: free ones begin, paid ones are charged for, and those that nobody paid for
in time end their subscription. Late or twice is harmless."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from lava_proxy.books.bank import Books
from lava_proxy.core.errors import LavaError
from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.payments.seam import Payments
from lava_proxy.store.database import StoreConflict, StorePoison
from lava_proxy.store.subscriptions import due_customers, lapse, lapsed_customers, renew_due
from lava_proxy.workers.charges import ask_for_due

MOST = 100

log = logging.getLogger(__name__)


async def run_once(books: Books, payments: Payments) -> None:
    """Look after at most `MOST` cycles, one transaction each."""
    async with books.database.connection() as conn:
        customers = await due_customers(conn, books.now(), MOST)
    for customer_id in customers:
        with _apart(customer_id):
            async with books.database.transaction() as conn:
                await renew_due(conn, customer_id, books.now())
    await ask_for_due(books, payments, "renewal")
    await _end_unpaid(books)


async def _end_unpaid(books: Books) -> None:
    """Whatever the provider says or does not say: an unpaid subscription ends with its grace."""
    asked_before = books.now() - timedelta(days=books.settings.renewal_grace_days)
    async with books.database.connection() as conn:
        customers = await lapsed_customers(conn, asked_before, MOST)
    for customer_id in customers:
        with _apart(customer_id):
            async with books.database.transaction() as conn:
                await lapse(conn, customer_id, asked_before, books.now())


@contextmanager
def _apart(customer_id: str) -> Iterator[None]:
    """One customer's trouble is not the others'."""
    try:
        yield
    except (StoreConflict, StorePoison, LavaError, InvariantBroken) as error:
        log.warning("the cycle of %s: %s", customer_id, error)
