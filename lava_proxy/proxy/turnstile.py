"""Who starts when: running streams go before calls that begin.

A call costs a third of a millisecond before its provider is asked. When two hundred arrive at once
they would all run in one turn of the event loop, and every stream would stand still for as long. So
a turn lets a few calls in, the next turn the next few, and pieces that arrived meanwhile are sent
on between them. In a loop that is busy with streams turns are long; then a turn lets in more, in
proportion, so that calls cannot be starved either.
"""

from __future__ import annotations

import asyncio
from collections import deque

STARTS_PER_S = 1000
"""Calls let in per second of the last turn."""
STARTS_LEAST = 3
"""Calls let in by any turn: one alone would pay for a turn of its own."""


class Turnstile:
    """One per process."""

    __slots__ = ("_free", "_loop", "_turned_s", "_turning", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._free = STARTS_LEAST
        self._turning = False
        self._turned_s = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Go on when it is our turn: at once, unless others began in this turn."""
        if not self._turning:
            self._turning = True
            self._turned_s = self._loop.time()
            self._loop.call_soon(self._turn)
        if self._free and not self._waiting:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _turn(self) -> None:
        now_s = self._loop.time()
        free = max(STARTS_LEAST, int((now_s - self._turned_s) * STARTS_PER_S))
        self._turned_s = now_s
        waiting = self._waiting
        while free and waiting:
            waiter = waiting.popleft()
            if not waiter.done():  # its client left
                waiter.set_result(None)
                free -= 1
        self._free = free
        self._turning = bool(waiting) or not free
        if self._turning:
            self._loop.call_soon(self._turn)
