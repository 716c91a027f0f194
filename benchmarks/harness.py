"""One run: in each round all candidates are started together and measured in turn, the order
reversed from round to round; medians. A round has processes of its own, because one can be a fifth
quicker or slower than another of the same code for as long as it lives (probably by where it lies
in memory).

The load generator says when its measured time begins and ends; the CPU of the candidate, of its
database and of the mock is read at these two moments. Medians over rounds are taken per figure.
Memory per idle stream comes first and once: in a process that has served 200 streams before, the
allocator would hand out what it already has, and streams would seem to be free.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.candidates import STARTERS, Candidate, Cores, UnavailableError, mock, pinned
from benchmarks.measure import usage_of
from benchmarks.workloads import WORKLOADS, Workload

Row = dict[str, Any]
Say = Callable[[str], None]
SETTLE_S = 0.3
"""Between two measurements, so that one's end is not in the other's beginning."""

IDLE_S = 1.0
"""How long streams are held before memory is read."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    candidates: tuple[str, ...] = tuple(STARTERS)
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    rounds: int = 3
    measure_s: float = 2.0
    warm_s: float = 0.5
    long_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rows per round, medians by candidate and workload, and who was left out."""

    rows: list[Row]
    medians: dict[str, dict[str, Row]]
    skipped: dict[str, str]
    long: list[Row]


def run(plan: Plan, say: Say) -> Outcome:
    """Each round starts everybody, measures, stops everybody."""
    cores = Cores.choose()
    rows: list[Row] = []
    long: list[Row] = []
    skipped: dict[str, str] = {}
    for number in range(plan.rounds):
        with contextlib.ExitStack() as stack:
            provider = stack.enter_context(mock(cores))
            candidates = [provider, *_started(plan, stack, cores, provider.port, skipped, say)]
            ordered = candidates if number % 2 == 0 else candidates[::-1]
            for workload in in_order(plan.workloads):
                for candidate in ordered:
                    if workload.hold and (candidate is provider or number):
                        continue
                    row = measure(candidate, provider, workload, plan, cores)
                    rows.append({"round": number, **row})
                    say(_line(row))
                    time.sleep(SETTLE_S)
            if plan.long_s and number == plan.rounds - 1:
                long = [watch(candidate, plan.long_s, cores, say) for candidate in candidates[1:]]
    return Outcome(rows, medians(rows), skipped, long)


def _started(
    plan: Plan,
    stack: contextlib.ExitStack,
    cores: Cores,
    upstream_port: int,
    skipped: dict[str, str],
    say: Say,
) -> list[Candidate]:
    """All candidates that can be measured here; the others are noted in `skipped`, once."""
    candidates = []
    for name in plan.candidates:
        if name in skipped:
            continue
        try:
            candidates.append(stack.enter_context(STARTERS[name](cores, upstream_port)))
        except UnavailableError as reason:
            skipped[name] = str(reason)
            say(f"{name}: skipped, {reason}")
    return candidates


def in_order(names: Iterable[str]) -> list[Workload]:
    """Those that hold streams before all others."""
    return sorted((WORKLOADS[name] for name in names), key=lambda workload: not workload.hold)


def measure(
    candidate: Candidate, provider: Candidate, workload: Workload, plan: Plan, cores: Cores
) -> Row:
    """One candidate under one workload, once."""
    job = workload.job(plan.measure_s, plan.warm_s)
    group = candidate.group()
    direct = candidate.pid == provider.pid
    own = () if direct else group.own
    if workload.hold:
        _warm(candidate, plan, cores)
    with _Load(candidate, job, cores) as load:
        rss_before = usage_of(own).rss_bytes
        load.expect("start")
        if workload.hold:
            return {**_named(candidate, workload), **_held(load, own, rss_before)}
        began = time.monotonic()
        before = [usage_of(pids) for pids in (own, group.database, (provider.pid or 0,))]
        load.expect("stop")
        took_s = time.monotonic() - began
        after = [usage_of(pids) for pids in (own, group.database, (provider.pid or 0,))]
        result = load.result()
    cpu_s, database_s, mock_s = (
        late.cpu_since(early) for early, late in zip(before, after, strict=True)
    )
    units = max(1, result["chunks" if workload.unit == "chunk" else "requests"])
    return {
        **_named(candidate, workload),
        **result,
        "per_s": units / took_s,
        "cpu_us": cpu_s / units * 1e6,
        "database_cpu_us": database_s / units * 1e6,
        "core": cpu_s / took_s,
        "mock_core": mock_s / took_s,
        "rss_mb": after[0].rss_bytes / 2**20,
    }


def watch(candidate: Candidate, long_s: float, cores: Cores, say: Say) -> Row:
    """Memory of a candidate while 50 streams run for `long_s`; flat is what one wants to see."""
    tokens = int(long_s / 0.02)
    workload = Workload("long", "stream", 50, tokens, 20, closed_loop=False)
    own = candidate.group().own
    samples: list[tuple[float, float]] = []
    with _Load(candidate, workload.job(0.0, 0.0), cores) as load:
        load.expect("start")
        began = time.monotonic()
        while (at_s := time.monotonic() - began) < long_s * 0.98:
            samples.append((round(at_s, 1), usage_of(own).rss_bytes / 2**20))
            time.sleep(min(10.0, long_s / 20))
        load.expect("stop")
        result = load.result()
    tenth = max(1, len(samples) // 10)
    early = statistics.median(mb for _, mb in samples[tenth : 2 * tenth + 1])
    late = statistics.median(mb for _, mb in samples[-tenth:])
    row = {
        **_named(candidate, workload),
        "errors": result["errors"],
        "early_mb": early,
        "late_mb": late,
        "grown_kb_per_stream": (late - early) * 1024 / workload.connections,
        "samples": samples,
    }
    say(f"long {candidate.name}: {early:.1f} -> {late:.1f} MB, {row['errors']} errors")
    return row


def medians(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """By workload and candidate: the median of every figure, the sum of errors."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["workload"], row["candidate"]), []).append(row)
    found: dict[str, dict[str, Row]] = {}
    for (workload, candidate), group in groups.items():
        middle = {
            name: statistics.median(row[name] for row in group)
            for name, value in group[0].items()
            if isinstance(value, int | float) and name != "errors"
        }
        for name, value in group[0].items():
            if isinstance(value, dict) and name.endswith("_us") and value:
                middle.update(
                    (f"{name}_{part}", statistics.median(row[name][part] for row in group))
                    for part in value
                )
        middle["errors"] = sum(row["errors"] for row in group)
        found.setdefault(workload, {})[candidate] = middle
    return found


def _held(load: _Load, own: tuple[int, ...], rss_before: int) -> Row:
    time.sleep(IDLE_S)
    rss_held = usage_of(own).rss_bytes
    load.release()
    load.expect("stop")
    result = load.result()
    return {
        "held": result["held"],
        "errors": result["errors"],
        "faults": result["faults"],
        "rss_mb": rss_held / 2**20,
        "kb_per_stream": (rss_held - rss_before) / 1024 / max(1, result["held"]),
    }


def _warm(candidate: Candidate, plan: Plan, cores: Cores) -> None:
    """A few plain requests, so that what a first request costs is not blamed on the streams."""
    job = WORKLOADS["l1"].job(plan.warm_s, 0.0)
    with _Load(candidate, job, cores) as load:
        load.expect("start")
        load.expect("stop")
        load.result()


def _named(candidate: Candidate, workload: Workload) -> Row:
    return {"candidate": candidate.name, "workload": workload.name}


def _line(row: Row) -> str:
    figures = [f"{row['workload']:6}{row['candidate']:8}"]
    figures += [
        f"{name} {row[name]:.1f}" for name in ("cpu_us", "per_s", "kb_per_stream") if name in row
    ]
    figures += [f"errors {row['errors']} {row['faults']}"] if row["errors"] else []
    return "  ".join(figures)


class _Load:
    """The load generator as a process."""

    def __init__(self, candidate: Candidate, job: Mapping[str, object], cores: Cores) -> None:
        where = {
            "port": candidate.port,
            "path": candidate.path,
            "headers": {"authorization": "Bearer sk-benchmark", **candidate.headers},
        }
        self._job = json.dumps({**job, **where})
        self._cores = cores

    def __enter__(self) -> _Load:
        self._child = subprocess.Popen(
            pinned([sys.executable, "-m", "benchmarks.loadgen"], self._cores.load),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._child.stdin is not None
        self._child.stdin.write(self._job + "\n")
        self._child.stdin.flush()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._child.poll() is None and exc_info[0] is not None:
            self._child.kill()
        self._child.communicate()

    def expect(self, event: str) -> None:
        """Wait for the load generator to get there."""
        line = self._read()
        if line.get("event") != event:
            raise RuntimeError(f"the load generator said {line} instead of {event}")

    def release(self) -> None:
        """Let it close the streams that it holds."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()

    def result(self) -> Row:
        """Its figures."""
        return self._read()

    def _read(self) -> Row:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended without a word")
        answer: Row = json.loads(line)
        return answer
