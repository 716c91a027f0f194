"""Usage: equal to the sum of the requests, whatever the range, the offset and the filters."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from api_kit import Api, call_app
from books_kit import Shop, meter, row

from lava_proxy.core.money import format_e10

BASE = datetime(2026, 11, 20, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


async def booked(api: Api, seed: int, rows: int = 60) -> list[dict[str, Any]]:
    """Random rows of two customers and two meters over three days, many on edges of quarters."""
    chance = random.Random(seed)
    shop = Shop(api.database, api.merchant_id, now=BASE)
    customers = [await api.customer(reference_id=f"c{n}") for n in range(2)]
    meters = [str((await api.meter(f"m{n}"))["meter_id"]) for n in range(2)]
    batch, facts = [], []
    for number in range(rows):
        at = BASE + timedelta(minutes=15 * chance.randrange(288))
        at += chance.choice(
            (timedelta(), -timedelta(microseconds=1), timedelta(seconds=chance.randrange(900)))
        )
        owner, which = chance.choice(customers), chance.choice(meters)
        tag = chance.choice(("chat", "search"))
        made = row(
            owner,
            chance.randrange(1, 1000),
            shop=shop,
            by=meter(meter_id=which, merchant_id=api.merchant_id),
            request_id=f"r{number}",
            cost_e10=chance.randrange(1000),
            metadata={"feature": tag},
            cycle="2026-11",
        )
        batch.append(replace(made, call=replace(made.call, created_at=at)))
        facts.append({"at": at, "customer": owner, "meter": which, "feature": tag})
    for fact, settlement, done in zip(facts, batch, await shop.settle(*batch), strict=True):
        assert settlement.cost is not None
        fact |= {
            "tokens": settlement.counts.input_tokens,
            "cost": settlement.cost.total_e10,
            "charge": done.charge_e10,
        }
    return facts


def text(at: datetime, offset: tzinfo = UTC) -> str:
    """To the microsecond: an end counts as wide as it is written."""
    return at.astimezone(offset).isoformat(timespec="microseconds")


def totals(facts: list[dict[str, Any]]) -> dict[str, object]:
    return {
        "total_requests": len(facts),
        "total_usage_tokens": sum(f["tokens"] for f in facts),
        "total_cost": format_e10(sum(f["cost"] for f in facts)),
        "total_charge": format_e10(sum(f["charge"] for f in facts)),
    }


@pytest.mark.parametrize("seed", [1, 2])
async def test_it_is_the_sum_of_the_requests(api: Api, seed: int) -> None:
    facts = await booked(api, seed)
    chance = random.Random(seed)
    edges = [f["at"] for f in facts]
    for _ in range(40):
        offset = timezone(timedelta(minutes=15 * chance.randrange(-48, 57)))
        since, end = sorted(
            chance.choice(edges) + chance.choice((-1, 0, 1)) * timedelta(microseconds=1)
            for _ in range(2)
        )
        query: dict[str, str] = {"start": text(since, offset), "end": text(end)}
        wanted = [f for f in facts if since <= f["at"] <= end]
        if chance.random() < 0.4:
            query["customer_id"] = chance.choice(facts)["customer"]
            wanted = [f for f in wanted if f["customer"] == query["customer_id"]]
        if chance.random() < 0.4:
            query["meter_id"] = chance.choice(facts)["meter"]
            wanted = [f for f in wanted if f["meter"] == query["meter_id"]]
        if chance.random() < 0.4:
            query["metadata_filters"] = json.dumps([["feature", "chat"]])
            wanted = [f for f in wanted if f["feature"] == "chat"]
        found = (await api.get("usage", **query)).json
        assert found["totals"] == totals(wanted), query
        for item in found["items"]:
            day = [
                f for f in wanted if f["at"].astimezone(offset).date().isoformat() == item["date"]
            ]
            assert {name: item[name] for name in totals([])} == totals(day), (query, item)


async def test_days_are_the_callers_own_and_none_is_missing(api: Api) -> None:
    query = {"start": "2026-11-20T13:00:00-05:00", "end": "2026-11-23T05:00:00Z"}
    found = (await api.get("usage", **query)).json
    assert [item["date"] for item in found["items"]] == [
        "2026-11-20",
        "2026-11-21",
        "2026-11-22",
        "2026-11-23",
    ]
    first = found["items"][0]
    assert (first["start"], first["end"]) == (
        "2026-11-20T05:00:00.000Z",
        "2026-11-21T04:59:59.999Z",
    )
    assert found["totals"] == totals([])
    assert set(found) == {"items", "totals"}


async def test_until_now_when_no_end_is_given(api: Api) -> None:
    await booked(api, 3, rows=5)
    start = (datetime.now(UTC) - timedelta(days=300)).isoformat()
    assert (await api.get("usage", start=start)).json["totals"]["total_requests"] == 5


async def test_a_plus_that_came_as_a_space_is_a_plus(api: Api) -> None:
    """As a shell sends it that encodes nothing."""
    query = "start=2026-11-20T00:00:00+05:45&end=2026-11-21T00:00:00+05:45"
    headers = [("authorization", f"Bearer {api.secret}")]
    reply = await call_app(api.app, "GET", "/v1/usage", query=query, headers=headers)
    assert [item["date"] for item in reply.json["items"]] == ["2026-11-20", "2026-11-21"]
    assert reply.json["items"][0]["start"] == "2026-11-19T18:15:00.000Z"


async def test_an_end_counts_as_wide_as_it_is_written(api: Api) -> None:
    """So what the API shows can be asked for: a day by its ends, a request by its time."""
    facts = await booked(api, 6, rows=40)
    day = {"start": text(BASE, timezone(timedelta(hours=-5)))}
    found = (await api.get("usage", **day, end=text(BASE + timedelta(days=4)))).json
    for item in found["items"]:
        again = (await api.get("usage", start=item["start"], end=item["end"])).json
        # A bound of the whole range may cut the first day and the last.
        if item not in (found["items"][0], found["items"][-1]):
            assert again["totals"] == {name: item[name] for name in totals([])}
    [one] = (await api.get("requests", limit=1)).json["data"]
    at = one["created_at"]
    assert (await api.get("usage", start=at, end=at)).json["totals"]["total_requests"] >= 1
    last = BASE + timedelta(days=1)
    for end, behind in (
        ("2026-11-20T23:59:59Z", timedelta()),
        ("2026-11-20T23:59Z", timedelta()),
        ("2026-11-20T23:59:59.999Z", timedelta()),
        ("2026-11-20T23:59:59.999999Z", timedelta()),
        ("2026-11-20T23:59:59.9999Z", timedelta(microseconds=99)),
        ("2026-11-20T23:59:58Z", timedelta(seconds=1)),
    ):
        wanted = [f for f in facts if BASE <= f["at"] < last - behind]
        found = (await api.get("usage", start="2026-11-20T00:00:00Z", end=end)).json
        assert found["totals"] == totals(wanted), end


async def test_filters_that_contradict_each_other_find_nothing(api: Api) -> None:
    await booked(api, 4, rows=5)
    filters = json.dumps([["feature", "chat"], ["feature", "search"]])
    found = (await api.get("usage", start=text(BASE), metadata_filters=filters)).json
    assert found["totals"]["total_requests"] == 0


async def test_what_is_wrong_is_named(api: Api) -> None:
    good = "2026-11-20T00:00:00Z"
    for query, path in (
        ({}, "start"),
        ({"start": "2026-11-20"}, "start"),
        ({"start": "2026-11-20T00:00:00"}, "start"),
        ({"start": "2026-11-20T00:00:00+00:07"}, "start"),
        ({"start": "0001-01-01T00:00:00+14:00"}, "start"),
        ({"start": good, "end": "2026-11-19T00:00:00Z"}, "end"),
        ({"start": good, "end": "2028-11-19T00:00:00Z"}, "end"),
        ({"start": good, "end": "9999-12-31T23:59:59.999999Z"}, "start"),
        ({"start": "2999-01-01T00:00:00Z"}, "start"),
        ({"start": good, "limit": "5"}, "limit"),
        ({"start": good, "metadata_filters": "{}"}, "metadata_filters"),
    ):
        reply = await api.get("usage", **query)
        assert (reply.status, reply.paths) == (422, [path]), query
    for name in ("customer_id", "meter_id"):
        assert (await api.get("usage", start=good, **{name: "nobody"})).status == 404


async def test_nobody_sees_anothers_usage(api: Api, other: Api) -> None:
    facts = await booked(api, 5, rows=5)
    assert (await other.get("usage", start=text(BASE))).json["totals"]["total_requests"] == 0
    theirs = facts[0]["customer"]
    assert (await other.get("usage", start=text(BASE), customer_id=theirs)).status == 404
