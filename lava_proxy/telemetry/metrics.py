"""The process's metrics: methods named after what happened, children bound once. What every call
counts goes to the library in batches (`batched`); the rest is rare and goes at once.

Label values come from closed sets only: provider ids of the table, outcomes, error codes, kinds of
anomaly. Anything else becomes ``other``. Never a customer id, never a model name that a caller
sent. Base units: seconds, USD. Money is an integer everywhere else; it becomes a float here, at the
edge, for display: the truth is in the ledger.

With several workers prometheus_client keeps its values in files (``PROMETHEUS_MULTIPROC_DIR``, set
by the supervisor in a worker's environment: the library reads it when it is first imported); gauges
say how workers add up.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, multiprocess

from lava_proxy import __version__
from lava_proxy.core.errors import CODES
from lava_proxy.telemetry.batched import Batches, Histogram, HistogramParts, Total
from lava_proxy.telemetry.table import (
    ANOMALIES,
    DELIVERIES,
    METRICS,
    OTHER,
    OUTCOMES,
    SERVER_STATES,
    STARTS,
    Metric,
)

WORKERS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_E10 = 10**10


def workers_folder() -> Path | None:
    """Where values of several workers are; None in a process that is alone."""
    folder = os.environ.get(WORKERS_FOLDER)
    return Path(folder) if folder else None


def worker_ended(pid: int, folder: Path) -> None:
    """A worker is gone: its live gauges no longer count; its counters stay."""
    multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


class Metrics:
    """What one process counts. `providers` are the ids that may become label values."""

    def __init__(self, providers: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self._batches = Batches()
        self.registry.register(self._batches)  # first: the others show what it tells
        made = _Made(self.registry, self._batches)
        self._made = made
        self._known = frozenset(providers)
        self._providers: dict[str, _Provider] = {}
        refusals = made.counters["lava_refusals"]
        self._codes = {code: refusals.labels(code) for code in (*CODES, OTHER)}
        anomalies = made.counters["lava_anomalies"]
        self._kinds = {kind: anomalies.labels(kind) for kind in ANOMALIES}
        deliveries = made.counters["lava_webhook_deliveries"]
        self._deliveries = {outcome: deliveries.labels(outcome) for outcome in DELIVERIES}
        starts = made.counters["lava_embedded_postgres_starts"]
        self._starts = {result: starts.labels(result) for result in STARTS}
        self._added = made.histogram("lava_gateway_added_seconds")
        self._rows = made.total("lava_ledger_rows")
        self._flush = made.histogram("lava_ledger_flush_seconds")
        self._trips = made.total("lava_lease_trips")
        self._warm = made.total("lava_lease_warm_holds")
        made.gauges["lava_build_info"].labels(__version__).set(1)

    def tell(self) -> None:
        """Show what was counted up to now to whoever scrapes."""
        self._batches.tell()

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
        """A forwarded call was settled. Its money counts when its row is committed: `booked`."""
        of = self._providers.get(provider) or self._bind(provider)
        of.outcomes.get(outcome, of.other_outcome).value += 1
        of.input_tokens.value += input_tokens
        of.output_tokens.value += output_tokens
        self._added.observe(added_s)
        of.durations.observe(duration_s)
        if first_byte_s is not None:
            of.first_byte.observe(first_byte_s)

    def booked(self, provider: str, cost_e10: int, charge_e10: int) -> None:
        """A row was committed: now its money counts. A correction downwards is not shown."""
        of = self._providers.get(provider) or self._bind(provider)
        if cost_e10 > 0:
            of.cost.value += cost_e10
        if charge_e10 > 0:
            of.charge.value += charge_e10

    def refused(self, code: str) -> None:
        """A call was refused before a provider was reached."""
        self._codes.get(code, self._codes[OTHER]).inc()

    def cut_off(self, provider: str) -> None:
        """The money ended in the middle of a stream."""
        (self._providers.get(provider) or self._bind(provider)).cutoffs.inc()

    def drift(self, provider: str, ratio_e3: int) -> None:
        """The provider's count was `ratio_e3` thousandths of ours."""
        (self._providers.get(provider) or self._bind(provider)).ratio.observe(ratio_e3 / 1000)

    def anomaly(self, kind: str) -> None:
        """`kind` is one of `ANOMALIES`; a row's flags that are no anomaly are left out."""
        child = self._kinds.get(kind)
        if child is not None:
            child.inc()

    def webhook_sent(self, outcome: str) -> None:
        """A try to deliver ended: `outcome` is one of `DELIVERIES`."""
        self._deliveries[outcome].inc()

    def webhook_disabled(self) -> None:
        """An endpoint only failed, and is not asked any more."""
        self._made.counters["lava_webhook_disabled"].inc()

    def webhook_queue_age(self, age_s: float) -> None:
        """How long the oldest event waits."""
        self._made.gauges["lava_webhook_queue_age_seconds"].set(age_s)

    def audited(self, differences: int, sound_age_s: float | None) -> None:
        """The last audit of the books, by whichever process."""
        self._made.gauges["lava_audit_differences"].set(differences)
        if sound_age_s is not None:
            self._made.gauges["lava_audit_sound_age_seconds"].set(sound_age_s)

    def embedded_state(self, state: str) -> None:
        """What became of the embedded PostgreSQL: one of `SERVER_STATES`."""
        self._made.gauges["lava_embedded_postgres_state"].set(SERVER_STATES[state])

    def embedded_started(self, worked: bool) -> None:
        """This process tried to start it again."""
        self._starts["started" if worked else "failed"].inc()

    def loop_stalled(self, stalled: bool) -> None:
        """The event loop does not turn, or turns again. Called from another thread."""
        if stalled:
            self._made.counters["lava_loop_stalls"].inc()
        self._made.gauges["lava_loop_stalled"].set(int(stalled))

    def quarantined(self, rows: int, charge_e10: int) -> None:
        """What could not be booked, and waits for somebody to decide."""
        self._made.gauges["lava_quarantine_rows"].set(rows)
        self._made.gauges["lava_quarantine_usd"].set(charge_e10 / _E10)

    def flushed(self, rows: int, seconds: float) -> None:
        """One transaction of the ledger writer was committed."""
        self._rows.value += rows
        self._flush.observe(seconds)

    def sample(self, *, held_e10: int, leased_e10: int, **gauges: float) -> None:
        """Set gauges from a periodic look, every second; names without the ``lava_`` prefix."""
        self.tell()
        known = self._made.gauges
        known["lava_held_usd"].set(held_e10 / _E10)
        known["lava_leased_usd"].set(leased_e10 / _E10)
        for name, value in gauges.items():
            known[f"lava_{name}"].set(value)

    def sample_open(
        self, *, calls: int, streams: int, holds: int | None = None, drains: int = 0
    ) -> None:
        """What is on its way now. Without `holds` every open call counts as holding credit."""
        known = self._made.gauges
        known["lava_open_calls"].set(calls)
        known["lava_open_streams"].set(streams)
        known["lava_open_drains"].set(drains)
        known["lava_holds_open"].set(calls if holds is None else holds)

    def sample_totals(self, *, lease_trips: int, warm_holds: int) -> None:
        """Advance counters to totals that are kept elsewhere."""
        self._trips.value = max(self._trips.value, lease_trips)
        self._warm.value = max(self._warm.value, warm_holds)

    def _bind(self, provider: str) -> _Provider:
        """Series of a provider begin with its first call: those of all would be megabytes."""
        name = provider if provider in self._known else OTHER
        found = self._providers.get(name)
        if found is None:
            found = self._providers[name] = _Provider(self._made, name)
        return found


class _Made:
    """The table as objects of the library."""

    __slots__ = ("_batches", "_histograms", "counters", "gauges")

    def __init__(self, registry: CollectorRegistry, batches: Batches) -> None:
        self._batches = batches
        self.counters: dict[str, Counter] = {}
        self.gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, tuple[Metric, HistogramParts]] = {}
        for metric in METRICS:
            self._make(metric, registry)

    def total(self, name: str, *labels: str, per: int = 1) -> Total:
        """A counter for what happens often."""
        counter = self.counters[name]
        return self._batches.total(counter.labels(*labels) if labels else counter, per)

    def histogram(self, name: str, *labels: str) -> Histogram:
        """A histogram with these label values."""
        metric, parts = self._histograms[name]
        return self._batches.histogram(metric, parts, *labels)

    def _make(self, metric: Metric, registry: CollectorRegistry) -> None:
        name, help_, labels = metric.name, metric.help, metric.labels
        if metric.kind == "counter":
            self.counters[name] = Counter(name, help_, labels, registry=registry)
        elif metric.kind == "histogram":
            buckets = Counter(f"{name}_bucket", help_, (*labels, "le"), registry=registry)
            sum_ = Counter(f"{name}_sum", help_, labels, registry=registry)
            self._histograms[name] = metric, (buckets, sum_)
        else:
            self.gauges[name] = Gauge(
                name, help_, labels, registry=registry, multiprocess_mode=metric.adds_up
            )


class _Provider:
    """One provider's series."""

    __slots__ = (
        "charge",
        "cost",
        "cutoffs",
        "durations",
        "first_byte",
        "input_tokens",
        "other_outcome",
        "outcomes",
        "output_tokens",
        "ratio",
    )

    def __init__(self, made: _Made, name: str) -> None:
        total, histogram = made.total, made.histogram
        self.outcomes = {outcome: total("lava_requests", name, outcome) for outcome in OUTCOMES}
        self.other_outcome = total("lava_requests", name, OTHER)
        self.input_tokens = total("lava_tokens", name, "input")
        self.output_tokens = total("lava_tokens", name, "output")
        self.cost = total("lava_cost_usd", name, per=_E10)
        self.charge = total("lava_charge_usd", name, per=_E10)
        self.cutoffs = made.counters["lava_cutoffs"].labels(name)
        self.first_byte = histogram("lava_first_byte_seconds", name)
        self.durations = histogram("lava_request_duration_seconds", name)
        self.ratio = histogram("lava_estimate_ratio", name)
