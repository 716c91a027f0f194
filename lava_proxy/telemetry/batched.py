"""Counters and histograms that are advanced in batches: a call adds to plain numbers.

The library's `inc` and `observe` take locks, and with several workers they write to files. What a
call counts would cost it a dozen of those, so it goes to the library together with what others
counted: at a scrape of this process, once a second, and at the end. A scrape that another process
answers may thus lack the last second, and a process that is killed loses as much of its metrics.
(Its money is in the journal.)

One thread counts, the event loop's; any may `tell`.

The library's histograms take their observations one by one. So for the library ours are counters,
of each bucket and of the sum, and `whole` makes histograms of those when they are shown.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from math import inf

from prometheus_client import Counter
from prometheus_client import Metric as Family
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from lava_proxy.telemetry.table import METRICS, Metric

_HISTOGRAMS = {metric.name: metric for metric in METRICS if metric.kind == "histogram"}


class Total:
    """A counter: whoever counts adds to `value`, which never falls."""

    __slots__ = ("_counter", "_per", "_told", "value")

    def __init__(self, counter: Counter, per: int) -> None:
        self._counter = counter
        self._per = per
        self._told: float = 0
        self.value: float = 0

    def tell(self) -> None:
        value = self.value
        if value > self._told:
            self._counter.inc((value - self._told) / self._per)
            self._told = value


class Histogram:
    """Observations by bucket, and their sum."""

    __slots__ = ("_bounds", "_buckets", "_sum")

    def __init__(self, bounds: Sequence[float], buckets: list[Total], sum_: Total) -> None:
        """`buckets`: one for each bound, and one for what is above them all."""
        self._bounds = bounds
        self._buckets = buckets
        self._sum = sum_

    def observe(self, amount: float) -> None:
        """Count one that is not negative."""
        self._buckets[bisect_left(self._bounds, amount)].value += 1
        self._sum.value += amount


class Batches:
    """All of one process."""

    def __init__(self) -> None:
        self._totals: list[Total] = []
        self._telling = threading.Lock()

    def total(self, counter: Counter, per: int = 1) -> Total:
        """A counter that counts in parts, `per` of them to a unit of the library's `counter`."""
        total = Total(counter, per)
        self._totals.append(total)
        return total

    def histogram(self, metric: Metric, made: HistogramParts, *labels: str) -> Histogram:
        """The histogram with these label values."""
        of_buckets, of_sum = made
        buckets = [self.total(of_buckets.labels(*labels, le)) for le in _ends(metric)]
        child = of_sum.labels(*labels) if labels else of_sum
        return Histogram(metric.buckets, buckets, self.total(child))

    def tell(self) -> None:
        """Bring what was counted to the library."""
        with self._telling:
            for total in list(self._totals):
                total.tell()

    def collect(self) -> Iterable[Family]:
        """As a collector that comes first in a registry: nothing of its own."""
        self.tell()
        return ()


HistogramParts = tuple[Counter, Counter]
"""Of the buckets, and of the sum."""


def whole(families: Iterable[Family]) -> Iterator[Family]:
    """The library's families, with histograms in place of their parts."""
    parts: dict[str, dict[str, Family]] = {}
    for family in families:
        name, _, part = family.name.rpartition("_")
        if name in _HISTOGRAMS:
            parts.setdefault(name, {})[part] = family
        else:
            yield family
    for name, found in parts.items():
        if len(found) == 2:  # else a worker's file is being made
            yield _histogram(_HISTOGRAMS[name], found["bucket"], found["sum"])


def _histogram(metric: Metric, buckets: Family, sums: Family) -> Family:
    shown = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    counts = _values(buckets, (*metric.labels, "le"))
    for labels, total in _values(sums, metric.labels).items():
        reached, rows = 0.0, []
        for le in _ends(metric):
            reached += counts.get((*labels, le), 0.0)
            rows.append((le, reached))
        shown.add_metric(labels, rows, total)
    return shown


def _values(family: Family, labels: Sequence[str]) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def _ends(metric: Metric) -> list[str]:
    """Upper ends of its buckets, as label values."""
    bounds = (*metric.buckets, inf)
    return [floatToGoString(bound) for bound in bounds]  # type: ignore[no-untyped-call]
