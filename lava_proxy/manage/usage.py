"""``/v1/usage``: what was used, by day of the caller's own time zone, and in all.

The offset of `start` is the time zone: days are its days, at a fixed offset, so none has 23 hours.
`end` counts in, as wide as it is written: the whole second of ``23:59:59Z``, the millisecond of
``23:59:59.999Z`` (so a day's own `start` and `end` ask for that day, and a request's `created_at`
for that request). An item is there for every day of the range, also for those on which nothing
happened. Of months whose rows are not kept any more only quarters of an hour are known: one counts
where it begins; and nothing of them by metadata.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from lava_proxy.core.money import format_e10
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import Date, read_query, refuse
from lava_proxy.manage.filters import metadata_filters, narrowed
from lava_proxy.manage.text import time_text
from lava_proxy.store import usage as store
from lava_proxy.store.usage import QUARTER, Range, Used

PARAMETERS = frozenset(
    {"start", "end", "customer_id", "connection_id", "meter_id", "metadata_filters"}
)
DAYS_MAX = 400
FUTURE = ("start", "must not be in the future where there is no end")

_DATE: TypeAdapter[datetime] = TypeAdapter(Date)
_DAY = timedelta(days=1)
_INSTANT = timedelta(microseconds=1)
MINUTES = len("2026-12-01T00:00")
_FRACTION = re.compile(r"\.\d+", re.ASCII)


class DayView(TypedDict):
    """One day's usage."""

    date: str
    start: str
    end: str
    total_requests: int
    total_usage_tokens: int
    total_cost: str
    total_charge: str


class TotalsView(TypedDict):
    """The usage of all days."""

    total_requests: int
    total_usage_tokens: int
    total_cost: str
    total_charge: str


class UsageView(TypedDict):
    """Usage by day, oldest first, and in all."""

    items: list[DayView]
    totals: TotalsView


async def retrieve(desk: Desk, call: Call) -> Answer:
    """Usage of a range. An unknown customer or meter is 404, a deleted one is not."""
    query = read_query(call, PARAMETERS)
    offset, since = _start(query.get("start"))
    upto = _upto(query["end"]) if "end" in query else desk.books.now() + _INSTANT
    if upto <= since:
        refuse(*(("end", "must not be before start") if "end" in query else FUTURE))
    span, days = _range(offset, since, upto)
    wanted = metadata_filters(query.get("metadata_filters"))
    customer_id, meter_id = await narrowed(desk, call, query)
    used: dict[datetime, Used] = {}
    if wanted is not None:
        async with desk.reading() as conn:
            used = await store.by_day(
                conn,
                call.merchant_id,
                span,
                customer_id=customer_id,
                meter_id=meter_id,
                metadata=wanted,
            )
    firsts = [span.origin + day * _DAY for day in range(days)]
    total = sum(used.values(), Used())
    view: UsageView = {
        "items": [_day(first, offset, used.get(first, Used())) for first in firsts],
        "totals": _totals(total),
    }
    return answer(view)


def _start(text: str | None) -> tuple[timedelta, datetime]:
    """The offset of the caller's days, and the first instant."""
    if text is None:
        refuse("start", "is required")
    offset, since = _instant("start", text)
    if offset % QUARTER:
        refuse("start", "must have an offset of whole quarters of an hour")
    return offset, since


def _upto(text: str) -> datetime:
    """The first instant behind `end`."""
    _, end = _instant("end", text)
    try:
        return end + _width(text)
    except OverflowError:
        refuse("start", "is beyond the calendar")


def _width(text: str) -> timedelta:
    """How much time a date and time stands for, by the way it is written."""
    if text[MINUTES:].startswith(":"):
        fraction = _FRACTION.search(text)
        if fraction is None:
            return timedelta(seconds=1)
        return timedelta(milliseconds=1) if len(fraction[0]) <= len(".999") else _INSTANT
    return timedelta(minutes=1)


def _instant(name: str, text: str) -> tuple[timedelta, datetime]:
    """The offset and the instant. A plus that was not percent-encoded came as a space."""
    text = text.replace(" ", "+")
    try:
        at = _DATE.validate_python(text)
        return datetime.fromisoformat(text).utcoffset() or timedelta(), at
    except (ValidationError, OverflowError):
        refuse(name, 'must be a date and time with an offset, such as "2026-12-01T00:00:00-05:00"')


def _range(offset: timedelta, since: datetime, upto: datetime) -> tuple[Range, int]:
    """What to read, and how many days it touches."""
    try:
        local = since.replace(tzinfo=None) + offset
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0) - offset
        origin = midnight.replace(tzinfo=UTC)
        days = (upto - _INSTANT - origin) // _DAY + 1
        _ = origin + days * _DAY
    except OverflowError:
        refuse("start", "is beyond the calendar")
    if days > DAYS_MAX:
        refuse("end", f"is {days} days away; at most {DAYS_MAX} in one call")
    return Range(since, upto, origin), days


def _day(first: datetime, offset: timedelta, used: Used) -> DayView:
    return {
        "date": (first + offset).date().isoformat(),
        "start": time_text(first),
        "end": time_text(first + _DAY - _INSTANT),
        **_totals(used),
    }


def _totals(used: Used) -> TotalsView:
    return {
        "total_requests": used.requests,
        "total_usage_tokens": used.tokens,
        "total_cost": format_e10(used.cost_e10),
        "total_charge": format_e10(used.charge_e10),
    }


ROUTES = (
    Route("GET", "usage", retrieve, answer=UsageView, query=PARAMETERS, errors=("not_found",)),
)
