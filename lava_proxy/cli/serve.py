"""``lava-proxy serve``: one process, or a supervisor over several.

Each worker is a fresh interpreter with its own listening socket on the same port (SO_REUSEPORT), so
the kernel spreads connections and nothing is shared but PostgreSQL. The supervisor restarts a
worker that died, hands signals on, waits for the drain, and serves the private metrics of all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from lava_proxy.core.settings import ConfigurationError, Settings, known_names, unknown_names

RESTART_FIRST_S = 0.5
RESTART_MOST_S = 30.0
STEADY_S = 30.0
"""A worker that lived so long did not die of its start."""
MARGIN_S = 10.0
"""After the drain a worker may take so long to close its books."""
CONFIGURATION_STATUS = 2


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean drain."""
    complaints = unknown_names(os.environ)
    if complaints:
        known = ", ".join(known_names())
        raise ConfigurationError(f"{'; '.join(complaints)}. Known settings: {known}")
    if settings.workers == 1:
        from lava_proxy.cli.worker import run_worker

        return run_worker(settings, shared=False)
    if settings.port == 0:
        raise ConfigurationError("several workers need a port of their own: set LAVA_PORT")
    return Supervisor(settings).run()


class Supervisor:
    """Keeps N workers alive."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: dict[int, subprocess.Popen[bytes]] = {}
        self._started_s: dict[int, float] = {}
        self._delay_s = RESTART_FIRST_S
        self._stopping = 0
        self._status = 0
        run_dir = Path(settings.data_dir).absolute() / "metrics" / str(os.getpid())
        shutil.rmtree(run_dir.parent, ignore_errors=True)
        run_dir.mkdir(parents=True)
        self._env = {
            **os.environ,
            "LAVA_HOST": settings.host,
            "LAVA_PORT": str(settings.port),
            "LAVA_DATA_DIR": str(settings.data_dir),
            "PROMETHEUS_MULTIPROC_DIR": str(run_dir),
        }
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(run_dir)

    def run(self) -> int:
        """Start, watch, stop."""
        from lava_proxy.cli.worker import check_server
        from lava_proxy.telemetry.exposition import serve_private

        check_server()
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        stop_metrics = None
        if self._settings.metrics_port is not None:
            _, stop_metrics = serve_private(
                self._settings.metrics_host, self._settings.metrics_port, None
            )
        for number in range(self._settings.workers):
            self._start(number)
        print(
            f"lava-proxy serves on http://{self._settings.host}:{self._settings.port} "
            f"with {self._settings.workers} workers",
            flush=True,
        )
        try:
            while not self._stopping and self._workers:
                time.sleep(0.1)
                self._look()
            self._drain()
        finally:
            if stop_metrics is not None:
                stop_metrics()
        return self._status

    def _start(self, number: int) -> None:
        command = [sys.executable, "-m", "lava_proxy.cli.worker"]
        self._workers[number] = subprocess.Popen(command, env=self._env)
        self._started_s[number] = time.monotonic()

    def _look(self) -> None:
        """Restart whoever died; a configuration error stops everything."""
        from lava_proxy.telemetry.metrics import worker_ended

        for number, worker in list(self._workers.items()):
            status = worker.poll()
            if status is None:
                continue
            worker_ended(worker.pid)
            if status == CONFIGURATION_STATUS:
                self._status = status
                self._stopping = 1
                return
            if time.monotonic() - self._started_s[number] > STEADY_S:
                self._delay_s = RESTART_FIRST_S
            print(f"lava-proxy: worker {worker.pid} ended with {status}", file=sys.stderr)
            time.sleep(self._delay_s)
            self._delay_s = min(2 * self._delay_s, RESTART_MOST_S)
            if not self._stopping:
                self._start(number)

    def _drain(self) -> None:
        """Ask all to stop, wait, and kill who does not: the journal keeps their calls."""
        self._tell(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.drain_timeout_s + MARGIN_S
        told = self._stopping
        for worker in self._workers.values():
            while worker.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
                if self._stopping > told:  # a second signal: no more waiting for streams
                    told = self._stopping
                    self._tell(signal.SIGTERM)
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            if worker.returncode and not self._status:
                self._status = 1

    def _tell(self, sig: int) -> None:
        for worker in self._workers.values():
            if worker.poll() is None:
                worker.send_signal(sig)

    def _on_signal(self, _sig: int, _frame: FrameType | None) -> None:
        self._stopping += 1
