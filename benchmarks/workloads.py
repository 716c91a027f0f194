"""What is asked of every candidate, as jobs for the load generator.

========  ==================================================================================
n1k       1 kB request, 1.1 kB JSON answer, 32 connections, closed loop
l1        the same at one connection: what a proxy adds to the latency
paced     200 streams at once, 100 chunks 20 ms apart, stamped
burst     16 connections, streams of 300 chunks as fast as they go
rss       200 streams that have sent their first chunk and then wait
========  ==================================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass

PACED_EXTRA_EVENTS = 3
"""Beside the deltas: the role chunk, the finish reason, and ``[DONE]``."""

REQUEST_BYTES = 1024
ANSWER_TOKENS = 110
"""Makes the JSON answer about 1.1 kB."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of load. `unit` is what CPU is divided by."""

    name: str
    unit: str
    connections: int
    tokens: int
    pace_ms: int
    stream: bool = True
    closed_loop: bool = True
    stamp: bool = False
    hold: bool = False
    warm_tokens: int = 0

    def job(self, measure_s: float, warm_s: float) -> dict[str, object]:
        """The load generator's job, but for where to send it."""
        job: dict[str, object] = {
            "connections": self.connections,
            "body": self._body(self.tokens),
            "measure_s": measure_s if self.closed_loop else 0.0,
            "warm_s": 0.0 if self.hold else warm_s,
            "events": self.tokens + PACED_EXTRA_EVENTS if self.stream else 0,
            "hold": self.hold,
        }
        if self.warm_tokens:
            job["warm_body"] = self._body(self.warm_tokens)
            job["warm_events"] = self.warm_tokens + PACED_EXTRA_EVENTS
        return job

    def _body(self, tokens: int) -> str:
        model = f"sim-{tokens}-{self.pace_ms}" + ("-stamp" if self.stamp else "")
        document = {
            "model": model,
            "messages": [{"role": "user", "content": ""}],
            "max_completion_tokens": max(tokens, 1000),
        }
        if self.stream:
            document["stream"] = True
            document["stream_options"] = {"include_usage": False}
        room = REQUEST_BYTES - len(json.dumps(document))
        document["messages"] = [{"role": "user", "content": ("lava flows on " * 80)[:room]}]
        return json.dumps(document)


WORKLOADS = {
    load.name: load
    for load in (
        Workload("n1k", "request", 32, ANSWER_TOKENS, 0, stream=False),
        Workload("l1", "request", 1, ANSWER_TOKENS, 0, stream=False),
        Workload("paced", "chunk", 200, 97, 20, closed_loop=False, stamp=True, warm_tokens=10),
        Workload("burst", "chunk", 16, 297, 0),
        Workload("rss", "stream", 200, 2, 600_000, closed_loop=False, hold=True),
    )
}
