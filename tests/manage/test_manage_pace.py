"""The rate of management calls: kept in every window, each merchant's own, bounded in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from api_kit import Api, call_app
from hypothesis import given
from hypothesis import strategies as st

from lava_adapters.registry import Registry
from lava_proxy.core.clock import ManualClock
from lava_proxy.core.errors import LavaError
from lava_proxy.manage.app import create_management
from lava_proxy.manage.pace import Pace


def taken(pace: Pace, merchant: str = "m") -> bool:
    try:
        pace.take(merchant)
    except LavaError:
        return False
    return True


@given(st.lists(st.integers(1, 200), min_size=20, max_size=200))
def test_no_window_has_more_than_the_bucket_and_its_rate(gaps_ms: list[int]) -> None:
    clock = ManualClock()
    pace = Pace(clock, 60)
    at_s: list[float] = []
    for gap in gaps_ms:
        clock.advance(gap / 1000)
        at_s += [clock.seconds] * sum(taken(pace) for _ in range(3))
    for start in range(len(at_s)):
        for end in range(start, len(at_s)):
            assert end - start + 1 <= 60 + (at_s[end] - at_s[start]) + 1


def test_it_comes_back_when_it_said() -> None:
    clock = ManualClock()
    pace = Pace(clock, 6)
    assert [taken(pace) for _ in range(8)] == [True] * 6 + [False] * 2
    with pytest.raises(LavaError) as told:
        pace.take("m")
    assert (told.value.code, told.value.status) == ("rate_limit_exceeded", 429)
    assert told.value.headers["retry-after"] == "10"
    assert told.value.headers["x-ratelimit-remaining"] == "0"
    for _ in range(999):  # asking all the time puts nothing off
        clock.advance(0.01)
        assert not taken(pace)
    clock.advance(0.011)
    assert [taken(pace), taken(pace)] == [True, False]
    clock.advance(3600)
    assert sum(taken(pace) for _ in range(20)) == 6


def test_merchants_are_apart_and_few_are_remembered() -> None:
    pace = Pace(ManualClock(), 1, most=2)
    assert [taken(pace, "a"), taken(pace, "b"), taken(pace, "a")] == [True, True, False]
    assert taken(pace, "c")  # b was quiet the longest
    assert [taken(pace, "a"), taken(pace, "b")] == [False, True]


def test_no_limit() -> None:
    pace = Pace(ManualClock(), 0)
    assert all(pace.take("m") == {} for _ in range(1000))


async def test_what_callers_see(api: Api, other: Api) -> None:
    api.books.settings = api.books.settings.model_copy(update={"manage_rate_per_minute": 3})
    app = create_management(api.books, Registry.builtin())
    api, other = replace(api, app=app), replace(other, app=app)
    customer = await api.customer()
    meter = await api.meter()
    good = await api.get("customers")
    assert good.headers["x-ratelimit-limit"] == "3"
    assert good.headers["x-ratelimit-remaining"] == "0"
    for method, path in (("GET", "customers"), ("POST", "customers"), ("GET", "requests/x")):
        reply = await api.call(method, path, {} if method == "POST" else None)
        assert (reply.status, reply.code) == (429, "rate_limit_exceeded")
        assert 1 <= int(reply.headers["retry-after"]) <= 20
        assert reply.headers["x-ratelimit-remaining"] == "0"
    report = {"request_id": "r", "customer_id": customer, "meter_slug": meter["meter_slug"]}
    assert (await api.post("requests", report)).status == 200  # reports are traffic
    assert (await call_app(app, "GET", "/v1/services/providers/openai")).status == 200
    assert (await other.get("customers")).status == 200
    refused = await call_app(app, "GET", "/v1/customers", headers=[("authorization", "Bearer x")])
    assert refused.status == 401
