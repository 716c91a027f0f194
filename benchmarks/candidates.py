"""Who is measured: nobody in between, nginx, the naive proxy, ours; started and stopped here."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import ours
from benchmarks.measure import Group, group_of

HERE = Path(__file__).parent
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
CHAT_PATH = "/v1/chat/completions"


class UnavailableError(Exception):
    """This candidate cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A running candidate and how to ask it for a chat completion."""

    name: str
    port: int
    path: str = CHAT_PATH
    headers: Mapping[str, str] = field(default_factory=dict)
    pid: int | None = None
    data_dir: Path | None = None

    def group(self) -> Group:
        """Its processes, as of now."""
        return Group((), ()) if self.pid is None else group_of(self.pid, self.data_dir)


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core runs what, so that the proxy has one for itself where there are two."""

    proxy: frozenset[int]
    load: frozenset[int]
    mock: frozenset[int]
    database: frozenset[int]

    @staticmethod
    def choose() -> Cores:
        """One core each; with fewer than four all but the proxy share what there is. A database on
        the proxy's core would empty its caches at every batch, which a real one does not."""
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        places = (usable[min(place, len(usable) - 1)] for place in range(4))
        proxy, load, mock, database = (frozenset((core,)) for core in places)
        return Cores(proxy, load, mock, database)


def pinned(command: list[str], cores: frozenset[int]) -> list[str]:
    """`command` kept on `cores`, where the system can do that; the process id stays the same."""
    if not hasattr(os, "sched_setaffinity"):
        return command
    script = (
        "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(','))); "
        "os.execvp(sys.argv[2], sys.argv[2:])"
    )
    return [sys.executable, "-c", script, ",".join(map(str, sorted(cores))), *command]


def _keep_on(pids: Iterable[int], cores: frozenset[int]) -> None:
    """Keep running processes, and what they start from now on, on `cores`."""
    for pid in pids if hasattr(os, "sched_setaffinity") else ():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(pid, cores)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def process(
    command: list[str], cores: frozenset[int], port: int, env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run `command` on `cores` until the block ends; enters when `port` answers."""

    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            pinned(command, cores),
            env={**os.environ, **(env or {})},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_for(child, port, log.fileno())
            yield child.pid
        finally:
            child.terminate()
            try:
                child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait_for(child: subprocess.Popen[bytes], port: int, log: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    tail = os.pread(log, 4000, max(0, os.fstat(log).st_size - 4000)).decode(errors="replace")
    raise UnavailableError(f"did not start: {tail.strip() or 'no output'}")


@contextlib.contextmanager
def mock(cores: Cores) -> Iterator[Candidate]:
    """The simulated provider, which is the candidate ``direct`` as well."""
    port = free_port()
    command = [sys.executable, "-m", "lava_proxy.net.simulated", "--spread", "--port", str(port)]
    with process(command, cores.mock, port) as pid:
        yield Candidate("direct", port, pid=pid)


@contextlib.contextmanager
def nginx(cores: Cores, upstream_port: int) -> Iterator[Candidate]:
    """nginx, one worker, as an unprivileged server in a folder of its own."""
    binary = shutil.which("nginx")
    if binary is None:
        raise UnavailableError("nginx is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as folder:
        text = string.Template((HERE / "nginx.conf").read_text()).substitute(
            user_line="user root;" if os.geteuid() == 0 else "",
            dir=folder,
            port=port,
            upstream_port=upstream_port,
        )
        config = Path(folder, "nginx.conf")
        config.write_text(text)
        command = [binary, "-p", folder, "-c", str(config), "-e", f"{folder}/error.log"]
        with process(command, cores.proxy, port) as pid:
            yield Candidate("nginx", port, pid=pid)


@contextlib.contextmanager
def naive(cores: Cores, upstream_port: int) -> Iterator[Candidate]:
    """The naive proxy."""
    port = free_port()
    upstream = f"http://127.0.0.1:{upstream_port}"
    command = [sys.executable, "-m", "benchmarks.naive", str(port), upstream]
    with process(command, cores.proxy, port) as pid:
        yield Candidate("naive", port, pid=pid)


@contextlib.contextmanager
def gateway(name: str, cores: Cores, upstream_port: int) -> Iterator[Candidate]:
    """One of `ours.MODULES`, with a merchant, a customer, a meter and credit, on an embedded
    database."""
    if not ours.installed():
        raise UnavailableError("the gateway has no command line yet")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-lava-") as folder:
        upstream = f"http://127.0.0.1:{upstream_port}"
        command, env = ours.ours_command(port, upstream, ours.MODULES[name])
        env = {**env, "LAVA_DATA_DIR": folder}
        with process(command, cores.proxy, port, env) as pid:
            path, headers = ours.seed(port, env)
            candidate = Candidate(name, port, path, headers, pid, Path(folder))
            _keep_on(candidate.group().database, cores.database)
            yield candidate


STARTERS = {
    "nginx": nginx,
    "naive": naive,
    **{name: partial(gateway, name) for name in ours.MODULES},
}
