"""The embedded PostgreSQL is started again when it dies under the processes that use it.

Each of them looks every `LOOK_S` whether the server's first process lives: a file and its entry
among the processes, so nothing that a dead server could keep waiting. Who misses it goes through
the gate (store/embedded.py); the first one in starts it, the others find it running.

A start that fails, and a server that dies young, are followed by a pause that doubles up to
`PAUSE_MOST_S`. A failure is noted beside the data, so that several processes together try no more
often than one. Trying never ends: disks get room again, and files are put back.

A server that hangs is left alone: it may be recovering, and killing it would begin that anew. One
that somebody stopped is started: to keep it down, stop the gateway.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Literal

from lava_proxy.store.embedded import EmbeddedServer, RecentlyFailed

LOOK_S = 0.5
PAUSE_FIRST_S = 1.0
PAUSE_MOST_S = 60.0
YOUNG_S = 10.0
"""A server that lived for so long did not die of how it was started."""

ServerState = Literal["runs", "starting", "broken"]

_log = logging.getLogger(__name__)


class Keeper:
    """One process's watch over the server that it shares."""

    def __init__(
        self,
        server: EmbeddedServer,
        on_state: Callable[[ServerState], None] = lambda state: None,
        on_start: Callable[[bool], None] = lambda worked: None,
    ) -> None:
        """`on_start` is told of each try of this process, and whether it worked."""
        self.state: ServerState = "runs"
        """``broken``: the last try to start it failed."""
        self._server = server
        self._on_state = on_state
        self._on_start = on_start
        self._task: asyncio.Task[None] | None = None
        self._pause_s = 0.0
        self._due_s = 0.0
        self._since_s = time.monotonic() - YOUNG_S

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """End the watch and let go of the server. A start under way is waited for: nobody would
        stop that server later."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._server.release()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if await asyncio.to_thread(lambda: self._server.pid) is not None:
                if self.state != "runs":
                    self._found()
                continue
            if self.state == "runs":
                self._missed()
            if time.monotonic() >= self._due_s:
                await self._try()

    def _missed(self) -> None:
        _log.error("the embedded PostgreSQL is gone: it is started again")
        young = time.monotonic() - self._since_s < YOUNG_S
        self._pause(self._longer() if young else 0)
        self._tell("starting")

    async def _try(self) -> None:
        try:
            if await _to_its_end(self._server.revive(max(self._pause_s, PAUSE_FIRST_S) / 2)):
                self._on_start(True)
            self._found()
        except RecentlyFailed:
            self._failed()
        except Exception as error:
            self._on_start(False)
            self._failed()
            _log.error("the embedded PostgreSQL cannot be started: %s", error)

    def _found(self) -> None:
        self._since_s = time.monotonic()
        _log.warning("the embedded PostgreSQL runs again")
        self._tell("runs")

    def _failed(self) -> None:
        self._pause(self._longer())
        self._tell("broken")

    def _pause(self, pause_s: float) -> None:
        self._pause_s = pause_s
        jittered_s = pause_s * random.uniform(0.5, 1)  # noqa: S311 - jitter
        self._due_s = time.monotonic() + jittered_s

    def _longer(self) -> float:
        return min(max(2 * self._pause_s, PAUSE_FIRST_S), PAUSE_MOST_S)

    def _tell(self, state: ServerState) -> None:
        self.state = state
        self._on_state(state)


async def _to_its_end(going: Coroutine[object, object, bool]) -> bool:
    """Await what must not be left half-way, even when we are cancelled."""
    task = asyncio.create_task(going)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains
        raise
