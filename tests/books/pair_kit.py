"""Two workers on one database that hear each other's recalls, and holds on limits."""

from __future__ import annotations

import asyncio
from pathlib import Path

from books_kit import make_books

from lava_proxy.books.bank import Books
from lava_proxy.books.leases import Hold
from lava_proxy.core.clock import SystemClock
from lava_proxy.rules.limits import Limit
from lava_proxy.store.database import Database


async def take(books: Books, owner_id: str, limit: Limit, amount: int = 1) -> Hold | None:
    account = books.leases.account(owner_id)
    account.limit = limit
    held = await books.leases.hold(account, amount, amount, 0)
    return held if isinstance(held, Hold) else None


async def pair(
    database: Database, tmp_path: Path, **changes: object
) -> tuple[Books, Books, list[asyncio.Task[None]]]:
    """Two workers that hear each other's recalls."""
    both, tasks = [], []
    for name in ("a", "b"):
        books = make_books(
            database, SystemClock(), tmp_path / name, **{"recall_wait_s": 0.2, **changes}
        )
        await books.open()
        both.append(books)
    for books in both:

        def heard(payload: str | None, books: Books = books) -> None:
            if payload:
                answer = books.recalls.answer(books.leases, payload, books.rates)
                tasks.append(asyncio.create_task(answer))

        def given_back(owner_id: str | None, books: Books = books) -> None:
            if owner_id:
                books.leases.credit_changed(owner_id)
                books.recalls.heard(owner_id)

        channels = {"lava_recall": heard, "lava_credit": given_back}
        tasks.append(asyncio.create_task(database.listen(channels)))
    await asyncio.sleep(0.1)
    return both[0], both[1], tasks


async def stop(*books: Books, tasks: list[asyncio.Task[None]]) -> None:
    for each in books:
        await each.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
