"""The supervisor of several workers: starts, watches, replaces and drains them.

Each worker is a fresh interpreter (never a fork: threads and event loops do not survive one) in a
*place*, which has a listening socket of its own. The supervisor keeps every place's socket open, so
what arrives while a worker is replaced waits in the kernel and is not refused.

    a worker died          its place gets a new one at once; where workers die young, after a
                           growing pause, and then the place is closed: the others take over
    a worker is silent     (something keeps its Python from running, its own watchdog too) for
                           `LAVA_LOOP_STALL_MAX_S`: it is killed, as if it had died
    a worker drains alone  (somebody sent it SIGTERM) a replacement starts beside it
    SIGHUP                 rolling restart: place by place a replacement starts, and when it is
                           ready the old worker drains
    SIGTERM, SIGINT        all drain; again: what runs is cancelled and booked; again: killed
    no worker ever got ready and one ended: everything ends, with that worker's status

The figures of all workers are in files in a folder fresh for each run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

from lava_proxy.cli.handover import BEAT_S, DRAIN, HURRY, Order
from lava_proxy.cli.listener import listen, port_of, private_metrics, url_of
from lava_proxy.cli.places import Place, Worker
from lava_proxy.cli.runfolder import RunFolder
from lava_proxy.core.settings import ConfigurationError
from lava_proxy.telemetry.exposition import render_workers
from lava_proxy.telemetry.metrics import WORKERS_FOLDER, worker_ended

TICK_S = 0.05
MARGIN_S = 20.0
"""Beside the drain a worker may take so long: for connections that are not used any more (cli/
server.py), and to close its books."""
HURRY_S = 5.0
"""The same when somebody is impatient."""
KILLED_STATUS = 1


class Supervisor:
    """Keeps the workers that `order.settings` asks for alive."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._places: list[Place] = []
        self._leaving: list[Worker] = []
        self._rolling: list[Place] = []
        self._signals = 0
        self._roll_asked = False
        self._proved = False
        self._announced = False
        self._failed: int | None = None

    def run(self) -> int:
        """Start, watch, stop; 0 after a clean drain."""
        settings = self._order.settings
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_roll)
        alone = listen(settings.host, settings.port)  # refuses a port that others share
        port = port_of(alone)
        alone.close()
        self._url = url_of(settings.host, port)
        with RunFolder(settings.data_dir) as folder:
            self._folder = folder
            self._environ = {**os.environ, WORKERS_FOLDER: str(folder)}
            stop_metrics = None
            if settings.metrics_port is not None:
                stop_metrics = private_metrics(
                    settings.metrics_host, settings.metrics_port, lambda: render_workers(folder)
                )
            try:
                self._places = [Place(settings.host, port) for _ in range(settings.workers)]
                while not self._signals and self._failed is None:
                    self._tick()
                    time.sleep(TICK_S)
                return self._stop()
            finally:
                for worker in self._alive():
                    worker.kill()
                if stop_metrics is not None:
                    stop_metrics()

    def _tick(self) -> None:
        for worker in list(self._leaving):
            if worker.status is not None:
                self._leaving.remove(worker)
                self._bury(worker)
        for place in self._places:
            self._look_at(place)
        if self._roll_asked:
            self._roll_asked = False
            self._rolling = list(self._places)
        if self._rolling:
            self._roll(self._rolling[0])
        if not self._announced and all(p.worker and p.worker.ready for p in self._places):
            self._announced = True
            print(f"lava-proxy serves on {self._url} with {len(self._places)} workers", flush=True)

    def _look_at(self, place: Place) -> None:
        worker = place.worker
        if worker is None:
            if time.monotonic() >= place.due_s:
                self._fill(place)
            return
        worker.look()
        self._proved = self._proved or worker.ready
        if worker.status is not None:
            self._lost(place, worker, worker.status)
        elif self._hangs(worker):
            _say(
                f"worker {worker.process.pid} hangs and is killed; its journal keeps what was open"
            )
            worker.process.kill()
            worker.silent_looks = 0
        elif worker.draining:
            self._leaving.append(worker)
            self._fill(place)

    def _hangs(self, worker: Worker) -> bool:
        """Judged by our own rounds: when the machine sleeps, so do we."""
        settings = self._order.settings
        most_s = settings.loop_stall_max_s if settings.loop_stall_s else 0.0
        silent_s = worker.silent_looks * TICK_S
        return worker.ready and most_s > 0 and silent_s > most_s + BEAT_S

    def _fill(self, place: Place) -> None:
        place.worker = None
        try:
            place.worker = place.start(self._order, self._environ)
        except (ConfigurationError, OSError) as error:
            _say(f"a worker cannot be started: {error}")
            place.lost(0.0)

    def _lost(self, place: Place, worker: Worker, status: int) -> None:
        _say(f"worker {worker.process.pid} ended with status {status}")
        self._bury(worker)
        if not self._proved:
            self._failed = status or KILLED_STATUS
            return
        place.lost(time.monotonic() - worker.started_s)

    def _roll(self, place: Place) -> None:
        """Replace the worker of the place whose turn it is."""
        if place.worker is None:  # a fresh one is coming anyway
            self._rolling.remove(place)
            return
        if place.successor is None:
            place.successor = place.start(self._order, self._environ)
        successor = place.successor
        successor.look()
        if successor.status is not None:
            _say(f"a replacement ended with status {successor.status}: the others stay as they are")
            self._bury(successor)
            place.successor = None
            self._rolling.clear()
        elif successor.ready:
            place.worker.tell(DRAIN)
            self._leaving.append(place.worker)
            place.worker, place.successor = successor, None
            self._rolling.remove(place)

    def _stop(self) -> int:
        """Ask all to drain, wait, and kill who does not: the journal keeps their calls."""
        workers = self._alive()
        for place in self._places:
            place.close()
        for worker in workers:
            worker.tell(DRAIN)
        deadline_s = time.monotonic() + self._order.settings.drain_timeout_s + MARGIN_S
        seen, hurried = self._signals, False
        while self._alive() and time.monotonic() < deadline_s:
            time.sleep(TICK_S)
            if self._signals <= seen:
                continue
            if hurried:
                break
            seen, hurried = self._signals, True
            deadline_s = min(deadline_s, time.monotonic() + HURRY_S)
            for worker in self._alive():
                worker.tell(HURRY)
        for worker in self._alive():
            _say(f"worker {worker.process.pid} is killed; its journal keeps what was open")
            worker.kill()
        if self._failed is not None:
            return self._failed
        return KILLED_STATUS if any(worker.status for worker in workers) else 0

    def _alive(self) -> list[Worker]:
        filled = [w for place in self._places for w in (place.worker, place.successor) if w]
        return [w for w in (*filled, *self._leaving) if w.status is None]

    def _bury(self, worker: Worker) -> None:
        worker.forget()
        worker_ended(worker.process.pid, self._folder)

    def _on_stop(self, _sig: int, _frame: FrameType | None) -> None:
        self._signals += 1

    def _on_roll(self, _sig: int, _frame: FrameType | None) -> None:
        self._roll_asked = True


def _say(what: str) -> None:
    print(f"lava-proxy: {what}", file=sys.stderr, flush=True)
