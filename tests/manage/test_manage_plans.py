"""Plans and their bundles: made whole, changed in part, ended when nobody is on them."""

from __future__ import annotations

import asyncio

from api_kit import Api

from lava_proxy.store import subscriptions

BUNDLE = {"name": "Ten", "cost": "10", "credit_amount": "15"}
NEW = {"name": "Pro", "period_amount": "25", "billing_interval": "month"}


async def test_what_is_left_out_is_as_documented(api: Api) -> None:
    made = await api.made("plans", NEW)
    assert made["included_credit"] == made["period_amount"] == "25.0000000000"
    assert (made["rollover_type"], made["bundle_rollover_type"]) == ("none", "full")
    assert (made["linked_meters"], made["credit_bundles"]) == ([], [])
    assert made["default_auto_top_up_bundle_id"] is None
    assert (await api.get(f"plans/{made['plan_id']}")).json == made
    assert (await api.get("plans")).json["data"] == [made]


async def test_bundles_and_meters_belong_to_the_plan(api: Api, other: Api) -> None:
    meter = (await api.meter("chat"))["meter_id"]
    body = {"credit_bundles": [BUNDLE, BUNDLE | {"name": "Two"}], "meter_ids": [meter]}
    made = await api.made("plans", NEW | body | {"default_auto_top_up_bundle_index": 1})
    first, second = made["credit_bundles"]
    assert [first["name"], second["name"]] == ["Ten", "Two"]
    assert made["default_auto_top_up_bundle_id"] == second["credit_bundle_id"]
    assert made["linked_meters"] == [{"meter_id": meter, "name": "chat"}]
    path = f"plans/{made['plan_id']}"
    changes = [
        {"credit_bundle_id": first["credit_bundle_id"], "name": "Eleven"},
        {"credit_bundle_id": second["credit_bundle_id"], "is_deleted": True},
        BUNDLE | {"name": "Three"},
    ]
    changed = (await api.call("PATCH", path, {"credit_bundles": changes, "meter_ids": []})).json
    assert [b["name"] for b in changed["credit_bundles"]] == ["Eleven", "Three"]
    assert changed["default_auto_top_up_bundle_id"] is None  # it went with its bundle
    assert changed["linked_meters"] == []
    strange = await other.made("plans", NEW | {"credit_bundles": [BUNDLE]})
    wrong = {"default_auto_top_up_bundle_id": strange["credit_bundles"][0]["credit_bundle_id"]}
    assert (await api.call("PATCH", path, wrong)).paths == ["default_auto_top_up_bundle_id"]
    listed = (await api.get("credit_bundles", plan_id=made["plan_id"])).json["data"]
    assert [b["name"] for b in listed] == ["Three", "Eleven"]


async def test_a_bundle_that_is_removed_is_no_top_up_any_more(api: Api) -> None:
    body = NEW | {"period_amount": "0", "credit_bundles": [BUNDLE, BUNDLE]}
    made = await api.made("plans", body | {"default_auto_top_up_bundle_index": 0})
    customer = await api.customer()
    ids = {"customer_id": customer, "plan_id": made["plan_id"]}
    on = (await api.made("subscriptions", ids))["subscription"]
    first, second = [b["credit_bundle_id"] for b in made["credit_bundles"]]
    assert on["auto_top_up_bundle_id"] == first
    gone = {"credit_bundles": [{"credit_bundle_id": first, "is_deleted": True}]}
    assert (await api.call("PATCH", f"plans/{made['plan_id']}", gone)).status == 200
    for found in (
        (await api.get(f"customers/{customer}/subscription")).json["subscription"],
        (await api.get("subscriptions")).json["data"][0],
    ):
        assert found["auto_top_up_bundle_id"] is None
    path = f"subscriptions/{on['subscription_id']}"
    refused = await api.call("PATCH", path, {"auto_top_up_bundle_id": first})
    assert refused.paths == ["auto_top_up_bundle_id"]
    assert (await api.call("PATCH", path, {"auto_top_up_bundle_id": second})).status == 200


async def test_new_customers_are_put_on_the_free_plan_where_that_is_wanted(api: Api) -> None:
    assert (await api.made("customers", {}))["subscription"] is None
    api.books.settings = api.books.settings.model_copy(update={"auto_free_plan": True})
    made = await asyncio.gather(*[api.made("customers", {"reference_id": r}) for r in "abc"])
    (plan,) = (await api.get("plans")).json["data"]
    assert (plan["name"], plan["period_amount"]) == ("Free", "0.0000000000")
    for customer in made:
        on = customer["subscription"]
        assert (on["plan_id"], on["name"], on["status"]) == (plan["plan_id"], "Free", "active")
    assert (await api.made("customers", {"reference_id": "a"}))["subscription"] is not None
    changed = {"name": "Trial", "included_credit": "1.00"}
    assert (await api.call("PATCH", f"plans/{plan['plan_id']}", changed)).status == 200
    later = await api.customer()
    assert (await api.balance(later))["cycle_remaining"] == "1.0000000000"
    for customer_id in [later, *[customer["customer_id"] for customer in made]]:
        assert (await api.call("DELETE", f"customers/{customer_id}")).status == 200
    assert (await api.call("DELETE", f"plans/{plan['plan_id']}")).status == 200
    assert (await api.made("customers", {}))["subscription"] is None  # it is not made again
    assert await api.sound()


async def test_what_is_wrong_is_named(api: Api) -> None:
    wrong: list[tuple[dict[str, object], str]] = [
        ({"period_amount": "10000.01"}, "period_amount"),
        ({"period_amount": 25}, "period_amount"),
        ({"billing_interval": "hour"}, "billing_interval"),
        ({"default_auto_top_up_bundle_index": 0}, "default_auto_top_up_bundle_index"),
        ({"credit_bundles": [BUNDLE | {"credit_amount": "0"}]}, "credit_bundles[0].credit_amount"),
    ]
    for change, path in wrong:
        reply = await api.post("plans", NEW | change)
        assert (reply.status, reply.paths) == (422, [path]), change
    plan_id = (await api.made("plans", NEW))["plan_id"]
    for fixed in ("period_amount", "billing_interval"):
        reply = await api.call("PATCH", f"plans/{plan_id}", {fixed: NEW[fixed]})
        assert (reply.status, reply.paths) == (422, [fixed])


async def test_a_plan_that_customers_are_on_stays(api: Api) -> None:
    customer = await api.customer()
    plan_id = (await api.made("plans", NEW | {"period_amount": "0"}))["plan_id"]
    async with api.database.transaction() as conn:
        await subscriptions.start(conn, customer_id=customer, plan_id=plan_id, now=api.books.now())
    refused = await api.call("DELETE", f"plans/{plan_id}")
    assert (refused.status, refused.code) == (409, "conflict")
    assert (await api.call("DELETE", f"customers/{customer}")).status == 200
    assert (await api.call("DELETE", f"plans/{plan_id}")).status == 200
    assert (await api.get(f"plans/{plan_id}")).status == 404
