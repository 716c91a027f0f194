"""Seeing clients leave, whatever we wait for.

A task per call waits for the server's word. It starts after a moment: most of what is quicker than
that is over before a client can leave, and neither a task nor a timer per call is free. So calls
wait in two lists, and one timer for all of them starts the older one.
"""

from __future__ import annotations

import asyncio

from lava_proxy.core.clock import Clock
from lava_proxy.proxy.exchange import State
from lava_proxy.proxy.intake import Receive
from lava_proxy.proxy.run import OpenRuns, Run

WATCH_AFTER_S = 0.02
"""A client that leaves within this time, or twice this, is seen at its end."""


class Watchers:
    """One per process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, runs: OpenRuns, clock: Clock) -> None:
        self.loop = loop
        self.runs = runs
        self.clock = clock
        self._newer: list[Watcher] = []
        self._older: list[Watcher] = []
        self._ticking = False

    def watch(self, run: Run, receive: Receive) -> Watcher:
        """Watch a call's client from soon on, until `Watcher.stop`."""
        watcher = Watcher(self, run, receive)
        self._newer.append(watcher)
        if not self._ticking:
            self._ticking = True
            self.loop.call_later(WATCH_AFTER_S, self._tick)
        return watcher

    def _tick(self) -> None:
        due, self._older, self._newer = self._older, self._newer, []
        for watcher in due:
            watcher.start()
        self._ticking = bool(self._older)
        if self._ticking:
            self.loop.call_later(WATCH_AFTER_S, self._tick)


class Watcher:
    """Watches one call's client."""

    __slots__ = ("_all", "_over", "_receive", "_run", "_task")

    def __init__(self, watchers: Watchers, run: Run, receive: Receive) -> None:
        self._all = watchers
        self._run = run
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def start(self) -> None:
        """Unless it was stopped before."""
        if not self._over:
            self._task = self._all.loop.create_task(self._watch())

    def follow(self, run: Run) -> None:
        """The same client waits for another attempt."""
        self._run = run

    def stop(self) -> None:
        """The call is over."""
        self._over = True
        task, self._task = self._task, None  # its traceback points at us: no circle
        if task is not None:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                run = self._run
                on = self._all.runs.left(run, self._all.clock.boot_s())
                if not on and run.exchange.state is not State.CLOSED:
                    run.cancel("gone")
                return
