"""Every metric, once: name, kind, help, labels, buckets. docs/metrics.md is checked against it.

Names follow Prometheus practice: base units (seconds, USD) last, counters end in ``_total`` (the
library adds it). Label values come from closed sets only; the sets that are ours stand here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

OTHER = "other"
"""What any label value outside its set becomes."""

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
DELIVERIES = ("delivered", "failed", "dead")
SERVER_STATES: Mapping[str, int] = {"runs": 0, "starting": 1, "broken": 2}
STARTS = ("started", "failed")
DIRECTIONS = ("input", "output")
ANOMALIES = (
    "no_usage",
    "zero_usage",
    "metering_fault",
    "clamped",
    "absurd",
    "unpriced",
    "part_unpriced",
    "price_assumed",
    "encoded_answer",
    "upstream_auth",
    "upstream_truncated",
    "upstream_idle",
    "upstream_protocol",
    "debt",
    "quarantined",
    "journal_damaged",
)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
ADDED = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
RATIO = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table. `adds_up` is how a gauge of several workers becomes one figure."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    adds_up: Literal["livesum", "livemax"] = "livesum"

    @property
    def shown_name(self) -> str:
        """The name that Prometheus shows."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counter(name: str, help_: str, *labels: str) -> Metric:
    return Metric(name, "counter", help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Metric:
    return Metric(name, "gauge", help_, labels)


def _worst(name: str, help_: str, *labels: str) -> Metric:
    """A gauge of which the largest of all workers counts."""
    return Metric(name, "gauge", help_, labels, adds_up="livemax")


def _histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name, "histogram", help_, labels, buckets)


METRICS: tuple[Metric, ...] = (
    _counter("lava_requests", "Forwarded calls by how they ended.", "provider", "outcome"),
    _counter("lava_refusals", "Calls refused before a provider was reached.", "code"),
    _counter("lava_cutoffs", "Streams cut off because the money ended.", "provider"),
    _counter("lava_tokens", "Tokens metered.", "provider", "direction"),
    _counter("lava_cost_usd", "What providers charge, for booked calls.", "provider"),
    _counter("lava_charge_usd", "What customers were charged, for booked calls.", "provider"),
    _histogram(
        "lava_gateway_added_seconds",
        "Time of a call that is ours: total less waiting for the provider.",
        ADDED,
    ),
    _histogram(
        "lava_first_byte_seconds",
        "From the request's arrival to the first byte of the answer's body.",
        SECONDS,
        "provider",
    ),
    _histogram("lava_request_duration_seconds", "Whole calls.", SECONDS, "provider"),
    _gauge("lava_open_calls", "Calls on their way."),
    _gauge("lava_open_streams", "Event streams on their way."),
    _gauge("lava_open_drains", "Answers that are read on although their client has left."),
    _gauge("lava_holds_open", "Calls that hold credit."),
    _gauge("lava_held_usd", "Credit held by open calls."),
    _gauge("lava_leased_usd", "Credit leased to workers, held part included."),
    _counter("lava_lease_trips", "Trips to the database for credit."),
    _counter("lava_lease_warm_holds", "Holds opened without a trip to the database."),
    _gauge("lava_ledger_queue_rows", "Settled calls that wait to be booked."),
    _worst("lava_ledger_queue_age_seconds", "Age of the oldest of them."),
    _counter("lava_ledger_rows", "Rows booked."),
    _histogram("lava_ledger_flush_seconds", "One booking transaction.", SECONDS),
    _worst("lava_ledger_failing", "1 while the ledger cannot be written."),
    _worst("lava_books_state", "0 normal, 1 leases (database away), 2 drain, 3 closed."),
    _worst("lava_audit_differences", "What the last audit of the books found; 0 is right."),
    _worst("lava_audit_sound_age_seconds", "Time since an audit that found nothing."),
    _worst("lava_quarantine_rows", "Rows that could not be booked and wait for a decision."),
    _worst("lava_quarantine_usd", "What those may come to."),
    _gauge("lava_journal_open_calls", "Calls in the journal that are not committed."),
    _gauge("lava_journal_kept_bytes", "Journal that is kept for them."),
    _worst("lava_journal_failed", "1 after an I/O error: the process must be replaced."),
    _worst(
        "lava_embedded_postgres_state",
        "0 it runs, 1 it ended and is started again, 2 it cannot be started.",
    ),
    _counter("lava_embedded_postgres_starts", "Tries to start it again after it ended.", "result"),
    _counter("lava_loop_stalls", "Times that an event loop did not turn for too long."),
    _gauge("lava_loop_stalled", "Processes whose event loop does not turn now."),
    _histogram(
        "lava_estimate_ratio",
        "The provider's final count over our own running count.",
        RATIO,
        "provider",
    ),
    _counter("lava_webhook_deliveries", "Tries to tell a webhook of an event.", "outcome"),
    _counter("lava_webhook_disabled", "Webhooks disabled because they only failed."),
    _worst("lava_webhook_queue_age_seconds", "Age of the oldest event that could be told now."),
    _counter("lava_anomalies", "Things that should not happen.", "kind"),
    _worst("lava_build_info", "1, with the version as label.", "version"),
)
