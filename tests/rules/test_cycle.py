"""Cycles in time: every moment is in one cycle, and month ends keep their day."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta, timezone
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.rules.cycle import Interval, boundary, cycle_at

moments = st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
intervals = st.sampled_from(get_args(Interval))
spans = st.timedeltas(timedelta(0), timedelta(days=4000))


def day(month: int, number: int, year: int = 2027, hour: int = 10) -> datetime:
    return datetime(year, month, number, hour, tzinfo=UTC)


def test_a_month_that_is_too_short_does_not_shorten_the_next():
    anchor = day(1, 31)
    assert [boundary(anchor, "month", n) for n in range(5)] == [
        day(1, 31),
        day(2, 28),
        day(3, 31),
        day(4, 30),
        day(5, 31),
    ]
    assert boundary(day(1, 31, 2028), "month", 1) == day(2, 29, 2028)
    found = cycle_at(anchor, "month", day(3, 1))
    assert (found.start, found.end) == (day(2, 28), day(3, 31))


def test_a_leap_day_comes_back_every_fourth_year():
    anchor = day(2, 29, 2028)
    ends = [boundary(anchor, "year", n) for n in range(1, 5)]
    assert ends == [day(2, 28, y) for y in (2029, 2030, 2031)] + [day(2, 29, 2032)]


@given(moments, intervals, spans)
def test_every_moment_is_in_one_cycle_and_they_leave_no_gap(anchor, interval, after):
    at = anchor + after
    found = cycle_at(anchor, interval, at)
    assert found.start <= at < found.end
    following = cycle_at(anchor, interval, found.end)
    assert following.start == found.end
    last = cycle_at(anchor, interval, found.end - timedelta(microseconds=1))
    assert last == found


@given(moments, st.integers(0, 240))
def test_a_month_ends_on_the_anchors_day_or_its_last(anchor, number):
    at = boundary(anchor, "month", number)
    last_day = calendar.monthrange(at.year, at.month)[1]
    assert at.day == min(anchor.day, last_day)
    assert at.timetz() == anchor.timetz()
    assert (at.year - anchor.year) * 12 + at.month - anchor.month == number


@given(moments, intervals, spans, st.integers(-14 * 60, 14 * 60))
def test_the_callers_time_zone_changes_nothing(anchor, interval, after, minutes):
    zone = timezone(timedelta(minutes=minutes))
    at = anchor + after
    there = cycle_at(anchor.astimezone(zone), interval, at.astimezone(zone))
    assert there == cycle_at(anchor, interval, at)
    assert there.start.tzinfo == there.end.tzinfo == UTC


def test_days_are_utc_where_clocks_change():
    berlin = ZoneInfo("Europe/Berlin")
    anchor = datetime(2027, 3, 27, 12, tzinfo=berlin)  # the next night has 23 hours
    found = cycle_at(anchor, "day", anchor)
    assert found.end - found.start == timedelta(hours=24)
    new_york = datetime(2027, 1, 31, 20, tzinfo=ZoneInfo("America/New_York"))  # 1 Feb in UTC
    assert cycle_at(new_york, "month", new_york).end == day(3, 1, hour=1)


def test_nothing_is_before_the_anchor():
    with pytest.raises(InvariantBroken):
        cycle_at(day(1, 31), "month", day(1, 30))
