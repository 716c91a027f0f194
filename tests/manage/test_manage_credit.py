"""Credit in and out, balances and the ledger: exact to the last digit."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest
from api_kit import Api

from lava_proxy.books.leases import Hold, Refusal
from lava_proxy.core.clock import SystemClock
from lava_proxy.store import credit
from lava_proxy.store.database import connect


async def test_grants_add_up(api: Api) -> None:
    customer = await api.customer(reference_id="u1")
    made = await api.made("customers/u1/credit", {"amount": "12.3456789012", "note": "welcome"})
    assert made == {
        "credit_id": made["credit_id"],
        "customer_id": customer,
        "amount": "12.3456789012",
        "remaining": "12.3456789012",
        "expires_at": None,
        "created_at": made["created_at"],
    }
    assert made["credit_id"].startswith("crd_")
    expiring = await api.made(
        f"customers/{customer}/credit",
        {"amount": "0.0000000001", "expires_at": "2999-12-31T23:59:59+01:00"},
    )
    assert expiring["expires_at"] == "2999-12-31T22:59:59.000Z"
    found = await api.balance(customer)
    assert found["available"] == found["total_remaining"] == "12.3456789013"
    assert (found["bundle_remaining"], found["cycle_remaining"]) == (
        "12.3456789013",
        "0.0000000000",
    )
    assert await api.sound()


async def test_a_correction_takes_back_what_is_free(api: Api) -> None:
    customer = await api.customer()
    path = f"customers/{customer}/credit"
    await api.made(path, {"amount": "5"})
    await api.made(path, {"amount": "5"})
    back = await api.made(path, {"amount": "-7.5"})
    assert (back["amount"], back["remaining"]) == ("-7.5000000000", "0.0000000000")
    refused = await api.post(path, {"amount": "-2.5000000001"})
    assert (refused.status, refused.code) == (409, "conflict")
    assert "2.5000000000" in refused.json["error"]["message"]
    assert (await api.balance(customer))["available"] == "2.5000000000"
    await api.made(path, {"amount": "-2.5"})
    assert (await api.balance(customer))["available"] == "0.0000000000"
    assert await api.sound()


async def test_what_a_worker_holds_is_not_free(api: Api) -> None:
    customer = await api.customer()
    path = f"customers/{customer}/credit"
    await api.made(path, {"amount": "4"})
    account = api.books.leases.account(customer)
    held = await api.books.leases.hold(account, 10**10, 10**10, 0)
    assert isinstance(held, Hold)
    await api.books.leases.close()  # a refill may be under way
    found = await api.balance(customer)
    assert Decimal(found["held"]) >= 1
    assert Decimal(found["available"]) + Decimal(found["held"]) == 4
    assert found["total_remaining"] == "4.0000000000"
    assert (await api.post(path, {"amount": "-4"})).status == 409
    await api.made(path, {"amount": f"-{found['available']}"})
    assert await api.sound()


async def test_wrong_credit(api: Api) -> None:
    customer = await api.customer()
    cases: list[tuple[dict[str, object], str]] = [
        ({}, "amount"),
        ({"amount": "0"}, "amount"),
        ({"amount": "-0.0"}, "amount"),
        ({"amount": 5}, "amount"),
        ({"amount": 5.5}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": "1e3"}, "amount"),
        ({"amount": "1,50"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "0.00000000001"}, "amount"),
        ({"amount": "10000000.0000000001"}, "amount"),
        ({"amount": "999999999999"}, "amount"),
        ({"amount": "1", "note": 5}, "note"),
        ({"amount": "1", "note": "x" * 1001}, "note"),
        ({"amount": "1", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"amount": "1", "expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        ({"amount": "1", "expires_at": "2999-13-01T00:00:00Z"}, "expires_at"),
        ({"amount": "1", "expires_at": "tomorrow"}, "expires_at"),
        ({"amount": "-1", "expires_at": "2999-01-01T00:00:00Z"}, "expires_at"),
        ({"amount": "1", "currency": "EUR"}, "currency"),
    ]
    for body, path in cases:
        reply = await api.post(f"customers/{customer}/credit", body)
        assert (reply.status, reply.code, reply.paths) == (422, "validation_error", [path]), body
    assert (
        await api.post(f"customers/{customer}/credit", b'{"note":"a\\u0000","amount":"1"}')
    ).status == 400
    assert (await api.post("customers/nobody/credit", {"amount": "1"})).status == 404
    assert (await api.get("ledger")).json["data"] == []


async def test_expired_credit_is_gone(api: Api) -> None:
    customer = await api.customer()
    async with api.database.transaction() as conn:
        await credit.grant(
            conn,
            grant_id="crd_old",
            owner_id=customer,
            kind="operator",
            amount_e10=3,
            expires_at=SystemClock().now(),
            note=None,
            now=SystemClock().now(),
        )
    await api.made(f"customers/{customer}/credit", {"amount": "0.0000000002"})
    assert (await api.balance(customer))["available"] == "0.0000000002"
    reply = await api.post(f"customers/{customer}/credit", {"amount": "-0.0000000003"})
    assert reply.status == 409
    await api.made(f"customers/{customer}/credit", {"amount": "-0.0000000001"})
    assert (await api.balance(customer))["available"] == "0.0000000001"
    kinds = [e["kind"] for e in (await api.get("ledger", limit=100)).json["data"]]
    assert kinds.count("expiry") == 2
    assert await api.sound()


async def test_many_at_once(api: Api) -> None:
    customer = await api.customer()
    path = f"customers/{customer}/credit"
    amounts = ["1.1", "0.0000000001", "-0.3"] * 10
    await api.made(path, {"amount": "100"})
    replies = await asyncio.gather(*(api.post(path, {"amount": a}) for a in amounts))
    assert [r.status for r in replies] == [200] * 30
    assert (await api.balance(customer))["available"] == "108.0000000010"
    assert await api.sound()


async def test_other_workers_hear_of_it(api: Api, database_url: str) -> None:
    customer = await api.customer()
    heard: asyncio.Queue[object] = asyncio.Queue()
    conn = await connect(database_url)
    try:
        await conn.add_listener("lava_credit", lambda _c, _p, _n, text: heard.put_nowait(text))
        assert (await api.post(f"customers/{customer}/credit", {"amount": "-1"})).status == 409
        await api.made(f"customers/{customer}/credit", {"amount": "1"})
        async with asyncio.timeout(10):
            assert await heard.get() == customer
        assert heard.empty()
    finally:
        await conn.close()


async def test_this_worker_forgets_its_refusal(api: Api) -> None:
    customer = await api.customer()
    leases = api.books.leases
    account = leases.account(customer)
    refused = await leases.hold(account, 10, 10, 0)
    assert refused == Refusal(10, 0)
    await api.made(f"customers/{customer}/credit", {"amount": "1"})
    held = await leases.hold(account, 10, 10, 0)
    assert isinstance(held, Hold)
    held.release(0)


async def test_the_ledger(api: Api, other: Api) -> None:
    first, second = await api.customer(reference_id="u1"), await api.customer()
    await api.made(f"customers/{first}/credit", {"amount": "3"})
    await api.made(f"customers/{second}/credit", {"amount": "4"})
    await api.made(f"customers/{first}/credit", {"amount": "-1"})
    entries = await _all(api)
    assert [(e["account"], e["amount"], e["kind"], e["request_id"]) for e in reversed(entries)] == [
        ("operator:grants", "-3.0000000000", "grant", None),
        (f"customer:{first}", "3.0000000000", "grant", None),
        ("operator:grants", "-4.0000000000", "grant", None),
        (f"customer:{second}", "4.0000000000", "grant", None),
        ("operator:grants", "1.0000000000", "withdrawal", None),
        (f"customer:{first}", "-1.0000000000", "withdrawal", None),
    ]
    assert set(entries[0]) == {
        "entry_id",
        "transaction_id",
        "account",
        "amount",
        "kind",
        "request_id",
        "created_at",
    }
    assert isinstance(entries[0]["entry_id"], str)
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for entry in entries:
        sums[entry["transaction_id"]] += Decimal(entry["amount"])
    assert list(sums.values()) == [0, 0, 0]
    assert await _all(api, customer_id="u1") == entries[:2] + entries[4:]
    assert await _all(api, connection_id=second) == entries[2:4]
    assert await _all(api, request_id="nobody's") == []
    assert (await api.get("ledger", customer_id="nobody")).status == 404
    assert await _all(other) == []


async def _all(api: Api, **query: str) -> list[dict[str, Any]]:
    """Every page, five entries at a time."""
    entries: list[dict[str, Any]] = []
    more: dict[str, Any] = {"has_more": True}
    while more["has_more"]:
        cursor = {"cursor": more["next_cursor"]} if entries else {}
        more = (await api.get("ledger", limit=5, **query, **cursor)).json
        entries += more["data"]
    return entries


@pytest.mark.parametrize("amount", ["-1", "1"])
async def test_replays_and_conflicts(api: Api, amount: str) -> None:
    customer = await api.customer()
    path = f"customers/{customer}/credit"
    await api.made(path, {"amount": "1"})
    replies = await asyncio.gather(*(api.post(path, {"amount": amount}, key="k") for _ in range(8)))
    assert {(r.status, r.body) for r in replies} == {(200, replies[0].body)}
    assert sum(r.headers.get("idempotent-replayed") == "true" for r in replies) == 7
    other_body = await api.post(path, {"amount": "2"}, key="k")
    assert (other_body.status, other_body.code) == (409, "idempotency_conflict")
    assert (await api.balance(customer))["available"] == (
        "2.0000000000" if amount == "1" else "0.0000000000"
    )
    assert await api.sound()
