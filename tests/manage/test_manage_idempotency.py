"""Idempotency-Key: one effect, one answer, for thirty days and for one merchant."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from api_kit import Api
from test_manage_access import KEYED, Drawer, Objects

from lava_adapters.registry import Registry
from lava_proxy.manage.app import create_management
from lava_proxy.manage.call import Route
from lava_proxy.store import idempotency


async def test_the_first_answer_comes_again(api: Api) -> None:
    first = await api.post("customers", {"name": "A B", "metadata": {"x": 1.0}}, key="k")
    again = await api.post("customers", b' {"metadata":{"x": 1.0},"name":"A B"}', key="k")
    assert (again.status, again.body) == (200, first.body)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert len((await api.get("customers")).json["data"]) == 1


async def test_other_content_is_a_conflict(api: Api) -> None:
    await api.made("customers", {"metadata": {"x": 1.5}}, key="k")
    for path, body in (
        ("customers", {}),
        ("customers", {"metadata": {"x": "1.5"}}),
        (
            "meters",
            {
                "name": "n",
                "rate_type": "fixed",
                "tier_type": "requests",
                "tiers": [{"start": "0", "rate": "1"}],
            },
        ),
    ):
        reply = await api.post(path, body, key="k")
        assert (reply.status, reply.code) == (409, "idempotency_conflict")
    assert len((await api.get("customers")).json["data"]) == 1


POSTS = [route for route in KEYED if route.method == "POST"]


@pytest.mark.parametrize("route", POSTS, ids=lambda route: route.path)
async def test_every_post_honours_the_key(api: Api, route: Route) -> None:
    api = replace(api, app=create_management(api.books, Registry.builtin(), Drawer()))
    mine = await Objects.made(api)
    await api.made("customers", {"name": "another request"}, key="taken")
    reply = await api.post(mine.path(route), mine.body(route), key="taken")
    assert (reply.status, reply.code) == (409, "idempotency_conflict")
    first = await api.post(mine.path(route), mine.body(route), key="own")
    again = await api.post(mine.path(route), mine.body(route), key="own")
    assert first.status == again.status == route.status, (first.body, again.body)


async def test_all_at_once(api: Api) -> None:
    replies = await asyncio.gather(*(api.post("customers", {}, key="k") for _ in range(16)))
    assert {(r.status, r.body) for r in replies} == {(200, replies[0].body)}
    assert len((await api.get("customers")).json["data"]) == 1


async def test_keys_are_the_merchants_own(api: Api, other: Api) -> None:
    mine = await api.made("customers", {}, key="k")
    theirs = await other.made("customers", {}, key="k")
    assert mine["customer_id"] != theirs["customer_id"]


async def test_an_error_leaves_the_key_free(api: Api) -> None:
    assert (await api.post("customers", {"email": "wrong"}, key="k")).status == 422
    customer = await api.customer()
    path = f"customers/{customer}/credit"
    assert (await api.post(path, {"amount": "-1"}, key="k")).status == 409
    await api.made(path, {"amount": "1"}, key="k")
    assert (await api.balance(customer))["available"] == "1.0000000000"


async def test_after_thirty_days_the_key_is_new(api: Api) -> None:
    now = api.books.now()
    async with api.database.transaction() as conn:
        for key, days in (("old", 31), ("young", 29)):
            at = now - timedelta(days=days)
            assert await idempotency.claim(conn, api.merchant_id, key, b"hash", at) is None
            await idempotency.answer(conn, api.merchant_id, key, 200, b"{}")
    assert (await api.post("customers", {}, key="young")).status == 409
    first = await api.made("customers", {}, key="old")
    assert await api.made("customers", {}, key="old") == first


async def test_what_is_no_key(api: Api) -> None:
    for key in ("", " ", "x" * 256, "ä", "a\tb"):
        reply = await api.post("customers", {}, key=key)
        assert (reply.status, reply.code) == (400, "invalid_request"), key
    assert (await api.get("customers")).json["data"] == []
