"""A process that ends at a named point: ``crash_points.py POINT SIDE COUNT call|replay ...``.

The function that the point names is wrapped here, in the child, so the product has no hooks. At its
COUNT-th call the process is gone, before or after it, without a word to anybody.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import crashing

from lava_proxy.books.replay import take_over
from lava_proxy.core.clock import SystemClock
from lava_proxy.rules.pricebook import PriceBook
from lava_proxy.store.database import Database

GONE = 77


def wrapped(whole: Callable[..., Any], side: str, count: int) -> Callable[..., Any]:
    """`whole`, deadly at its `count`-th call."""
    calls = 0

    def met(here: str) -> None:
        nonlocal calls
        calls += here == side  # of calls that overlap, the one that gets there
        if calls == count:
            os._exit(GONE)

    if inspect.iscoroutinefunction(whole):

        @functools.wraps(whole)
        async def later(*args: Any, **more: Any) -> Any:
            met("before")
            made = await whole(*args, **more)
            met("after")
            return made

        return later

    @functools.wraps(whole)
    def now(*args: Any, **more: Any) -> Any:
        met("before")
        made = whole(*args, **more)
        met("after")
        return made

    return now


def plant(point: str, side: str, count: int) -> None:
    """`point` is ``module:name`` or ``module:Class.name``."""
    module, _, path = point.partition(":")
    place: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        place = getattr(place, part)
    setattr(place, name, wrapped(getattr(place, name), side, count))


async def replay_them(url: str, folder: str) -> None:
    """What a start does with the journals of the dead."""
    database = Database(url, size=2)
    await database.open()
    await take_over(Path(folder) / "journals", database, SystemClock(), PriceBook())
    await database.close()


if __name__ == "__main__":
    point, side, count, what = sys.argv[1:5]
    plant(point, side, int(count))
    if what == "replay":
        asyncio.run(replay_them(*sys.argv[5:7]))
    else:
        sys.argv[1:] = sys.argv[5:]
        asyncio.run(crashing.main())
