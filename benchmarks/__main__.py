"""``python -m benchmarks``: run, print the report, keep it under ``benchmarks/results/``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.candidates import STARTERS
from benchmarks.harness import Plan, run
from benchmarks.report import machine, markdown
from benchmarks.workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results"


def parse(argv: list[str] | None = None) -> tuple[Plan, Path]:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured time per cell")
    parser.add_argument("--only", nargs="+", choices=tuple(STARTERS), default=list(STARTERS))
    parser.add_argument("--workloads", nargs="+", choices=tuple(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument(
        "--long", type=float, nargs="?", const=600.0, default=0.0, metavar="SECONDS",
        help="watch memory over streams this long (600 s when no number is given)",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    plan = Plan(
        candidates=tuple(options.only),
        workloads=tuple(options.workloads),
        rounds=1 if options.quick else options.rounds,
        measure_s=min(options.seconds, 1.0) if options.quick else options.seconds,
        long_s=options.long,
    )
    return plan, options.results


def main(argv: list[str] | None = None) -> int:
    """Status 1 when any answer was wrong: such figures are worth nothing."""
    plan, results = parse(argv)
    # SIGTERM unwinds like an exception, so that no candidate outlives the run.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    outcome = run(plan, lambda line: print(line, file=sys.stderr, flush=True))
    text = markdown(plan, outcome)
    print(text)
    results.mkdir(parents=True, exist_ok=True)
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    record = {"plan": asdict(plan), "machine": machine(), **asdict(outcome)}
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (results / f"{name}.md").write_text(text)
    errors = sum(row["errors"] for row in (*outcome.rows, *outcome.long))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
