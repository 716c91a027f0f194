"""Reports: booked once, charged exactly, idempotent for ever, never refused for want of credit."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from api_kit import Api

from lava_proxy.books import writer
from lava_proxy.books.writer import Item
from lava_proxy.core.ids import new_id
from lava_proxy.manage import reports
from lava_proxy.rules.charge import Counts
from lava_proxy.rules.settlement import Call, Settlement, calendar_cycle
from lava_proxy.store.database import StoreDown

LADDER = [
    {"start": "0", "rate": "5"},
    {"start": "1000000", "rate": "3"},
    {"start": "10000000", "rate": "1"},
]


async def test_a_report_is_a_request(api: Api) -> None:
    """The worked example: 2 USD per million, 500 in and 200 out are 0.0014."""
    customer = await api.customer(reference_id="u1")
    meter = await api.meter()
    made = await api.made(
        "requests",
        {
            "request_id": "r/1",
            "customer_id": "u1",
            "meter_slug": "m",
            "input_tokens": 500,
            "output_tokens": 200,
            "input_characters": 7,
            "input_seconds": 1.5,
            "output_seconds": 2,
            "metadata": {"feature": "chat"},
        },
    )
    assert made == {
        "request_id": "r/1",
        "status": "completed",
        "outcome": "completed",
        "customer_id": customer,
        "meter_id": meter["meter_id"],
        "provider": "reported",
        "provider_key_type": "unmanaged",
        "endpoint": "POST /v1/requests",
        "stream": False,
        "usage_source": "reported",
        "model_usage": {
            "input_tokens": 500,
            "output_tokens": 200,
            "total_tokens": 700,
            "input_characters": 7,
            "output_characters": 0,
            "total_characters": 7,
            "input_seconds": Decimal("1.5"),
            "output_seconds": 2,
            "total_seconds": Decimal("3.5"),
            "input_cost": "0.0000000000",
            "output_cost": "0.0000000000",
            "total_cost": "0.0000000000",
            "cache_read_tokens": 0,
            "cache_write_tokens": 0,
            "reasoning_tokens": 0,
        },
        "cost": "0.0000000000",
        "charge": {
            "amount": "0.0014000000",
            "rate_type": "fixed",
            "breakdown": [
                {
                    "tier": {"start": 0, "rate": "2.0000000000", "type": "tokens_1m"},
                    "tokens": 700,
                    "characters": 0,
                    "seconds": 0,
                    "cost": "0.0014000000",
                }
            ],
        },
        "metadata": {"feature": "chat"},
        "timestamp": made["timestamp"],
        "created_at": made["created_at"],
    }
    assert (await api.get("requests/r%2F1")).json == made
    assert (await api.get("requests")).json["data"] == [made]
    entries = (await api.get("ledger", request_id="r/1")).json["data"]
    assert [(e["account"], e["amount"], e["kind"]) for e in reversed(entries)] == [
        (f"customer:{customer}", "-0.0014000000", "charge"),
        (f"merchant:{api.merchant_id}:revenue", "0.0014000000", "charge"),
    ]
    assert await api.sound()


async def test_tiers_telescope_over_reports(api: Api) -> None:
    """The worked example: five million tokens on 5 / 3 / 1 are 17, however they come."""
    customer = await api.customer()
    await api.meter(tiers=LADDER)
    pieces = [999_999, 2, 1_500_001, 333_333, 2_166_665]
    assert sum(pieces) == 5_000_000
    charges = [
        (await api.made("requests", _report(f"r{n}", customer, input_tokens=piece)))["charge"]
        for n, piece in enumerate(pieces)
    ]
    assert sum(Decimal(c["amount"]) for c in charges) == 17
    crossing = charges[1]
    assert [p["tier"]["start"] for p in crossing["breakdown"]] == [0, 1_000_000]
    assert [p["tokens"] for p in crossing["breakdown"]] == [1, 1]
    assert [p["cost"] for p in crossing["breakdown"]] == ["0.0000050000", "0.0000030000"]
    found = await api.balance(customer)
    assert found["available"] == found["total_remaining"] == "-17.0000000000"
    assert await api.sound()


async def test_every_unit(api: Api) -> None:
    customer = await api.customer()
    for unit, rate in (("characters_1m", "30"), ("minutes", "0.6"), ("requests", "0.01")):
        await api.meter(unit, tier_type=unit, tiers=[{"start": "0", "rate": rate}])
    usage = {"input_characters": 1000, "output_characters": 1, "output_seconds": 30.25}
    charges = {
        unit: (await api.made("requests", _report(unit, customer, unit, **usage)))["charge"]
        for unit in ("characters_1m", "minutes", "requests")
    }
    assert {unit: charge["amount"] for unit, charge in charges.items()} == {
        "characters_1m": "0.0300300000",
        "minutes": "0.3025000000",
        "requests": "0.0100000000",
    }
    parts = {unit: charge["breakdown"][0] for unit, charge in charges.items()}
    assert parts["characters_1m"]["characters"] == 1001
    assert parts["minutes"]["seconds"] == Decimal("30.25")
    assert (parts["requests"]["tokens"], parts["requests"]["seconds"]) == (0, 0)
    assert await api.sound()


async def test_seconds_are_counted_to_the_millisecond(api: Api) -> None:
    """Clients send what their clocks say."""
    customer = await api.customer()
    await api.meter()
    for number, (sent, kept) in enumerate(
        [
            (b"0.0001", "0"),
            (b"0.0005", "0.001"),
            (b"12.345678901234567", "12.346"),
            (b"1e-9", "0"),
            (b"999999999.99949999999999999999", "999999999.999"),
        ]
    ):
        body = b'{"request_id":"r%d","customer_id":"%s","meter_slug":"m","input_seconds":%s}'
        text = body % (number, customer.encode(), sent)
        first, again = await api.post("requests", text), await api.post("requests", text)
        assert (first.status, again.body) == (200, first.body)
        assert Decimal(first.json["model_usage"]["input_seconds"]) == Decimal(kept), sent


async def test_a_report_that_was_booked_is_found_whatever_became_of_the_plan(api: Api) -> None:
    """The first answer was lost; meanwhile the meter left the plan."""
    customer = await api.customer()
    await api.meter()
    made = await api.made("requests", _report("r1", customer, input_tokens=5))
    plan = await api.made("plans", {"name": "p", "period_amount": "0", "billing_interval": "month"})
    await api.made("subscriptions", {"customer_id": customer, "plan_id": plan["plan_id"]})
    await api.books.directory.poll()
    assert await api.made("requests", _report("r1", customer, input_tokens=5)) == made
    for other in (_report("r1", customer, input_tokens=6), _report("r2", customer)):
        reply = await api.post("requests", other)
        assert (reply.status, reply.code) == (403, "meter_not_on_plan")
    assert len((await api.get("requests")).json["data"]) == 1


async def test_an_id_stays_taken_when_its_month_went(api: Api) -> None:
    """The same report is no conflict of contents, and is not charged again."""
    customer = await api.customer()
    await api.meter()
    await api.made("requests", _report("r1", customer, input_tokens=5))
    async with api.database.transaction() as conn:
        await conn.execute("DELETE FROM requests")
    again = await api.post("requests", _report("r1", customer, input_tokens=5))
    assert (again.status, again.code) == (409, "conflict")
    other = await api.post("requests", _report("r1", customer, input_tokens=6))
    assert (other.status, other.code) == (409, "idempotency_conflict")
    assert (await api.balance(customer))["available"] == "-0.0000100000"


async def test_what_was_deleted_is_found_by_its_id(api: Api, other: Api) -> None:
    """Its rows stay, and somebody writes the last bill."""
    customer = await api.customer(reference_id="u1")
    meter = (await api.meter())["meter_id"]
    await api.made("requests", _report("r1", customer, input_tokens=5))
    for path in (f"customers/{customer}", f"meters/{meter}"):
        assert (await api.call("DELETE", path)).status == 200
    for query in ({"customer_id": customer}, {"connection_id": customer}, {"meter_id": meter}):
        assert len((await api.get("requests", **query)).json["data"]) == 1
        used = (await api.get("usage", start="2026-01-01T00:00:00Z", **query)).json
        assert used["totals"]["total_requests"] == 1
        assert (await other.get("requests", **query)).status == 404
        assert (await other.get("usage", start="2026-01-01T00:00:00Z", **query)).status == 404
    assert len((await api.get("ledger", customer_id=customer)).json["data"]) == 2
    for query in ({"customer_id": "u1"}, {"meter_id": "m"}):  # others may have these names now
        assert (await api.get("requests", **query)).status == 404


async def test_a_percentage_needs_a_cost(api: Api) -> None:
    customer = await api.customer()
    await api.meter("p", rate_type="percentage", tiers=[{"start": "0", "rate": "120"}])
    without = await api.post("requests", _report("r1", customer, "p", input_tokens=5))
    assert (without.status, without.code) == (422, "meter_needs_cost")
    made = await api.made("requests", _report("r1", customer, "p", cost="0.0000000005"))
    assert made["cost"] == made["model_usage"]["total_cost"] == "0.0000000005"
    assert made["charge"]["amount"] == "0.0000000006"
    assert made["charge"]["rate_type"] == "percentage"
    entries = (await api.get("ledger", request_id="r1")).json["data"]
    assert [(e["account"], e["amount"]) for e in reversed(entries)][2:] == [
        (f"merchant:{api.merchant_id}:cost", "-0.0000000005"),
        ("provider:reported", "0.0000000005"),
    ]
    assert await api.sound()


async def test_the_same_report_is_booked_once(api: Api) -> None:
    """Also by the customer's other name, with keys in another order, and all at the same time."""
    customer = await api.customer(reference_id="u1")
    meter = await api.meter()
    body = _report("r1", "u1", input_tokens=700, metadata={"a": "1", "b": "2"})
    twin = {
        "metadata": {"b": "2", "a": "1"},
        "output_tokens": 0,
        "input_tokens": 700,
        "meter_slug": meter["meter_id"],
        "connection_id": customer,
        "request_id": "r1",
    }
    replies = await asyncio.gather(
        *(api.post("requests", [body, twin][n % 2]) for n in range(1, 41))
    )
    assert {(r.status, r.body) for r in replies} == {(200, replies[0].body)}
    assert (await api.balance(customer))["available"] == "-0.0014000000"
    assert len((await api.get("requests")).json["data"]) == 1
    assert await api.sound()


async def test_the_same_id_with_other_content_is_a_conflict(api: Api) -> None:
    customer, second = await api.customer(), await api.customer()
    await api.meter()
    await api.meter("n")
    made = await api.made("requests", _report("r1", customer, input_tokens=700))
    for other in (
        _report("r1", customer, input_tokens=701),
        _report("r1", customer, output_tokens=700),
        _report("r1", second, input_tokens=700),
        _report("r1", customer, "n", input_tokens=700),
        _report("r1", customer, input_tokens=700, metadata={"a": "b"}),
        _report("r1", customer, input_tokens=700, cost="0"),
        _report("r1", customer, input_tokens=700, input_seconds=0.001),
    ):
        reply = await api.post("requests", other)
        assert (reply.status, reply.code) == (409, "idempotency_conflict"), other
    assert (await api.get("requests/r1")).json == made
    assert (await api.balance(second))["available"] == "0.0000000000"
    assert await api.sound()


async def test_of_two_at_once_with_one_id_one_wins(api: Api) -> None:
    customer = await api.customer()
    await api.meter()
    replies = await asyncio.gather(
        *(api.post("requests", _report("r1", customer, input_tokens=n % 2)) for n in range(20))
    )
    assert sorted(r.status for r in replies) == [200] * 10 + [409] * 10
    assert len({r.body for r in replies if r.status == 200}) == 1
    assert await api.sound()


async def test_ids_are_the_merchants_own(api: Api, other: Api) -> None:
    for merchant, tokens in ((api, 1), (other, 2)):
        customer = await merchant.customer()
        await merchant.meter()
        made = await merchant.made("requests", _report("r1", customer, input_tokens=tokens))
        assert made["model_usage"]["input_tokens"] == tokens
    assert await api.sound()


async def test_an_id_of_the_gateway_cannot_be_reported(api: Api) -> None:
    customer = await api.customer()
    meter = await api.meter()
    now = api.books.now()
    request_id = new_id("request")
    call = Call(
        request_id=request_id,
        merchant_id=api.merchant_id,
        holder_id=api.books.journal.holder_id,
        owner_id=customer,
        customer_id=customer,
        meter=await api.books.directory.meter(api.merchant_id, meter["meter_id"]),
        cycle=calendar_cycle(now),
        billable=True,
        provider="openai",
        provider_key_type="managed",
        model="gpt-4o",
        endpoint="POST https://api.openai.com/v1/chat/completions",
        stream=True,
        created_at=now,
    )
    row = Settlement(
        call=call,
        outcome="cut_off",
        usage_source="estimate",
        counts=Counts(5, 6),
        cost=None,
        model="gpt-4o-2024",
        response_id="chatcmpl-1",
        duration_ms=12,
        first_byte_ms=3,
        price_version="v",
        completed_at=now,
    )
    api.books.writer.put(Item(row, None, 0, api.books.clock.boot_s()))
    await api.books.writer.flush()
    shown = (await api.get(f"requests/{request_id}")).json
    assert (shown["model"], shown["response_id"], shown["outcome"]) == (
        "gpt-4o-2024",
        "chatcmpl-1",
        "cut_off",
    )
    assert (shown["duration_ms"], shown["time_to_first_byte_ms"]) == (12, 3)
    assert (shown["stream"], shown["price_version"], shown["metadata"]) == (True, "v", {})
    assert shown["timestamp"] == shown["created_at"]
    reply = await api.post(
        "requests", _report(request_id, customer, input_tokens=5, output_tokens=6)
    )
    assert (reply.status, reply.code) == (409, "idempotency_conflict")
    assert (await api.get(f"requests/{request_id}")).json == shown


async def test_beyond_credit_is_debt_that_grants_repay(api: Api) -> None:
    customer = await api.customer()
    await api.meter()
    await api.made(f"customers/{customer}/credit", {"amount": "1"})
    await api.made("requests", _report("r1", customer, input_tokens=1_250_000))
    assert (await api.balance(customer))["available"] == "-1.5000000000"
    part = await api.made(f"customers/{customer}/credit", {"amount": "0.5"})
    assert part["remaining"] == "0.0000000000"
    assert (await api.balance(customer))["available"] == "-1.0000000000"
    rest = await api.made(f"customers/{customer}/credit", {"amount": "3"})
    assert rest["remaining"] == "2.0000000000"
    found = await api.balance(customer)
    assert found["available"] == found["bundle_remaining"] == "2.0000000000"
    assert await api.sound()


async def test_a_report_leaves_this_workers_leases_alone(api: Api) -> None:
    """What a worker has leased may be in use: a report that took it would let it be spent twice."""
    customer = await api.customer()
    await api.meter()
    await api.made(f"customers/{customer}/credit", {"amount": "4"})
    account = api.books.leases.account(customer)
    await api.books.leases.hold(account, 10**10, 10**10, 0)
    await api.books.leases.close()
    held = (await api.balance(customer))["held"]
    await api.made("requests", _report("r1", customer, input_tokens=2_000_000))
    found = await api.balance(customer)
    assert (found["held"], found["total_remaining"]) == (held, "0.0000000000")
    assert await api.sound()


async def test_wrong_reports(api: Api) -> None:
    customer = await api.customer()
    await api.meter()
    cases: list[tuple[dict[str, object], str]] = [
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 256}, "request_id"),
        ({"request_id": "a\u200b"}, "request_id"),
        ({"request_id": 5}, "request_id"),
        ({"customer_id": None}, "customer_id"),
        ({"meter_slug": ["m"]}, "meter_slug"),
        ({"input_tokens": -1}, "input_tokens"),
        ({"input_tokens": True}, "input_tokens"),
        ({"input_tokens": 1.0}, "input_tokens"),
        ({"input_tokens": "5"}, "input_tokens"),
        ({"input_tokens": None}, "input_tokens"),
        ({"output_tokens": 10**12 + 1}, "output_tokens"),
        ({"input_characters": 0.5}, "input_characters"),
        ({"output_characters": -1}, "output_characters"),
        ({"input_seconds": -0.001}, "input_seconds"),
        ({"input_seconds": False}, "input_seconds"),
        ({"output_seconds": "1"}, "output_seconds"),
        ({"output_seconds": 10**9 + 1}, "output_seconds"),
        ({"cost": 1}, "cost"),
        ({"cost": "-1"}, "cost"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a-b": "1"}}, "metadata.a-b"),
        ({"metadata": {"a": ""}}, "metadata.a"),
        ({"metadata": {"a": "x" * 256}}, "metadata.a"),
        ({"metadata": {f"k{n}": "v" for n in range(101)}}, "metadata"),
        ({"timestamp": "2020-01-01T00:00:00Z"}, "timestamp"),
        ({"input_ms": 5}, "input_ms"),
    ]
    for change, path in cases:
        reply = await api.post("requests", _report("r1", customer) | change)
        assert (reply.status, reply.code, reply.paths) == (422, "validation_error", [path]), change
    poisoned = b'{"request_id":"r","customer_id":"%s","meter_slug":"m","metadata":{"a":"\\u0000"}}'
    assert (await api.post("requests", poisoned % customer.encode())).status == 400
    differ = await api.post("requests", _report("r1", customer) | {"connection_id": "other"})
    assert (differ.status, differ.code) == (400, "invalid_request")
    for change in ({"customer_id": "nobody"}, {"meter_slug": "nothing"}):
        assert (await api.post("requests", _report("r1", customer) | change)).status == 404
    assert (await api.get("requests")).json["data"] == []


async def test_a_charge_beyond_all_bounds_is_refused_and_not_booked(api: Api) -> None:
    customer = await api.customer()
    await api.meter(tiers=[{"start": "0", "rate": "1000000"}])
    reply = await api.post("requests", _report("r1", customer, input_tokens=10**12))
    assert (reply.status, reply.code) == (422, "validation_error")
    assert (await api.post("requests", _report("r1", customer, input_tokens=1))).status == 200
    assert await api.sound()


async def test_filters(api: Api) -> None:
    first, second = await api.customer(reference_id="u1"), await api.customer()
    meter = await api.meter()
    await api.meter("n")
    for number, (customer, slug, metadata) in enumerate(
        [
            (first, "m", {"feature": "chat", "a": "b"}),
            (first, "n", {"feature": "chat"}),
            (second, "m", {"feature": "voice", "a": "b"}),
            (second, "n", None),
        ]
    ):
        await api.made("requests", _report(f"r{number}", customer, slug, metadata=metadata))

    async def ids(**query: str) -> str:
        found = (await api.get("requests", **query)).json["data"]
        return "".join(sorted(r["request_id"].removeprefix("r") for r in found))

    assert await ids() == "0123"
    assert await ids(customer_id="u1") == await ids(connection_id=first) == "01"
    assert await ids(meter_id=meter["meter_id"]) == "02"
    assert await ids(meter_id="n", customer_id=second) == "3"
    assert await ids(metadata_filters='[["feature","chat"]]') == "01"
    assert await ids(metadata_filters='[["feature","chat"],["a","b"]]') == "0"
    assert await ids(metadata_filters='[["a","b"]]', customer_id=second) == "2"
    assert await ids(metadata_filters='[["a","b"],["a","c"]]') == ""
    assert await ids(metadata_filters="[]") == "0123"
    for wrong in ("{}", "x", '["a","b"]', '[["a"]]', '[["a",1]]', '[["a","\\u0000"]]', "NaN"):
        assert (await api.get("requests", metadata_filters=wrong)).status == 422, wrong
    assert (await api.get("requests", customer_id="nobody")).status == 404
    assert (await api.get("requests", meter_id="nothing")).status == 404
    both = await api.get("requests", customer_id=first, connection_id=second)
    assert (both.status, both.code) == (400, "invalid_request")


async def test_pages_of_requests(api: Api) -> None:
    customer = await api.customer()
    await api.meter()
    await asyncio.gather(*(api.made("requests", _report(f"r{n}", customer)) for n in range(23)))
    seen: list[str] = []
    page: dict[str, Any] = {"has_more": True}
    while page["has_more"]:
        cursor = {"cursor": page["next_cursor"]} if seen else {}
        page = (await api.get("requests", limit=5, customer_id=customer, **cursor)).json
        seen += [r["request_id"] for r in page["data"]]
    assert (len(seen), len(set(seen))) == (23, 23)


async def test_with_the_database_away_it_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one waits in vain, the next are told at once; sent again later, both are booked."""
    customer = await api.customer()
    await api.meter()
    monkeypatch.setattr(reports, "COMMIT_WAIT_S", 0.2)
    away = True

    async def settle(*given: Any) -> Any:
        if away:
            raise StoreDown("gone")
        return await real(*given)

    real = writer.settle
    monkeypatch.setattr(writer, "settle", settle)
    for request_id in ("r1", "r2"):
        reply = await api.post("requests", _report(request_id, customer, input_tokens=700))
        assert (reply.status, reply.code) == (503, "unavailable")
        assert reply.headers["retry-after"] == "1"
    away = False
    await api.books.writer.flush()
    for request_id in ("r1", "r2"):
        await api.made("requests", _report(request_id, customer, input_tokens=700))
    assert (await api.balance(customer))["available"] == "-0.0028000000"
    assert await api.sound()


async def test_under_an_idempotency_key(api: Api) -> None:
    customer = await api.customer()
    await api.meter()
    body = _report("r1", customer, input_tokens=700)
    assert (await api.post("requests", body | {"input_tokens": -1}, key="k")).status == 422
    assert (await api.post("requests", body | {"meter_slug": "x"}, key="k")).status == 404
    made = await api.made("requests", body, key="k")
    again = await api.post("requests", body, key="k")
    assert (again.json, again.headers["idempotent-replayed"]) == (made, "true")
    other = await api.post("requests", body | {"request_id": "r2"}, key="k")
    assert (other.status, other.code) == (409, "idempotency_conflict")
    taken = _report("r1", customer, input_tokens=1)
    assert (await api.post("requests", taken, key="k2")).code == "idempotency_conflict"
    await api.made("requests", taken | {"request_id": "r3"}, key="k2")  # the key was given back
    assert (await api.balance(customer))["available"] == "-0.0014020000"


def _report(request_id: str, customer: str, meter: str = "m", **usage: object) -> dict[str, object]:
    return {
        "request_id": request_id,
        "customer_id": customer,
        "meter_slug": meter,
        **{name: value for name, value in usage.items() if value is not None},
    }


async def test_the_answer_is_what_is_read_afterwards(api: Api) -> None:
    """It is not read back from the database before it is given."""
    tiers = [{"start": "0", "rate": "3"}, {"start": "100", "rate": "1.5"}]
    customer = await api.customer()
    await api.meter("tiered", tiers=tiers)
    await api.meter("minutes", tier_type="minutes", tiers=[{"start": "0", "rate": "0.1"}])
    await api.meter("share", rate_type="percentage", tiers=[{"start": "0", "rate": "120"}])
    for number, fields in enumerate(
        (
            {"meter_slug": "tiered", "input_tokens": 70, "output_tokens": 80},
            {"meter_slug": "tiered", "metadata": {"long_name": "x", "b": "y", "a": "z"}},
            {"meter_slug": "minutes", "input_seconds": 61.5},
            {"meter_slug": "share", "cost": "1.25"},
        )
    ):
        body = {"request_id": f"r{number}", "customer_id": customer, **fields}
        made = await api.made("requests", body)
        assert made == (await api.get(f"requests/r{number}")).json
        assert made == (await api.get("requests", limit=1)).json["data"][0]
        assert made == await api.made("requests", body)
