"""Every metric, once: name, kind, labels, help. Children are bound when they are first needed.

Label values come from closed sets only: provider ids of the table, outcomes, error codes, kinds of
anomaly. Anything else becomes ``other``. Never a customer id, never a model name that a caller
sent. Base units: seconds, bytes, USD. Money is an integer everywhere else; it becomes a float here,
at the edge, for display: the truth is in the ledger.

With several workers prometheus_client keeps its values in files (``PROMETHEUS_MULTIPROC_DIR``, set
by the supervisor before this module is imported); gauges say how workers add up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess

from lava_proxy import __version__
from lava_proxy.core.errors import CODES

OTHER = "other"
_E10 = 1e10

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
ADDED = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
RATIO = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0)

OUTCOMES = (
    "completed",
    "cut_off",
    "client_gone",
    "upstream_error",
    "truncated",
    "recovered",
    "refused",
    "void",
)
ANOMALIES = (
    "no_usage",
    "metering_fault",
    "clamped",
    "absurd",
    "unpriced",
    "part_unpriced",
    "encoded_answer",
    "upstream_auth",
    "upstream_truncated",
    "upstream_idle",
    "upstream_protocol",
    "debt",
    "quarantined",
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table. `adds_up` is how a gauge of several workers becomes one figure."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    adds_up: Literal["livesum", "livemax"] = "livesum"


METRICS: tuple[Metric, ...] = (
    Metric(
        "lava_requests", "counter", "Forwarded calls by how they ended.", ("provider", "outcome")
    ),
    Metric("lava_refusals", "counter", "Calls refused before a provider was reached.", ("code",)),
    Metric("lava_cutoffs", "counter", "Streams cut off because the money ended.", ("provider",)),
    Metric("lava_tokens", "counter", "Tokens metered.", ("provider", "direction")),
    Metric("lava_cost_usd", "counter", "What providers charge.", ("provider",)),
    Metric("lava_charge_usd", "counter", "What customers were charged.", ("provider",)),
    Metric(
        "lava_added_seconds",
        "histogram",
        "Time of a call that is ours: total less waiting for the provider.",
        buckets=ADDED,
    ),
    Metric(
        "lava_first_byte_seconds",
        "histogram",
        "From the request's arrival to the first byte of the answer's body.",
        ("provider",),
        SECONDS,
    ),
    Metric("lava_call_seconds", "histogram", "Whole calls.", ("provider",), SECONDS),
    Metric("lava_open_calls", "gauge", "Calls on their way."),
    Metric("lava_open_streams", "gauge", "Event streams on their way."),
    Metric("lava_held_usd", "gauge", "Credit held by open calls."),
    Metric("lava_leased_usd", "gauge", "Credit leased to workers, held part included."),
    Metric("lava_lease_trips", "counter", "Trips to the database for credit."),
    Metric("lava_warm_holds", "counter", "Holds opened without a trip to the database."),
    Metric("lava_ledger_queue_rows", "gauge", "Settled calls that wait to be booked."),
    Metric(
        "lava_ledger_queue_age_seconds", "gauge", "Age of the oldest of them.", adds_up="livemax"
    ),
    Metric("lava_ledger_rows", "counter", "Rows booked."),
    Metric("lava_ledger_flush_seconds", "histogram", "One booking transaction.", buckets=SECONDS),
    Metric(
        "lava_ledger_failing",
        "gauge",
        "1 while the ledger cannot be written.",
        adds_up="livemax",
    ),
    Metric(
        "lava_books_state",
        "gauge",
        "0 normal, 1 database away (leased credit works), 2 closed.",
        adds_up="livemax",
    ),
    Metric("lava_journal_open_calls", "gauge", "Calls in the journal that are not committed."),
    Metric(
        "lava_estimate_ratio",
        "histogram",
        "The provider's final count over our own running count.",
        ("provider",),
        RATIO,
    ),
    Metric("lava_anomalies", "counter", "Things that should not happen.", ("kind",)),
    Metric("lava_build_info", "gauge", "1, with the version.", ("version",), adds_up="livemax"),
)


def several_workers() -> bool:
    """Whether values are shared through files."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class Metrics:
    """The process's metrics. Methods are named after what happened."""

    def __init__(self, providers: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        made = {metric.name: _make(metric, self.registry) for metric in METRICS}
        self._counters: dict[str, Counter] = {
            name: one for name, one in made.items() if isinstance(one, Counter)
        }
        self._gauges: dict[str, Gauge] = {
            name: one for name, one in made.items() if isinstance(one, Gauge)
        }
        self._histograms: dict[str, Histogram] = {
            name: one for name, one in made.items() if isinstance(one, Histogram)
        }
        self._providers = frozenset(providers)
        self._of: dict[str, _Provider] = {}
        self._codes = {code: self._counters["lava_refusals"].labels(code) for code in CODES}
        anomalies = self._counters["lava_anomalies"]
        self._kinds = {kind: anomalies.labels(kind) for kind in (*ANOMALIES, OTHER)}
        self._added = self._histograms["lava_added_seconds"]
        self._sampled: dict[str, float] = {}
        self._gauges["lava_build_info"].labels(__version__).set(1)

    def call_ended(
        self,
        *,
        provider: str,
        outcome: str,
        input_tokens: int,
        output_tokens: int,
        added_s: float,
        first_byte_s: float | None,
        duration_s: float,
    ) -> None:
        """A forwarded call was settled. Times in seconds."""
        of = self._of.get(provider) or self._provider(provider)
        of.outcomes[outcome].inc()
        if input_tokens:
            of.input_tokens.inc(input_tokens)
        if output_tokens:
            of.output_tokens.inc(output_tokens)
        self._added.observe(added_s)
        of.calls.observe(duration_s)
        if first_byte_s is not None:
            of.first_byte.observe(first_byte_s)

    def refused(self, code: str) -> None:
        self._codes[code].inc()

    def cut_off(self, provider: str) -> None:
        (self._of.get(provider) or self._provider(provider)).cutoffs.inc()

    def drift(self, provider: str, ratio_e3: int) -> None:
        """The provider's count was `ratio_e3` thousandths of ours."""
        (self._of.get(provider) or self._provider(provider)).ratio.observe(ratio_e3 / 1000)

    def anomaly(self, kind: str) -> None:
        """`kind` is one of `ANOMALIES`; flags that are no anomaly are left out."""
        child = self._kinds.get(kind)
        if child is not None:
            child.inc()

    def flushed(self, rows: int, seconds: float) -> None:
        self._counters["lava_ledger_rows"].inc(rows)
        self._histograms["lava_ledger_flush_seconds"].observe(seconds)

    def booked(self, provider: str, cost_e10: int, charge_e10: int) -> None:
        """A row was committed: now its money counts."""
        of = self._of.get(provider) or self._provider(provider)
        if cost_e10:
            of.cost.inc(cost_e10 / _E10)
        if charge_e10:
            of.charge.inc(charge_e10 / _E10)

    def sample(self, *, held_e10: int, leased_e10: int, **gauges: float) -> None:
        """Set gauges from a periodic look; names without the ``lava_`` prefix."""
        self._gauges["lava_held_usd"].set(held_e10 / _E10)
        self._gauges["lava_leased_usd"].set(leased_e10 / _E10)
        for name, value in gauges.items():
            self._gauges[f"lava_{name}"].set(value)

    def sample_open(self, *, calls: int, streams: int) -> None:
        self._gauges["lava_open_calls"].set(calls)
        self._gauges["lava_open_streams"].set(streams)

    def sample_totals(self, **totals: float) -> None:
        """Advance counters to totals that are kept elsewhere."""
        for name, total in totals.items():
            grown = total - self._sampled.get(name, 0.0)
            self._sampled[name] = total
            if grown > 0:
                self._counters[f"lava_{name}"].inc(grown)

    def _provider(self, provider: str) -> _Provider:
        name = provider if provider in self._providers else OTHER
        known = self._of.get(name)
        if known is None:
            known = _Provider(self._counters, self._histograms, name)
        self._of[name] = known
        if provider in self._providers:
            self._of[provider] = known
        return known


class _Provider:
    """One provider's children."""

    __slots__ = (
        "calls",
        "charge",
        "cost",
        "cutoffs",
        "first_byte",
        "input_tokens",
        "outcomes",
        "output_tokens",
        "ratio",
    )

    def __init__(
        self, counters: dict[str, Counter], histograms: dict[str, Histogram], name: str
    ) -> None:
        self.outcomes = {o: counters["lava_requests"].labels(name, o) for o in OUTCOMES}
        self.input_tokens = counters["lava_tokens"].labels(name, "input")
        self.output_tokens = counters["lava_tokens"].labels(name, "output")
        self.cost = counters["lava_cost_usd"].labels(name)
        self.charge = counters["lava_charge_usd"].labels(name)
        self.cutoffs = counters["lava_cutoffs"].labels(name)
        self.first_byte = histograms["lava_first_byte_seconds"].labels(name)
        self.calls = histograms["lava_call_seconds"].labels(name)
        self.ratio = histograms["lava_estimate_ratio"].labels(name)


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=registry)
    if metric.kind == "gauge":
        return Gauge(
            metric.name,
            metric.help,
            metric.labels,
            registry=registry,
            multiprocess_mode=metric.adds_up,
        )
    return Histogram(
        metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
    )


def worker_ended(pid: int) -> None:
    """A worker is gone: its live gauges no longer count; its counters stay."""
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
