"""Whether PostgreSQL is away: one judge per process, so that nobody else has to find out.

Whoever meets a fault that may mean so, or waits for longer than `LATE_S`, makes us *suspect*; then
one prober asks on a connection of its own, with full jitter. Nothing has worked for `AWAY_AFTER_S`
and the prober failed too: it is *away*, and every other use of the database fails at once instead
of each waiting for its own deadline (a server that hangs refuses nobody). The first answer to the
prober ends it; whoever is not urgent waits for that (`answering`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from lava_proxy.store.faults import StoreError

log = logging.getLogger(__name__)

AWAY_AFTER_S = 1.0
LATE_S = 1.0
"""A use of a connection that takes longer than this is suspicious."""
PROBE_FIRST_S = 0.05
PROBE_MOST_S = 1.0
"""Longest pause between two probes: how soon service resumes hangs on it."""
ANSWER_FIRST_S = 1.0
ANSWER_MOST_S = 5.0
"""How long a probe may take. It grows: a server that is merely slow is not away."""


class Outage:
    """What this process believes of its database. Without `watch`, never away."""

    def __init__(self) -> None:
        self.away = False
        self._since_s: float | None = None
        self._worked_s = time.monotonic()
        self._suspected = asyncio.Event()
        self._answering = asyncio.Event()
        self._answering.set()

    def worked(self) -> None:
        """The database answered."""
        self._worked_s = time.monotonic()
        if self._since_s is not None:
            self._end()

    def suspect(self, since_s: float, why: object) -> None:
        """Something that was asked at `since_s` (`time.monotonic`) failed, or is late."""
        if since_s < self._worked_s:
            return
        if self._since_s is None:
            log.info("PostgreSQL may be away: %s", why)
            self._since_s = since_s
        self._suspected.set()

    async def answering(self) -> None:
        """Wait until the database is not away."""
        await self._answering.wait()

    async def watch(self, probe: Callable[[float], Awaitable[None]]) -> None:
        """Probe whenever there is a suspicion; `probe` takes its deadline in seconds."""
        while True:
            await self._suspected.wait()
            pause_s, deadline_s = PROBE_FIRST_S, ANSWER_FIRST_S
            while self._suspected.is_set():
                try:
                    await probe(deadline_s)
                except StoreError as error:
                    self._probe_failed(error)
                else:
                    self.worked()
                    break
                await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - jitter
                pause_s = min(2 * pause_s, PROBE_MOST_S)
                deadline_s = min(2 * deadline_s, ANSWER_MOST_S)

    def _probe_failed(self, error: StoreError) -> None:
        if self._since_s is None:  # something else worked meanwhile
            return
        if not self.away and time.monotonic() - self._since_s > AWAY_AFTER_S:
            self.away = True
            self._answering.clear()
            log.warning("PostgreSQL is away: %s", error)

    def _end(self) -> None:
        since_s, self._since_s = self._since_s, None
        self._suspected.clear()
        if self.away and since_s is not None:
            self.away = False
            self._answering.set()
            log.warning("PostgreSQL is back after %.1f s", time.monotonic() - since_s)
