"""User-space instructions per request, which no busy machine changes: ``python -m
benchmarks.instructions``.

Each candidate runs under valgrind's callgrind, some thirty times slower, and is asked one request
after the other; what it does without requests in the same time is taken off. Two runs differ by
less than a hundredth. What the kernel does for a request is not in it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks import ours
from benchmarks.candidates import Candidate, Cores, free_port, mock, process
from benchmarks.workloads import WORKLOADS

ANSWER_TIMEOUT_S = 300.0
REQUESTS = 1000
STREAMS = 20
WARM = 5
"""One in so many comes before, uncounted."""
SETTLE_S = 2.0
PATIENCE = {"LAVA_DATABASE_TIMEOUT_S": "60", "LAVA_DATABASE_WAIT_S": "30"}
"""The gateway is as slow as its database is quick for it."""
BATCHES = {"LAVA_WRITER_INTERVAL_MS": "800"}
"""So that a batch of the ledger has some eighty rows, not ten. At full pace it has more; but a call
that waits for a second would be told to other workers, which costs what none does at full pace."""


@contextlib.contextmanager
def counted(
    name: str, command: list[str], port: int, env: Mapping[str, str], folder: Path
) -> Iterator[Candidate]:
    """`command` under callgrind, not counting yet."""
    valgrind = [
        "valgrind",
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--callgrind-out-file={folder}/calls",
    ]
    with process([*valgrind, *command], Cores.choose().proxy, port, env) as pid:
        yield Candidate(name, port, pid=pid, data_dir=folder)


@contextlib.contextmanager
def naive(upstream_port: int, folder: Path) -> Iterator[Candidate]:
    """The naive proxy."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.naive", str(port)]
    command.append(f"http://127.0.0.1:{upstream_port}")
    with counted("naive", command, port, {}, folder) as candidate:
        yield candidate


@contextlib.contextmanager
def gateway(name: str, upstream_port: int, folder: Path) -> Iterator[Candidate]:
    """One of `ours.MODULES`, seeded as for the other benchmarks."""
    port = free_port()
    upstream = f"http://127.0.0.1:{upstream_port}"
    command, env = ours.ours_command(port, upstream, ours.MODULES[name])
    env |= {"LAVA_DATA_DIR": str(folder / "data"), **PATIENCE, **BATCHES}
    with counted(name, command, port, env, folder) as candidate:
        path, headers = ours.seed(port, env)
        yield Candidate(name, port, path, headers, candidate.pid, folder)


STARTERS = {"naive": naive, **{name: partial(gateway, name) for name in ours.MODULES}}


def per_request(candidate: Candidate, workload: str, requests: int) -> float:
    """Instructions that one request costs."""
    body = str(WORKLOADS[workload].job(1.0, 1.0)["body"])
    _ask(candidate, body, max(1, requests // WARM))
    time.sleep(SETTLE_S)
    _control(candidate, "-i", "on")
    began_s = time.monotonic()
    _ask(candidate, body, requests)
    time.sleep(SETTLE_S)  # until the last row is written
    took_s = time.monotonic() - began_s
    busy = _dumped(candidate, 1)
    time.sleep(took_s)
    return (busy - _dumped(candidate, 2)) / requests


def _ask(candidate: Candidate, body: str, times: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", candidate.port, timeout=ANSWER_TIMEOUT_S)
    headers = {**candidate.headers, "content-type": "application/json"}
    headers.setdefault("authorization", "Bearer sk-benchmark")
    for _ in range(times):
        connection.request("POST", candidate.path, body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{candidate.name}: {answer.status} {said.decode()[:200]}")
    connection.close()


def _control(candidate: Candidate, *words: str) -> None:
    command = ["callgrind_control", *words, str(candidate.pid)]
    subprocess.run(command, check=True, capture_output=True)


def _dumped(candidate: Candidate, number: int) -> int:
    """Instructions since counting began, or since the dump before."""
    _control(candidate, "-d")
    text = (candidate.data_dir or Path()).joinpath(f"calls.{number}").read_text()
    found = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if found is None:
        raise RuntimeError("callgrind wrote no total")
    return int(found[1])


def main() -> int:
    """Print a table. Status 1 where valgrind is not installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(STARTERS), default=list(STARTERS))
    parser.add_argument("--workloads", nargs="+", choices=("n1k", "paced"), default=["n1k"])
    parser.add_argument("--times", type=int, default=1, help="runs of each; the median is shown")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed")
        return 1
    print("| workload | candidate | thousand instructions per request |\n|---|---|---|")
    for workload in options.workloads:
        for name in options.only:
            counts = [_once(name, workload) for _ in range(options.times)]
            print(f"| {workload} | {name} | {statistics.median(counts) / 1000:.0f} |", flush=True)
    return 0


def _once(name: str, workload: str) -> float:
    requests = STREAMS if WORKLOADS[workload].stream else REQUESTS
    with (
        tempfile.TemporaryDirectory(prefix="bench-calls-") as folder,
        mock(Cores.choose()) as upstream,
        STARTERS[name](upstream.port, Path(folder)) as candidate,
    ):
        return per_request(candidate, workload, requests)


if __name__ == "__main__":
    sys.exit(main())
