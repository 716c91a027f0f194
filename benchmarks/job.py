"""A load generator's job, and what it tallies."""

from __future__ import annotations

from dataclasses import dataclass, field

SAMPLES_MAX = 2_000_000
"""Samples kept per figure."""


@dataclass(slots=True)
class Job:
    """What to do; see the module's text."""

    port: int
    path: str
    headers: dict[str, str]
    body: str
    connections: int
    warm_s: float = 0.5
    measure_s: float = 0.0
    """Closed loop for this long; 0 = every connection does one answer, then it is over."""
    events: int = 0
    """``data:`` lines that every streamed answer must hold; 0 = not a stream."""
    warm_body: str = ""
    """Request for the warm-up, where it must differ (shorter streams)."""
    warm_events: int = 0
    hold: bool = False
    """Open the streams, wait for their first chunk, then keep them until stdin closes."""


@dataclass(slots=True)
class Tally:
    """What was seen while measuring."""

    requests: int = 0
    chunks: int = 0
    errors: int = 0
    latency_us: list[float] = field(default_factory=list)
    first_byte_us: list[float] = field(default_factory=list)
    delay_us: list[float] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)

    def fault(self, what: str) -> None:
        """Count something that must not happen."""
        self.errors += 1
        self.faults[what] = self.faults.get(what, 0) + 1


def quantiles(samples: list[float]) -> dict[str, float]:
    """p50, p99 and the largest; empty without samples."""
    if not samples:
        return {}
    ordered = sorted(samples)
    last = len(ordered) - 1
    return {
        "p50": ordered[last // 2],
        "p99": ordered[min(last, int(len(ordered) * 0.99))],
        "max": ordered[last],
        "n": len(ordered),
    }
