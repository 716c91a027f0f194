"""Quotes: what a call may cost at most, before it is made."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from api_kit import Api

from lava_proxy.books.leases import Hold

URL = "https://api.openai.com/v1/chat/completions"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x" * 700}]}


async def test_a_call(api: Api) -> None:
    customer = await api.customer()
    await api.meter(tiers=[{"start": "0", "rate": "10"}, {"start": "5", "rate": "20"}])
    await api.made(f"customers/{customer}/credit", {"amount": "1"})
    ask = {"customer_id": customer, "meter_slug": "m", "url": URL}
    found = await api.made("quotes", ask | {"body": CHAT | {"max_tokens": 1000}})
    assert set(found) == {
        "affordable",
        "input_estimate",
        "ceiling",
        "hold",
        "available",
        "max_output_tokens_affordable",
        "price_version",
    }
    assert (found["affordable"], found["available"]) == (True, "1.0000000000")
    estimate, ceiling = Decimal(found["input_estimate"]), Decimal(found["ceiling"])
    assert Decimal("0.004") <= estimate <= Decimal("0.006")  # 200 tokens
    assert Decimal("0.034") <= ceiling <= Decimal("0.050")  # at most 1500, and a thousand more
    assert found["price_version"].startswith("genai-prices/")
    most = found["max_output_tokens_affordable"]
    assert 48_000 < most < 50_000
    most = (await api.made("quotes", ask | {"body": CHAT | {"max_tokens": 10_000}}))[
        "max_output_tokens_affordable"
    ]  # as many digits as the figure itself: the bound counts bytes
    exact = await api.made("quotes", ask | {"body": CHAT | {"max_tokens": most}})
    beyond = await api.made("quotes", ask | {"body": CHAT | {"max_tokens": most + 1}})
    assert (exact["affordable"], beyond["affordable"]) == (True, False)
    many = await api.made("quotes", ask | {"body": CHAT | {"max_tokens": 1000}, "calls": 3})
    assert Decimal(many["ceiling"]) == 3 * ceiling
    assert 3 * many["max_output_tokens_affordable"] < most
    assert (await api.balance(customer))["available"] == "1.0000000000"


async def test_a_percentage_of_the_models_price(api: Api) -> None:
    customer = await api.customer()
    for slug, rate in (("full", "100"), ("double", "200")):
        await api.meter(slug, rate_type="percentage", tiers=[{"start": "0", "rate": rate}])
    ask = {"customer_id": customer, "url": URL, "body": CHAT | {"max_tokens": 100}}
    once = await api.made("quotes", ask | {"meter_slug": "full"})
    twice = await api.made("quotes", ask | {"meter_slug": "double"})
    assert abs(Decimal(twice["ceiling"]) - 2 * Decimal(once["ceiling"])) < Decimal("0.000001")
    unknown = ask | {"meter_slug": "full", "body": CHAT | {"model": "nobody's"}}
    reply = await api.post("quotes", unknown)
    assert (reply.status, reply.code) == (402, "model_unpriced")


async def test_amounts_and_flat_meters(api: Api) -> None:
    customer = await api.customer(reference_id="u1")
    await api.meter("flat", tier_type="requests", tiers=[{"start": "0", "rate": "0.01"}])
    await api.made("customers/u1/credit", {"amount": "1"})
    for ask, ceiling, affordable in (
        ({}, "0.0100000000", True),
        ({"calls": 100}, "1.0000000000", True),
        ({"calls": 101}, "1.0100000000", False),
        ({"amount": "1"}, "1.0000000000", True),
        ({"amount": "1.0000000001"}, "1.0000000001", False),
        ({"amount": "0.5", "calls": 3}, "1.5000000000", False),
    ):
        found = await api.made("quotes", {"connection_id": "u1", "meter_slug": "flat"} | ask)
        assert found == {
            "affordable": affordable,
            "input_estimate": "0.0000000000",
            "ceiling": ceiling,
            "hold": ceiling,
            "available": "1.0000000000",
            "max_output_tokens_affordable": None,
            "price_version": None,
        }
    assert customer.startswith("con_")


async def test_overdraft_and_debt_count(api: Api) -> None:
    customer = await api.customer()
    await api.meter("soft", enforcement="soft", overdraft="2")
    ask: dict[str, Any] = {"customer_id": customer, "meter_slug": "soft"}
    assert (await api.made("quotes", ask | {"amount": "2"}))["affordable"] is True
    report = {"request_id": "r1", "input_tokens": 500_000, **ask}
    await api.made("requests", report)
    found = await api.made("quotes", ask | {"amount": "1.0000000001"})
    assert (found["affordable"], found["available"]) == (False, "-1.0000000000")
    assert (await api.made("quotes", ask | {"amount": "1"}))["affordable"] is True


async def test_idle_leases_of_this_worker_count(api: Api) -> None:
    customer = await api.customer()
    await api.meter()
    await api.made(f"customers/{customer}/credit", {"amount": "4"})
    leases = api.books.leases
    held = await leases.hold(leases.account(customer), 10**10, 10**10, 0)
    assert isinstance(held, Hold)
    await leases.close()
    ask = {"customer_id": customer, "meter_slug": "m", "amount": "4"}
    assert (await api.made("quotes", ask))["available"] == "3.0000000000"
    held.release(0)
    found = await api.made("quotes", ask)
    assert (found["available"], found["affordable"]) == ("4.0000000000", True)


async def test_wrong_quotes(api: Api) -> None:
    customer = await api.customer()
    await api.meter()
    ask: dict[str, object] = {"customer_id": customer, "meter_slug": "m"}
    cases: list[tuple[dict[str, object], int, str]] = [
        ({}, 422, "validation_error"),
        ({"url": URL, "amount": "1"}, 422, "validation_error"),
        ({"body": {}, "amount": "1"}, 422, "validation_error"),
        ({"amount": "1", "calls": 0}, 422, "validation_error"),
        ({"amount": "1", "calls": 1.0}, 422, "validation_error"),
        ({"amount": "-1"}, 422, "validation_error"),
        ({"url": URL, "body": []}, 422, "validation_error"),
        ({"url": URL, "body": CHAT | {"max_tokens": -5}}, 422, "validation_error"),
        ({"url": URL, "body": CHAT, "method": "get"}, 422, "validation_error"),
        ({"url": URL, "body": CHAT, "method": "DELETE"}, 400, "forward_endpoint_not_supported"),
        ({"url": "https://evil.example/v1", "body": CHAT}, 400, "forward_endpoint_not_supported"),
        ({"url": "https://api.openai.com/v1/../admin", "body": CHAT}, 400, "invalid_request"),
        ({"url": "http://api.openai.com/v1/chat/completions"}, 400, "invalid_request"),
        ({"url": "https://127.0.0.1/v1/chat/completions"}, 400, "invalid_request"),
        ({"url": "ä", "body": CHAT}, 400, "invalid_request"),
        ({"amount": "1", "customer_id": "nobody"}, 404, "not_found"),
        ({"amount": "1", "meter_slug": "nothing"}, 404, "not_found"),
        ({"amount": "1", "connection_id": "other"}, 400, "invalid_request"),
    ]
    for change, status, code in cases:
        reply = await api.post("quotes", ask | change)
        assert (reply.status, reply.code) == (status, code), (change, reply.body)


async def test_a_key_stands_for_one_question_and_the_answer_is_of_now(api: Api) -> None:
    customer = await api.customer()
    await api.meter()
    ask: dict[str, object] = {"customer_id": customer, "meter_slug": "m", "amount": "2"}
    assert (await api.made("quotes", ask, key="k"))["affordable"] is False
    await api.made(f"customers/{customer}/credit", {"amount": "2"})
    again = await api.post("quotes", ask, key="k")
    assert (again.json["affordable"], again.json["available"]) == (True, "2.0000000000")
    assert "idempotent-replayed" not in again.headers
    for path, body in (("quotes", ask | {"amount": "3"}), ("customers", {})):
        reply = await api.post(path, body, key="k")
        assert (reply.status, reply.code) == (409, "idempotency_conflict")
    assert (await api.post("quotes", ask | {"meter_slug": "no"}, key="free")).status == 404
    await api.made("customers", {}, key="free")
    reply = await api.post("quotes", ask, key="")
    assert (reply.status, reply.code) == (400, "invalid_request")


async def test_a_model_that_nobody_knows_is_held_for_its_longest_answer(api: Api) -> None:
    customer = await api.customer()
    await api.meter(tiers=[{"start": "0", "rate": "10"}])
    body = CHAT | {"model": "nobody's"}
    ask = {"customer_id": customer, "meter_slug": "m", "url": URL, "body": body}
    before = Decimal((await api.made("quotes", ask))["ceiling"])
    api.books.learned.answered("openai", "nobody's", 120_000)
    after = Decimal((await api.made("quotes", ask))["ceiling"])
    assert before < Decimal("1") < after
    capped = await api.made("quotes", ask | {"body": body | {"max_tokens": 100}})
    assert Decimal(capped["ceiling"]) < Decimal("0.02")
