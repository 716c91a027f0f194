"""Time that moves only when nobody has anything to do, and clocks that disagree a little."""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 27, tzinfo=UTC)


class _NoSockets(selectors.SelectSelector):
    """Waiting costs no time: the loop's clock jumps to the next timer."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits for ever")
        self.loop.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop without sockets. The order of its callbacks is a function of the seed alone."""

    def __init__(self) -> None:
        self.now_s = 0.0
        selector = _NoSockets()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        return self.now_s


@dataclass(slots=True)
class DriftingClock:
    """A worker's own clock: `rate` is how fast it runs. Satisfies core.clock.Clock."""

    loop: VirtualLoop
    rate: float = 1.0

    def boot_s(self) -> float:
        return 1000.0 + self.loop.now_s * self.rate

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.now_s)
