"""A request by its id, from the start of its call on: in memory, in the books, or told by another
process.

Each look begins in this process's memory, where a call stays until its row is committed; so a call
of this process is at no moment unknown. Of another process's call two things may not be there yet:
what it tells (`books/open_calls.py`), and the row of a call that ended a moment ago. Ids say when
they were made: a young one that nobody knows is looked for again, for as long as that can last.
"""

from __future__ import annotations

import asyncio

from lava_proxy.books.open_calls import TELL_AFTER_S, TELL_S
from lava_proxy.core.errors import unavailable
from lava_proxy.core.ids import made_ms
from lava_proxy.manage.desk import Desk
from lava_proxy.store import requests as store
from lava_proxy.store.requests import RequestRow

YOUNG_S = TELL_AFTER_S + 2 * TELL_S
"""Later, other processes have told."""
PAUSES_S = (0.05, 0.15, 0.4, 0.8, 0.8, 0.8, 0.8)
"""From one look to the next; together a little longer than that."""
WAITING_MOST = 64
"""So many questions wait at once in a process; who asks beyond that is to ask again."""


async def find(desk: Desk, merchant_id: str, request_id: str) -> RequestRow | None:
    """A merchant's request, booked or not; None where there is none. No connection waits."""
    found = await _look(desk, merchant_id, request_id)
    if found is not None or not _young(desk, request_id):
        return found
    if desk.waiting >= WAITING_MOST:
        raise unavailable("too many calls are looked for; try again")
    desk.waiting += 1
    try:
        return await _look_again(desk, merchant_id, request_id)
    finally:
        desk.waiting -= 1


async def runs(desk: Desk, merchant_id: str, request_id: str) -> bool:
    """Whether an id is that of a call that is not booked yet. Only an id of ours can be."""
    open_calls = desk.books.open_calls
    if open_calls.here(merchant_id, request_id) is not None:
        return True
    if made_ms(request_id) is None:
        return False
    async with desk.reading() as conn:
        return await open_calls.elsewhere(conn, merchant_id, request_id) is not None


async def _look_again(desk: Desk, merchant_id: str, request_id: str) -> RequestRow | None:
    for pause_s in PAUSES_S:
        await asyncio.sleep(pause_s)
        found = await _look(desk, merchant_id, request_id)
        if found is not None or not _young(desk, request_id):
            return found
    return None


async def _look(desk: Desk, merchant_id: str, request_id: str) -> RequestRow | None:
    open_calls = desk.books.open_calls
    here = open_calls.here(merchant_id, request_id)
    if here is not None:
        return store.as_open(here)
    async with desk.reading() as conn:
        booked = await store.find(conn, merchant_id, request_id)
        if booked is not None:
            return booked
        elsewhere = await open_calls.elsewhere(conn, merchant_id, request_id)
        if elsewhere is not None:
            return store.as_open(elsewhere)
        return await store.find(conn, merchant_id, request_id)  # booked between the two looks


def _young(desk: Desk, request_id: str) -> bool:
    """Clocks of two machines differ a little, in either direction."""
    at_ms = made_ms(request_id)
    return at_ms is not None and abs(desk.books.now().timestamp() - at_ms / 1000) < YOUNG_S
