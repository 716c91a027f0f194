"""Notices that the event loop does not turn, from a thread of its own.

What blocks the loop (a slow system call, an endless computation, a lock) stops every stream of the
process at once, and nothing on the loop can tell. So a thread asks it for a sign of life, a few
times per `stall_s`, and counts how often in a row there was none:

    stall_s     logged once with the loop's stack, counted, shown by a gauge, which others can read
                (the private listener answers from a thread, or from the supervisor)
    end_s       `on_hung`: under ``serve`` the process ends as it is, is replaced, and its journal
                is booked. Without `on_hung` nothing more: a host app's process is not ours to end

Our own rounds are counted and not time: of a process that was stopped, or of a machine that slept,
this thread stood still too. A debugger that has the loop's thread is no fault. Code that keeps the
GIL for itself keeps us waiting as well; that is the supervisor's to notice.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lava_proxy.core.settings import Settings
from lava_proxy.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

LOOKS_PER_STALL = 5
LOG_WAIT_S = 1.0
"""Whoever has the log's lock may be what the loop waits for."""
DEBUGGERS = frozenset({"bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy"})
_STATUS = Path("/proc/self/status")

OnHung = Callable[[], object]


@contextmanager
def watching(settings: Settings, metrics: Metrics, on_hung: OnHung | None) -> Iterator[None]:
    """Watch the running loop as the settings say."""
    if not settings.loop_stall_s:
        yield
        return
    watchdog = Watchdog(
        metrics, stall_s=settings.loop_stall_s, end_s=settings.loop_stall_max_s, on_hung=on_hung
    )
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()


class Watchdog:
    """Watches one loop. `start` it on that loop."""

    def __init__(
        self, metrics: Metrics, *, stall_s: float, end_s: float, on_hung: OnHung | None
    ) -> None:
        """`end_s` 0: never. `on_hung` is called in our thread, and is not expected to return."""
        self._metrics = metrics
        self._pause_s = stall_s / LOOKS_PER_STALL
        self._end_s = end_s
        self._on_hung = on_hung
        self._missed = 0
        self._stalled = False
        self._answered = True
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch the running loop, whose thread is this one."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        threading.Thread(target=self._watch, name="loop watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        try:
            while not self._stopped.wait(self._pause_s):
                self._look()
        except RuntimeError:  # the loop was closed
            return

    def _look(self) -> None:
        if self._answered:
            self._turned()
            self._answered = False
            self._loop.call_soon_threadsafe(self._answer)
            return
        frame = sys._current_frames().get(self._thread_id)
        if frame is None or _debugged(frame):
            return
        self._missed += 1
        if self._missed == LOOKS_PER_STALL:
            self._stands(frame)
        if self._end_s and self._missed * self._pause_s >= self._end_s and self._stalled:
            self._hung()

    def _answer(self) -> None:
        """On the loop."""
        self._answered = True

    def _turned(self) -> None:
        if self._stalled:
            self._stalled = False
            self._metrics.loop_stalled(False)
            _say(logging.WARNING, f"the event loop turns again after {self._missed_s()}")
        self._missed = 0

    def _stands(self, frame: FrameType) -> None:
        self._stalled = True
        self._metrics.loop_stalled(True)
        stack = "".join(traceback.format_stack(frame))
        _say(logging.ERROR, f"the event loop has not turned for {self._missed_s()}: {stack}")

    def _hung(self) -> None:
        if self._on_hung is not None:
            what = "this process ends, its journal keeps what was open"
            _say(logging.CRITICAL, f"the event loop hangs for {self._missed_s()}: {what}")
            self._on_hung()

    def _missed_s(self) -> str:
        return f"{self._missed * self._pause_s:.1f} s"


def _debugged(frame: FrameType | None) -> bool:
    """Whether a debugger is why the thread of `frame` stands: one in it, or one that traces us."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in DEBUGGERS:
            return True
        frame = frame.f_back
    try:
        status = _STATUS.read_text()
    except OSError:  # not Linux
        return False
    return "\nTracerPid:\t0\n" not in status


def _say(level: int, what: str) -> None:
    """Log without waiting for ever."""
    saying = threading.Thread(target=log.log, args=(level, "%s", what), daemon=True)
    saying.start()
    saying.join(LOG_WAIT_S)
