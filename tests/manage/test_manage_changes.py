"""Changing and ending customers, meters and secret keys."""

from __future__ import annotations

import asyncio
from typing import Any

from api_kit import Api, Reply
from books_kit import fetch

REPORT = {"meter_slug": "m", "input_tokens": 5}


async def change(api: Api, path: str, **fields: Any) -> Reply:
    return await api.call("PATCH", path, fields)


async def changed(api: Api, path: str, **fields: Any) -> dict[str, Any]:
    reply = await change(api, path, **fields)
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json
    return found


async def delete(api: Api, path: str) -> Reply:
    return await api.call("DELETE", path)


# Customers --------------------------------------------------------------------------------------


async def test_a_customer_changes_in_what_is_given(api: Api) -> None:
    before = await api.made(
        "customers",
        {"reference_id": "a", "name": "Jane Mary Smith", "email": "j@s.test", "metadata": {"n": 1}},
    )
    path = f"customers/{before['customer_id']}"
    assert await changed(api, path) == before
    after = await changed(api, path, phone="+14155550100", reference_id="b")
    assert after["contact"] == before["contact"] | {"phone": "+14155550100"}
    assert (after["reference_id"], after["metadata"]) == ("b", {"n": 1})
    assert after == (await api.get("customers/b")).json
    assert (await api.get("customers/a")).status == 404
    renamed = await changed(api, "customers/b", name="Jo", metadata={"m": [1.50, None]})
    assert (renamed["contact"]["first_name"], renamed["contact"]["last_name"]) == ("Jo", "")
    assert str(renamed["metadata"]["m"][0]) == "1.5"
    empty = await changed(
        api, path, name=None, email=None, phone=None, metadata=None, reference_id=None
    )
    assert set(empty["contact"].values()) == {""}
    assert (empty["metadata"], empty["reference_id"]) == (None, None)


async def test_a_reference_belongs_to_one(api: Api, other: Api) -> None:
    await api.customer(reference_id="a")
    second = await api.customer(reference_id="b")
    await other.customer(reference_id="c")
    taken = await change(api, f"customers/{second}", reference_id="a")
    assert (taken.status, taken.code) == (409, "conflict")
    assert (await changed(api, f"customers/{second}", reference_id="b"))["reference_id"] == "b"
    assert (await changed(api, f"customers/{second}", reference_id="c"))["reference_id"] == "c"
    wrong = await change(api, f"customers/{second}", reference_id="con_x", colour="red")
    assert (wrong.status, sorted(wrong.paths)) == (422, ["colour", "reference_id"])


async def test_a_race_for_a_reference_has_one_winner(api: Api) -> None:
    customers = [await api.customer() for _ in range(4)]
    replies = await asyncio.gather(
        *[change(api, f"customers/{customer}", reference_id="one") for customer in customers]
    )
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409]


async def test_a_customer_that_ends_is_refused_and_its_books_stay(api: Api) -> None:
    customer = await api.customer(reference_id="a")
    await api.meter()
    await api.made(f"customers/{customer}/credit", {"amount": "1"})
    await api.made("requests", REPORT | {"request_id": "r1", "customer_id": "a"})
    assert (await delete(api, "customers/a")).json == {"success": True}
    for reply in (
        await api.get("customers/a"),
        await api.get(f"customers/{customer}"),
        await delete(api, f"customers/{customer}"),
        await change(api, f"customers/{customer}", name="x"),
        await api.post("requests", REPORT | {"request_id": "r2", "customer_id": customer}),
        await api.get(f"customers/{customer}/balance"),
    ):
        assert (reply.status, reply.code) == (404, "not_found")
    assert (await api.get("customers")).json["data"] == []
    assert (await api.get("requests/r1")).json["customer_id"] == customer
    assert await api.customer(reference_id="a") != customer  # the reference is free again
    assert await api.sound()


async def test_the_subscription_of_a_customer_that_ends_is_cancelled(api: Api) -> None:
    customer = await api.customer()
    await fetch(
        api.database,
        "INSERT INTO plans (plan_id, merchant_id, name, period_amount_e10, included_credit_e10, "
        "billing_interval, rollover_type, bundle_rollover_type) "
        "VALUES ('sc_1', $1, 'p', 0, 0, 'month', 'none', 'full')",
        api.merchant_id,
    )
    await fetch(
        api.database,
        "INSERT INTO subscriptions (subscription_id, merchant_id, customer_id, plan_id, status, "
        "started_at, anchor_at, cycle_seq, cycle_start_at, cycle_end_at) "
        "VALUES ('sub_1', $1, $2, 'sc_1', 'active', now(), now(), 1, now(), now() + '1 month')",
        api.merchant_id,
        customer,
    )
    await fetch(
        api.database,
        "INSERT INTO payments (payment_id, merchant_id, customer_id, purpose, amount_e10, status, "
        "provider, subscription_id, seq) "
        "VALUES ('pay_1', $1, $2, 'renewal', 5, 'pending', 'manual', 'sub_1', 2)",
        api.merchant_id,
        customer,
    )
    await delete(api, f"customers/{customer}")
    found = await fetch(api.database, "SELECT status, cancelled_at IS NOT NULL FROM subscriptions")
    assert found == [("cancelled", True)]
    # Nobody is asked to pay any more.
    assert await fetch(api.database, "SELECT status FROM payments") == [("cancelled",)]


# Meters -----------------------------------------------------------------------------------------


async def test_a_meter_changes_in_how_much_and_not_in_what(api: Api) -> None:
    before = await api.meter()
    customer = await api.customer()
    tiers = [{"start": "0", "rate": "4"}, {"start": "10", "rate": "1"}]
    after = await changed(api, "meters/m", name="new", tiers=tiers)
    assert after == before | {
        "name": "new",
        "tiers": [
            {"start": 0, "rate": "4.0000000000", "type": "tokens_1m"},
            {"start": 10, "rate": "1.0000000000", "type": "tokens_1m"},
        ],
    }
    made = await api.made("requests", REPORT | {"request_id": "r", "customer_id": customer})
    assert made["charge"]["amount"] == "0.0000200000"
    for fields, path in (
        ({"rate_type": "percentage"}, "rate_type"),
        ({"tier_type": "requests"}, "tier_type"),
        ({"meter_slug": "x"}, "meter_slug"),
        ({"tiers": []}, "tiers"),
        ({"tiers": [{"start": "1", "rate": "4"}]}, "tiers[0].start"),
        ({"name": None}, "name"),
        ({"overdraft": "5"}, "overdraft"),
    ):
        reply = await change(api, "meters/m", **fields)
        assert (reply.status, reply.paths) == (422, [path]), fields
    soft = await changed(api, "meters/m", enforcement="soft", overdraft="5")
    assert (soft["enforcement"], soft["overdraft"]) == ("soft", "5.0000000000")
    assert (await change(api, "meters/m", enforcement="strict")).paths == ["overdraft"]
    assert (await api.get("meters/m")).json == soft


async def test_a_meter_that_a_plan_has_stays(api: Api) -> None:
    made = await api.meter()
    await fetch(
        api.database,
        "INSERT INTO plans (plan_id, merchant_id, name, period_amount_e10, included_credit_e10, "
        "billing_interval, rollover_type, bundle_rollover_type) "
        "VALUES ('sc_1', $1, 'Gold', 0, 0, 'month', 'none', 'full')",
        api.merchant_id,
    )
    link = "INSERT INTO plan_meters (plan_id, meter_id) VALUES ('sc_1', $1)"
    await fetch(api.database, link, made["meter_id"])
    refused = await delete(api, "meters/m")
    assert (refused.status, refused.code) == (409, "conflict")
    assert "Gold" in refused.json["error"]["message"]
    await fetch(api.database, "UPDATE plans SET deleted_at = now()")
    assert (await delete(api, "meters/m")).json == {"id": made["meter_id"], "deleted": True}
    assert (await api.get("meters/m")).status == 404
    assert (await delete(api, "meters/m")).status == 404
    assert (await change(api, "meters/m", name="x")).status == 404
    customer = await api.customer()
    gone = await api.post("requests", REPORT | {"request_id": "r", "customer_id": customer})
    assert gone.status == 404
    assert (await api.meter())["meter_id"] != made["meter_id"]  # the slug is free again


# Secret keys ------------------------------------------------------------------------------------


async def test_a_key_is_shown_once(api: Api) -> None:
    made = await api.made("secret_keys", {"name": "second"}, key="k")
    assert set(made) == {
        "secret_key_id",
        "name",
        "secret_key_hint",
        "created_at",
        "secret_key",
    }
    secret = made.pop("secret_key")
    assert secret.startswith("aks_live_")
    assert made["secret_key_hint"] == f"aks_live_****{secret[-4:]}"
    again = await api.made("secret_keys", {"name": "second"}, key="k")
    assert again == made  # the same key, and its secret is nowhere
    listed = (await api.get("secret_keys")).json["data"]
    assert listed[0] == made
    assert len(listed) == 2
    for (kept,) in await fetch(api.database, "SELECT answer FROM idempotency_keys"):
        assert isinstance(kept, bytes)
        assert secret.encode() not in kept
    second = Api(api.app, api.books, api.database, secret, made["secret_key_id"], api.merchant_id)
    assert (await second.get("customers")).status == 200
    assert (await delete(api, f"secret_keys/{made['secret_key_id']}")).json == {
        "id": made["secret_key_id"],
        "deleted": True,
    }
    assert (await second.get("customers")).status == 401


async def test_the_last_key_stays(api: Api, other: Api) -> None:
    refused = await delete(api, f"secret_keys/{api.secret_key_id}")
    assert (refused.status, refused.code) == (409, "conflict")
    assert (await delete(api, f"secret_keys/{other.secret_key_id}")).status == 404
    made = await api.made("secret_keys", {"name": "second"})
    both = [api.secret_key_id, made["secret_key_id"]]
    replies = await asyncio.gather(*[delete(api, f"secret_keys/{key}") for key in both])
    # Whichever comes first ends; the other one is the last, or its caller is gone with the first.
    assert sorted(reply.status for reply in replies) in ([200, 401], [200, 409])
    left = await fetch(
        api.database,
        "SELECT 1 FROM secret_keys WHERE merchant_id = $1 AND revoked_at IS NULL",
        api.merchant_id,
    )
    assert len(left) == 1


async def test_a_key_needs_a_name(api: Api) -> None:
    for body, path in (({}, "name"), ({"name": ""}, "name"), ({"name": "x", "test": True}, "test")):
        reply = await api.post("secret_keys", body)
        assert (reply.status, reply.paths) == (422, [path])
