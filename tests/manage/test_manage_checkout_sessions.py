"""Checkout sessions: who may be sold what, and the token for the browser."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest
from api_kit import Api

ORIGIN = "https://shop.example/pricing?a=1"


async def plan(api: Api, plan_id: str = "sc_1", bundle: str = "cb_1") -> None:
    """A plan that sells one bundle, written as it is stored."""
    async with api.database.transaction() as conn:
        await conn.execute(
            "INSERT INTO plans (plan_id, merchant_id, name, period_amount_e10, included_credit_e10,"
            " billing_interval, rollover_type, bundle_rollover_type)"
            " VALUES ($1, $2, 'Pro', 10, 10, 'month', 'none', 'full')",
            plan_id,
            api.merchant_id,
        )
        await conn.execute(
            "INSERT INTO credit_bundles (credit_bundle_id, plan_id, merchant_id, name, cost_e10,"
            " credit_e10) VALUES ($1, $2, $3, 'More', 10, 10)",
            bundle,
            plan_id,
            api.merchant_id,
        )


async def subscribe(api: Api, customer: str, plan_id: str = "sc_1") -> None:
    async with api.database.transaction() as conn:
        await conn.execute(
            "INSERT INTO subscriptions (subscription_id, merchant_id, customer_id, plan_id, status,"
            " started_at, anchor_at, cycle_seq, cycle_start_at, cycle_end_at)"
            " VALUES ('sub_1', $1, $2, $3, 'active', now(), now(), 1, now(),"
            " now() + interval '1 month')",
            api.merchant_id,
            customer,
            plan_id,
        )


def wanted(**fields: object) -> dict[str, object]:
    return {"checkout_mode": "subscription", "origin_url": ORIGIN, "plan_id": "sc_1", **fields}


def bundle(**fields: object) -> dict[str, object]:
    return {
        "checkout_mode": "credit_bundle",
        "origin_url": ORIGIN,
        "credit_bundle_id": "cb_1",
        **fields,
    }


async def test_a_session_for_a_plan(api: Api) -> None:
    await plan(api)
    made = await api.made("checkout_sessions", wanted())
    assert made == {
        "checkout_session_id": made["checkout_session_id"],
        "checkout_session_token": made["checkout_session_token"],
        "checkout_mode": "subscription",
        "origin_url": ORIGIN,
        "plan_id": "sc_1",
        "created_at": made["created_at"],
    }
    token: dict[str, Any] = json.loads(b64decode(made["checkout_session_token"], validate=True))
    assert token == {"secret": token["secret"], "base": "http://gateway.test/"}
    assert token["secret"].startswith("css_live_")
    async with api.database.connection() as conn:
        rows = await conn.fetch("SELECT * FROM checkout_sessions")
    assert token["secret"] not in str(rows)
    assert (rows[0]["expires_at"] - rows[0]["created_at"]).total_seconds() == 86_400


async def test_a_session_for_a_bundle(api: Api) -> None:
    await plan(api)
    customer = await api.customer(reference_id="u1")
    assert (await api.post("checkout_sessions", bundle(customer_id="u1"))).code == "conflict"
    await subscribe(api, customer)
    for name in ({"customer_id": "u1"}, {"connection_id": customer}):
        made = await api.made("checkout_sessions", bundle(**name))
        assert "plan_id" not in made
    await plan(api, "sc_2", "cb_2")
    other = await api.post("checkout_sessions", bundle(customer_id="u1", credit_bundle_id="cb_2"))
    assert other.paths == ["credit_bundle_id"]
    same = await api.post("checkout_sessions", wanted(customer_id=customer))
    assert same.code == "conflict"
    await api.made("checkout_sessions", wanted(customer_id=customer, plan_id="sc_2"))
    assert (await api.call("DELETE", "subscriptions/sub_1")).status == 200
    await api.made("checkout_sessions", wanted(customer_id=customer))  # it will be left


async def test_the_same_key_opens_one_session(api: Api) -> None:
    await plan(api)
    first = await api.made("checkout_sessions", wanted(), key="k")
    token = first.pop("checkout_session_token")
    assert await api.made("checkout_sessions", wanted(), key="k") == first  # shown once
    async with api.database.connection() as conn:
        kept = await conn.fetchval("SELECT convert_from(answer, 'UTF8') FROM idempotency_keys")
    assert token not in kept


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (wanted(plan_id=None), "plan_id"),
        (wanted(credit_bundle_id="cb_1"), "credit_bundle_id"),
        (bundle(), "customer_id"),
        (bundle(customer_id="u1", credit_bundle_id=None), "credit_bundle_id"),
        (bundle(customer_id="u1", plan_id="sc_1"), "plan_id"),
        (wanted(checkout_mode="gift"), "checkout_mode"),
        (wanted(more=1), "more"),
        *(
            (wanted(origin_url=url), "origin_url")
            for url in (
                "",
                "shop.example",
                "javascript:alert(1)",
                "https://",
                "https://a@shop.example",
                "https://shop.example:x/",
                "https://shop.example; script-src *",
                "https://shop.example/\u00e4",
            )
        ),
    ],
)
async def test_wrong_fields(api: Api, body: dict[str, object], path: str) -> None:
    refused = await api.post("checkout_sessions", body)
    assert (refused.status, refused.paths) == (422, [path])


async def test_what_is_not_yours_is_not_there(api: Api, other: Api) -> None:
    await plan(other)
    theirs = await other.customer(reference_id="u1")
    await subscribe(other, theirs)
    mine = await api.customer()
    for body in (
        wanted(),
        bundle(customer_id=mine),
        bundle(customer_id=theirs),
        wanted(customer_id=theirs),
    ):
        assert (await api.post("checkout_sessions", body)).status == 404
