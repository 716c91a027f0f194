"""A worker process, and the place that it fills, as the supervisor sees them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Mapping

import psutil

from lava_proxy.cli.handover import DRAINING, READY, Order, hear, send_order, tell
from lava_proxy.cli.listener import listen

STEADY_S = 30.0
"""A worker that lived so long did not die of its start."""
PAUSE_FIRST_S = 0.5
PAUSE_MOST_S = 30.0
QUIET_LOOKS = 40
"""After so many looks at a worker that says nothing, each time whether somebody stopped it."""
KEEP_OPEN_S = 1.0
"""Before a longer pause than this the place is closed, so that nobody waits there."""


class Worker:
    """A child process and our end of the socket pair."""

    def __init__(self, order: Order, listener: socket.socket, environ: Mapping[str, str]) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            numbers = (theirs.fileno(), listener.fileno())
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, "-P", "-m", "lava_proxy.cli.worker", *map(str, numbers)],
                env=environ,
                stdin=subprocess.DEVNULL,
                pass_fds=numbers,
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor alone
            )
        self.started_s = time.monotonic()
        self.ready = False
        self.draining = False
        self.silent_looks = 0
        """Since it last said anything, while it was free to run."""
        try:
            send_order(self._channel, order)
        except OSError:  # it died at once: `status` will say so
            return

    @property
    def status(self) -> int | None:
        """How it ended; None while it lives."""
        return self.process.poll()

    def look(self) -> None:
        """Read what it said."""
        words = hear(self._channel) or b""
        self.silent_looks = 0 if words else self.silent_looks + 1
        if self.silent_looks > QUIET_LOOKS and _stopped(self.process.pid):
            self.silent_looks = 0
        self.ready = self.ready or READY in words
        self.draining = self.draining or DRAINING in words

    def tell(self, word: bytes) -> None:
        tell(self._channel, word)

    def kill(self) -> None:
        """End it as it is: its journal keeps what is open."""
        self.process.kill()
        self.process.wait()

    def forget(self) -> None:
        self._channel.close()


def _stopped(pid: int) -> bool:
    """Whether somebody stopped the process (SIGSTOP, a debugger): then silence is no fault."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return False


class Place:
    """Room for one worker: a listening socket, whoever fills it, and who is about to."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._listener: socket.socket | None = listen(host, port, shared=True)
        self._pause_s = 0.0
        self.due_s = 0.0
        """When an empty place may be filled."""
        self.worker: Worker | None = None
        self.successor: Worker | None = None

    def start(self, order: Order, environ: Mapping[str, str]) -> Worker:
        """A fresh worker on this place's socket, which is opened where it was closed."""
        if self._listener is None:
            self._listener = listen(self._host, self._port, shared=True)
        return Worker(order, self._listener, environ)

    def lost(self, lived_s: float) -> None:
        """Its worker died after so long: set when the next one may start."""
        if lived_s >= STEADY_S:
            self._pause_s = 0.0
        else:
            self._pause_s = min(max(2 * self._pause_s, PAUSE_FIRST_S), PAUSE_MOST_S)
        self.worker = None
        self.due_s = time.monotonic() + self._pause_s
        if self._pause_s > KEEP_OPEN_S:
            self.close()

    def close(self) -> None:
        """Take no more connections here (a worker has its own copy of the socket)."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
