"""Billing cycles in time: each boundary is counted from the anchor, so month ends never drift.

31 Jan -> 28 Feb -> 31 Mar: adding a month to the last boundary would stay on the 28th for ever.
All in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from dateutil.relativedelta import relativedelta

from lava_proxy.core.invariant import invariant

Interval = Literal["day", "week", "month", "year"]

_LENGTHS = {
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=31),
    "year": timedelta(days=366),
}
"""The longest that a cycle can be."""


@dataclass(frozen=True, slots=True)
class Span:
    """A cycle: from `start` up to, and without, `end`."""

    start: datetime
    end: datetime


def boundary(anchor: datetime, interval: Interval, number: int) -> datetime:
    """When cycle `number` (0 is the first) begins."""
    match interval:
        case "day":
            return anchor + relativedelta(days=number)
        case "week":
            return anchor + relativedelta(weeks=number)
        case "month":
            return anchor + relativedelta(months=number)
        case "year":
            return anchor + relativedelta(years=number)


def cycle_at(anchor: datetime, interval: Interval, at: datetime) -> Span:
    """The cycle that `at` falls in. `at` is not before the anchor."""
    anchor, at = anchor.astimezone(UTC), at.astimezone(UTC)
    invariant(at >= anchor, "no cycle begins before its anchor")
    number = (at - anchor) // _LENGTHS[interval]
    while boundary(anchor, interval, number + 1) <= at:
        number += 1
    return Span(boundary(anchor, interval, number), boundary(anchor, interval, number + 1))
