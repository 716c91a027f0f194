"""Results as Markdown: one table per workload, and the goals that can be judged from them."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

from benchmarks.harness import Outcome, Plan, Row
from benchmarks.workloads import WORKLOADS

IDLE_STREAMS = WORKLOADS["rss"].connections

CEILING_CORE = 0.85
"""Above this share of its core the mock or the load generator limits the rate."""

Column = tuple[str, str, int]
_CPU: tuple[Column, ...] = (
    ("CPU us", "cpu_us", 1),
    ("database CPU us", "database_cpu_us", 1),
    ("per s", "per_s", 0),
)
_HARNESS: tuple[Column, ...] = (
    ("mock core", "mock_core", 2),
    ("load core", "loadgen_core", 2),
    ("errors", "errors", 0),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "n1k": (
        *_CPU,
        ("p50 us", "latency_us_p50", 0),
        ("p99 us", "latency_us_p99", 0),
        ("RSS MB", "rss_mb", 1),
        *_HARNESS,
    ),
    "l1": (*_CPU, ("p50 us", "latency_us_p50", 0), ("p99 us", "latency_us_p99", 0), *_HARNESS),
    "paced": (
        *_CPU,
        ("chunk delay p50 us", "delay_us_p50", 0),
        ("p99 us", "delay_us_p99", 0),
        ("first byte p50 us", "first_byte_us_p50", 0),
        ("p99 us", "first_byte_us_p99", 0),
        ("RSS MB", "rss_mb", 1),
        *_HARNESS,
    ),
    "burst": (
        *_CPU,
        ("first byte p50 us", "first_byte_us_p50", 0),
        ("p99 us", "first_byte_us_p99", 0),
        *_HARNESS,
    ),
    "rss": (
        ("streams held", "held", 0),
        ("KiB per stream", "kb_per_stream", 1),
        ("RSS MB", "rss_mb", 1),
        ("errors", "errors", 0),
    ),
}
TITLES = {
    "n1k": "1 kB request, 1.1 kB JSON answer, 32 connections (CPU per request)",
    "l1": "the same at one connection (CPU per request)",
    "paced": "200 streams at once, 100 chunks 20 ms apart (CPU per chunk)",
    "burst": "300 chunks as fast as they go, 16 connections (CPU per chunk)",
    "rss": "200 idle streams",
}


def markdown(plan: Plan, outcome: Outcome) -> str:
    """The whole report."""
    parts = [
        "# Benchmark results",
        f"Medians of {plan.rounds} rounds of {plan.measure_s:g} s. {machine()['summary']}.",
    ]
    for workload, found in outcome.medians.items():
        parts.append(f"## {workload}: {TITLES[workload]}")
        parts.append(table(workload, found))
        parts += added(found) if workload == "l1" else []
        parts += ceilings(found)
    parts += long_table(outcome.long) if outcome.long else []
    judged = goals(outcome.medians)
    if judged:
        parts.append("## Goals")
        parts.append("\n".join(("| goal | limit | measured | |", "|---|---|---|---|", *judged)))
    parts += [f"Not measured: {name}: {reason}" for name, reason in outcome.skipped.items()]
    return "\n\n".join(parts) + "\n"


def table(workload: str, found: dict[str, Row]) -> str:
    """One row per candidate."""
    columns = COLUMNS[workload]
    head = "| candidate | " + " | ".join(title for title, _, _ in columns) + " |"
    lines = [head, "|---" * (len(columns) + 1) + "|"]
    for candidate, row in found.items():
        cells = [f"{row[key]:,.{places}f}" if key in row else "-" for _, key, places in columns]
        lines.append(f"| {candidate} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def added(found: dict[str, Row]) -> list[str]:
    """What each candidate adds to the direct way, at one connection."""
    direct = found.get("direct")
    if direct is None:
        return []
    return [
        "\n".join(
            f"- {name} adds {row['latency_us_p50'] - direct['latency_us_p50']:+,.0f} us at p50, "
            f"{row['latency_us_p99'] - direct['latency_us_p99']:+,.0f} us at p99"
            for name, row in found.items()
            if name != "direct"
        )
    ]


def ceilings(found: dict[str, Row]) -> list[str]:
    """Whose rate was limited by the harness rather than by itself."""
    limited = [
        name
        for name, row in found.items()
        if max(row.get("mock_core", 0), row.get("loadgen_core", 0)) > CEILING_CORE
        or row.get("mock_core", 0) + row.get("loadgen_core", 0) > CEILING_CORE * harness_cores()
    ]
    if not limited:
        return []
    return [
        f"The harness limited the rate of: {', '.join(limited)}. Their CPU figures stand; their "
        "rates and queueing latencies do not."
    ]


def harness_cores() -> int:
    """Cores that the mock and the load generator have between them."""
    return 2 if (os.cpu_count() or 1) > 2 else 1


def long_table(rows: list[Row]) -> list[str]:
    """Memory over a long stream."""
    lines = ["| candidate | early MB | late MB | KiB grown per stream | errors |", "|---" * 5 + "|"]
    lines += [
        f"| {row['candidate']} | {row['early_mb']:.1f} | {row['late_mb']:.1f} "
        f"| {row['grown_kb_per_stream']:.1f} | {row['errors']} |"
        for row in rows
    ]
    return ["## Memory over long streams (50 at once)", "\n".join(lines)]


def goals(medians: dict[str, dict[str, Row]]) -> list[str]:
    """The published goals, for what was measured."""
    lines: list[str] = []

    def judge(goal: str, workload: str, key: str, other: str, limit: float) -> None:
        found = medians.get(workload, {})
        if "ours" in found and found.get(other, {}).get(key):
            ratio = found["ours"][key] / found[other][key]
            verdict = "met" if ratio <= limit else "**missed**"
            lines.append(f"| {goal} | {limit:g} x {other} | {ratio:.2f} x | {verdict} |")

    judge("CPU of a governed 1 kB request", "n1k", "cpu_us", "naive", 0.75)
    judge("CPU of durable accounting, 1 kB request", "n1k", "cpu_us", "undurable", 1.1)
    judge("CPU of a paced chunk", "paced", "cpu_us", "nginx", 2.0)
    judge("chunk delay p99, 200 streams", "paced", "delay_us_p99", "nginx", 2.0)
    idle = medians.get("rss", {}).get("ours")
    if idle:
        measured = idle["kb_per_stream"]
        verdict = "met" if measured <= 100 and idle["held"] == IDLE_STREAMS else "**missed**"
        lines.append(f"| memory of an idle stream | 100 KiB | {measured:.1f} KiB | {verdict} |")
    return lines


def machine() -> dict[str, str]:
    """What the figures depend on."""
    names = ("uvloop", "httptools", "uvicorn", "starlette", "aiohttp", "orjson")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    cores = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {"summary": f"{cores}; {python}; {packages}"}
