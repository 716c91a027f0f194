"""Time, passed in and never imported: real clocks here, a hand-driven one for tests; and as text.

``boot_s`` is CLOCK_BOOTTIME: it goes on while the machine sleeps, so a lease that expired during a
suspend is expired when we wake. ``now`` is wall time, only ever written down, never compared with
another machine's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)
_boot_s = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)


class Clock(Protocol):
    """What the house asks of time."""

    def boot_s(self) -> float: ...

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clocks."""

    # Asked a dozen times per call: no Python frame in between.
    boot_s = staticmethod(_boot_s)
    now = staticmethod(partial(datetime.now, UTC))


@dataclass(slots=True)
class ManualClock:
    """A clock that moves when told to."""

    seconds: float = 1000.0
    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def boot_s(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds - 1000.0)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


def time_text(at: datetime) -> str:
    """``2026-11-23T19:43:08.123Z``."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
