"""What is advanced in batches is shown as if the library had counted it, each thing once."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from lava_proxy.telemetry.batched import Batches
from lava_proxy.telemetry.exposition import render
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.telemetry.table import ADDED, METRICS

NAME = "lava_gateway_added_seconds"
HELP = next(metric.help for metric in METRICS if metric.name == NAME)
AMOUNTS = st.sampled_from([0.0, 0.00005, 0.3, 7.0, *ADDED]) | st.floats(0, 2)


def samples(registry: CollectorRegistry) -> list[tuple[str, tuple[tuple[str, str], ...], float]]:
    families = text_string_to_metric_families(render(registry)[0].decode())
    family = next(family for family in families if family.name == NAME)
    assert (family.type, family.documentation) == ("histogram", HELP)
    return [(s.name, tuple(s.labels.items()), round(s.value, 9)) for s in family.samples]


@given(st.lists(AMOUNTS, max_size=20))
def test_a_histogram_is_as_the_librarys_own(amounts: list[float]) -> None:
    ours, theirs = Metrics([]), CollectorRegistry()
    reference = Histogram(NAME, HELP, registry=theirs, buckets=ADDED)
    for number, amount in enumerate(amounts):
        ours.call_ended(
            provider="other",
            outcome="completed",
            input_tokens=0,
            output_tokens=0,
            added_s=amount,
            first_byte_s=None,
            duration_s=0.0,
        )
        reference.observe(amount)
        if number % 3 == 0:
            ours.tell()
    assert samples(ours.registry) == samples(theirs)


def test_what_was_told_is_not_told_again_whoever_tells() -> None:
    registry, batches = CollectorRegistry(), Batches()
    counter = Counter("some", "Some.", registry=registry)
    total = batches.total(counter, per=10)
    tellers = [threading.Thread(target=batches.tell) for _ in range(8)]
    total.value += 25
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    assert registry.get_sample_value("some_total") == 2.5
    total.value += 5
    assert list(batches.collect()) == []
    assert registry.get_sample_value("some_total") == 3.0
