"""What is counted, under which names and labels; and that docs/metrics.md says the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lava_proxy.core.errors import CODES
from lava_proxy.proxy import finish, tally
from lava_proxy.rules import price
from lava_proxy.rules.settlement import Outcome
from lava_proxy.telemetry.exposition import render
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.telemetry.table import ANOMALIES, DIRECTIONS, METRICS, OTHER, OUTCOMES

DOC = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
WORKERS = {"livesum": "sum", "livemax": "max"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["openai", "anthropic"])


def figures(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample that Prometheus would read."""
    body, _ = render(metrics.registry)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def figure(metrics: Metrics, name: str, **labels: str) -> float:
    return figures(metrics)[name, frozenset(labels.items())]


def end_a_call(metrics: Metrics, provider: str = "openai", outcome: str = "completed") -> None:
    metrics.call_ended(
        provider=provider,
        outcome=outcome,
        input_tokens=11,
        output_tokens=7,
        added_s=0.0002,
        first_byte_s=0.3,
        duration_s=2.0,
    )


def test_a_call_is_counted_once_everywhere(metrics: Metrics) -> None:
    end_a_call(metrics)
    end_a_call(metrics, outcome="cut_off")
    end_a_call(metrics, "anthropic")
    assert figure(metrics, "lava_requests_total", provider="openai", outcome="completed") == 1
    assert figure(metrics, "lava_requests_total", provider="openai", outcome="cut_off") == 1
    assert figure(metrics, "lava_tokens_total", provider="openai", direction="input") == 22
    assert figure(metrics, "lava_tokens_total", provider="openai", direction="output") == 14
    assert figure(metrics, "lava_gateway_added_seconds_count") == 3
    assert figure(metrics, "lava_gateway_added_seconds_bucket", le="0.00025") == 3
    assert figure(metrics, "lava_first_byte_seconds_sum", provider="openai") == pytest.approx(0.6)
    assert figure(metrics, "lava_request_duration_seconds_sum", provider="anthropic") == 2.0


def test_a_call_without_an_answer_has_no_first_byte(metrics: Metrics) -> None:
    metrics.call_ended(
        provider="openai",
        outcome="void",
        input_tokens=0,
        output_tokens=0,
        added_s=0.001,
        first_byte_s=None,
        duration_s=0.001,
    )
    assert figure(metrics, "lava_first_byte_seconds_count", provider="openai") == 0
    assert figure(metrics, "lava_request_duration_seconds_count", provider="openai") == 1


def test_money_is_shown_in_usd(metrics: Metrics) -> None:
    metrics.booked("openai", 12_345_678_900, 20_000_000_000)
    metrics.booked("openai", 0, -5)
    assert figure(metrics, "lava_cost_usd_total", provider="openai") == 1.23456789
    assert figure(metrics, "lava_charge_usd_total", provider="openai") == 2.0
    metrics.sample(held_e10=5_000_000_000, leased_e10=15_000_000_000, ledger_queue_rows=4)
    assert figure(metrics, "lava_held_usd") == 0.5
    assert figure(metrics, "lava_leased_usd") == 1.5
    assert figure(metrics, "lava_ledger_queue_rows") == 4


def test_names_that_are_not_in_the_sets_become_other(metrics: Metrics) -> None:
    for number in range(50):
        end_a_call(metrics, provider=f"made-up-{number}", outcome=f"strange-{number}")
        metrics.refused(f"no-such-code-{number}")
        metrics.anomaly(f"a flag that is no anomaly {number}")
    before = len(figures(metrics))
    assert figure(metrics, "lava_requests_total", provider=OTHER, outcome=OTHER) == 50
    assert figure(metrics, "lava_refusals_total", code=OTHER) == 50
    end_a_call(metrics, provider="another", outcome="one more")
    assert len(figures(metrics)) == before
    labels = {value for _, pairs in figures(metrics) for _, value in pairs}
    assert not [value for value in labels if re.search("made-up|strange|no-such|flag", value)]


def test_the_rest_of_what_happens(metrics: Metrics) -> None:
    metrics.refused("insufficient_credit")
    metrics.cut_off("openai")
    metrics.drift("openai", 1070)
    metrics.anomaly("no_usage")
    metrics.flushed(200, 0.004)
    metrics.sample_open(calls=5, streams=3, holds=4)
    assert figure(metrics, "lava_refusals_total", code="insufficient_credit") == 1
    assert figure(metrics, "lava_cutoffs_total", provider="openai") == 1
    assert figure(metrics, "lava_estimate_ratio_bucket", provider="openai", le="1.05") == 0
    assert figure(metrics, "lava_estimate_ratio_bucket", provider="openai", le="1.1") == 1
    assert figure(metrics, "lava_anomalies_total", kind="no_usage") == 1
    assert figure(metrics, "lava_ledger_rows_total") == 200
    assert figure(metrics, "lava_ledger_flush_seconds_count") == 1
    assert figure(metrics, "lava_open_calls") == 5
    assert figure(metrics, "lava_open_streams") == 3
    assert figure(metrics, "lava_holds_open") == 4


def test_counters_follow_totals_that_are_kept_elsewhere(metrics: Metrics) -> None:
    for trips, warm in ((2, 10), (2, 10), (5, 12), (0, 0), (6, 13)):
        metrics.sample_totals(lease_trips=trips, warm_holds=warm)
    assert figure(metrics, "lava_lease_trips_total") == 6
    assert figure(metrics, "lava_lease_warm_holds_total") == 13


def test_a_gauge_that_is_not_in_the_table_is_refused(metrics: Metrics) -> None:
    with pytest.raises(KeyError):
        metrics.sample(held_e10=0, leased_e10=0, made_up=1)


def test_every_family_of_the_table_is_shown_with_its_help(metrics: Metrics) -> None:
    end_a_call(metrics)
    body = render(metrics.registry)[0].decode()
    for metric in METRICS:
        assert f"# HELP {metric.shown_name} {metric.help}\n" in body
        assert f"# TYPE {metric.shown_name} {metric.kind}\n" in body
    assert body.count("# TYPE ") == len(METRICS)
    assert "_created" not in body


def test_names_follow_the_practice() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"lava_[a-z_]+", metric.name)
        assert not metric.name.endswith(("_total", "_ms", "_count", "_sum", "_bucket"))
        assert metric.help.endswith(".")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(metric.buckets)


def test_the_closed_sets_are_those_of_the_house(metrics: Metrics) -> None:
    assert get_args(Outcome) == OUTCOMES
    flags = {price.ABSURD, price.CLAMPED, price.UNPRICED, price.PART_UNPRICED}
    assert flags | {finish.METERING_FAULT, tally.NO_USAGE_SEEN} <= set(ANOMALIES)
    shown = {
        dict(labels)["code"] for name, labels in figures(metrics) if name.endswith("refusals_total")
    }
    assert shown == {*CODES, OTHER}


def test_the_document_is_the_table() -> None:
    rows = re.findall(
        r"^\| `(lava_\w+)` \| (\w+) \| (.+) \| (\w+) \| (.+) \|$", DOC.read_text(), re.M
    )
    wanted = [
        (
            metric.shown_name,
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels) or "-",
            WORKERS[metric.adds_up],
            metric.help,
        )
        for metric in METRICS
    ]
    assert rows == wanted


@pytest.mark.parametrize(
    ("label", "values"), [("outcome", OUTCOMES), ("direction", DIRECTIONS), ("kind", ANOMALIES)]
)
def test_the_document_lists_label_values(label: str, values: tuple[str, ...]) -> None:
    found = re.search(rf"^- `{label}`: (.+)$", DOC.read_text(), re.M)
    assert found is not None
    assert found[1] == ", ".join(f"`{value}`" for value in values)


def test_the_document_names_no_metric_that_is_not_there() -> None:
    known = {metric.shown_name for metric in METRICS}
    known |= {f"{m.name}_{end}" for m in METRICS if m.buckets for end in ("bucket", "sum", "count")}
    assert set(re.findall(r"\blava_[a-z_]+", DOC.read_text())) <= known
