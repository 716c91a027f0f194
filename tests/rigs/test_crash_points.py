"""A crash before and after every named step of the books: what was sent is booked once.

The process dies by `os._exit` at the point; what it said of its calls is the truth. Then the
journal is taken over, twice: the second time there is nothing left to do.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import pytest
from books_kit import UNIT_METER, insert_meter, open_shop, sound
from crash_points import GONE
from rig_kit import LONG
from test_crash import Truth, books_are_right

from lava_proxy.books.replay import take_over
from lava_proxy.core.clock import SystemClock
from lava_proxy.rules.pricebook import PriceBook
from lava_proxy.store.database import Database

CHILD = Path(__file__).with_name("crash_points.py")
CREDIT_E10 = 60_000
SEED = 20261127
BOOKS = "lava_proxy.books"
CALLS = {
    f"{BOOKS}.journal:Journal.hold": 20,
    f"{BOOKS}.journal:Journal.sent": 20,
    f"{BOOKS}.journal:Journal.progress": 20,
    f"{BOOKS}.journal:Journal.settle": 20,
    f"{BOOKS}.journal:Journal.committed": 20,
    f"{BOOKS}.journal:Journal._rotate": 2,
    f"{BOOKS}.account:Hold.release": 20,
    f"{BOOKS}.leases:Leases.try_hold": 20,
    f"{BOOKS}.bank:Books.admit": 20,
    f"{BOOKS}.bank:Books.settle": 20,
    f"{BOOKS}.bank:Books._booked": 20,
    f"{BOOKS}.bank:Books._lease_trip": 2,
    f"{BOOKS}.writer:Writer._write": 5,
    f"{BOOKS}.writer:settle": 5,
    "lava_proxy.store.credit:lease": 2,
}
"""Point -> at which of its first calls the process may die."""
REPLAY = {
    f"{BOOKS}.replay:replay_folder": 1,
    f"{BOOKS}.replay:settle": 1,
    f"{BOOKS}.replay:remove_folder": 1,
    "lava_proxy.store.credit:close_holder": 1,
}
RUNS = [(point, side) for point in CALLS for side in ("before", "after")]
REPLAYS = [(point, side) for point in REPLAY for side in ("before", "after")]
if not LONG:
    RUNS = random.Random(SEED).sample(RUNS, 6)
    REPLAYS = random.Random(SEED).sample(REPLAYS, 3)


async def _child(truth: Truth | None, *arguments: object) -> int:
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert child.stdout is not None
    try:
        async with asyncio.timeout(20):
            async for line in child.stdout:
                if truth is not None and line.endswith(b"\n") and not line.startswith(b"ready"):
                    truth.hear(line)
            return await child.wait()
    finally:
        if child.returncode is None:  # it never came to the point
            child.kill()
            await child.wait()


async def _run(
    database: Database, url: str, folder: Path, point: str, side: str, count: int, then: list[str]
) -> None:
    shop = await open_shop(database)
    await insert_meter(database, shop, UNIT_METER)
    owners = [await shop.customer(CREDIT_E10) for _ in range(3)]
    truth = Truth()
    arguments = (url, folder, shop.merchant_id, SEED, *owners)
    assert await _child(truth, point, side, count, "call", *arguments) == GONE
    if then:
        assert await _child(None, *then, 1, "replay", url, folder) == GONE
    clock, prices = SystemClock(), PriceBook()
    await take_over(folder / "journals", database, clock, prices)
    assert await take_over(folder / "journals", database, clock, prices) == []
    assert (await sound(database)).leased_e10 == 0
    await books_are_right(database, shop, truth, owners, CREDIT_E10)


@pytest.mark.parametrize(("point", "side"), RUNS)
async def test_a_crash_at(
    database: Database, database_url: str, tmp_path: Path, point: str, side: str
) -> None:
    count = random.Random(f"{SEED} {point} {side}").randint(1, CALLS[point])
    count = 2 if point.endswith("_rotate") else count  # the first makes the first segment
    await _run(database, database_url, tmp_path, point, side, count, [])


@pytest.mark.parametrize(("point", "side"), REPLAYS)
async def test_a_crash_of_the_replay_at(
    database: Database, database_url: str, tmp_path: Path, point: str, side: str
) -> None:
    first = f"{BOOKS}.journal:Journal.progress"
    await _run(database, database_url, tmp_path, first, "after", 30, [point, side])
