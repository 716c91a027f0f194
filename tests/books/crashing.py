"""A process that admits, journals, holds real leases and settles until it is killed (test_crash).

Every request id is written to its standard output before it is admitted, and again with the tokens
when it is sent and when it is settled: the truth that outlives it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from books_kit import UNIT_METER, Shop, make_books, make_call, row

from lava_proxy.books.bank import Books
from lava_proxy.books.leases import Refusal
from lava_proxy.core.clock import SystemClock
from lava_proxy.store.database import Database


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def one_call(books: Books, shop: Shop, owner: str, rng: random.Random) -> None:
    leases = books.leases
    held = await leases.hold(leases.account(owner), 40, 40, 0)
    if isinstance(held, Refusal):
        await asyncio.sleep(0.001)
        return
    made = make_call(
        owner, shop=shop, holder_id=books.journal.holder_id, input_tokens=rng.randrange(1, 9)
    )
    name = made.request_id
    say("admitted", name)
    seq = books.admit(made)
    await asyncio.sleep(rng.uniform(0, 0.004))
    books.journal.sent(seq)
    say("sent", name, made.input_tokens)
    tokens = 0
    for _ in range(rng.randrange(5)):
        await asyncio.sleep(rng.uniform(0, 0.004))
        tokens += rng.randrange(1, 6)
        books.journal.progress(seq, made.input_tokens, tokens, 0, 0)
        say("sent", name, made.input_tokens + tokens)
    total = made.input_tokens + tokens
    ended = row(owner, total, shop=shop, request_id=name, holder_id=made.holder_id)
    books.settle(seq, ended, held, total)
    say("settled", name, total)


async def main() -> None:
    url, folder, merchant_id, seed, *owners = sys.argv[1:]
    rng = random.Random(int(seed))
    database = Database(url, size=2)
    await database.open()
    books = make_books(database, SystemClock(), Path(folder), journal_segment_bytes=2**16)
    await books.open()
    shop = Shop(database, merchant_id)

    async def worker() -> None:
        while True:
            await one_call(books, shop, rng.choice(owners), rng)

    say("ready", UNIT_METER.meter_id)
    await asyncio.gather(*(worker() for _ in range(10)))


if __name__ == "__main__":
    asyncio.run(main())
