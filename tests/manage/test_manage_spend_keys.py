"""Spend keys over the API: shown once, changed, rotated, revoked; use is what was booked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from api_kit import Api
from books_kit import make_call, row

from lava_proxy.core.ids import hash_secret
from lava_proxy.rules.limits import SpendKey

FULL: dict[str, Any] = {
    "name": "agent",
    "status": "active",
    "request_shape": "anthropic",
    "allowed_models": ["claude-sonnet-4-5", "anthropic/claude-haiku-4-5"],
    "allowed_providers": ["anthropic"],
    "spend_limit": {"amount": "5.00", "cycle": "daily"},
    "request_limit": {"count": 100, "cycle": "weekly"},
    "rate_limit": {"rpm": 60, "burst": 5},
    "expires_at": "2100-01-01T00:00:00Z",
}
PLAIN = {
    "status": "active",
    "request_shape": "openai",
    "allowed_models": None,
    "allowed_providers": None,
    "spend_limit": None,
    "current_spend": "0.0000000000",
    "total_spend": "0.0000000000",
    "request_limit": None,
    "current_requests": 0,
    "total_requests": 0,
    "rate_limit": None,
    "expires_at": None,
    "last_used_at": None,
}


async def _made(api: Api, body: object = None, *, key: str | None = None) -> dict[str, Any]:
    return await api.made("spend_keys", body or {"name": "k"}, key=key, status=201)


async def _known(api: Api, key: str) -> SpendKey | None:
    """What a worker knows of a key."""
    return await api.books.directory.spend_key(hash_secret(key))


async def test_a_key_is_shown_once_and_kept_hashed(api: Api) -> None:
    made = await _made(api)
    key = made.pop("key")
    assert key.startswith("lava_sk_")
    assert made["key_preview"] == key[:16] + "****"
    assert {name: made[name] for name in PLAIN} == PLAIN
    assert made["spend_key_id"].startswith("spk_")
    assert made["wallet_id"] == (await api.get("wallet")).json["wallet_id"]
    assert (await api.get(f"spend_keys/{made['spend_key_id']}")).json == made
    assert (await api.get("spend_keys")).json["data"] == [made]
    async with api.database.connection() as conn:
        stored = await conn.fetchrow("SELECT * FROM spend_keys")
    assert stored is not None
    assert stored["key_hash"] == hash_secret(key)
    assert key not in str(dict(stored))
    assert (await _made(api))["wallet_id"] == made["wallet_id"]
    again = await _made(api, {"name": "r"}, key="once")
    repeated = await _made(api, {"name": "r"}, key="once")
    assert repeated == {name: value for name, value in again.items() if name != "key"}


async def test_every_rule_is_kept_and_reaches_the_workers(api: Api) -> None:
    made = await _made(api, FULL)
    shown = dict(FULL)
    shown["spend_limit"] = {"amount": "5.0000000000", "cycle": "daily"}
    shown["expires_at"] = "2100-01-01T00:00:00.000Z"
    assert {name: made[name] for name in FULL} == shown
    known = await _known(api, made["key"])
    assert known is not None
    assert (known.spend_limit_e10, known.spend_cycle) == (50_000_000_000, "daily")
    assert (known.request_limit, known.request_cycle) == (100, "weekly")
    assert known.rate is not None
    assert (known.rate.rpm, known.rate.capacity) == (60, 5)
    assert known.allowed_models == frozenset(FULL["allowed_models"])
    path = f"spend_keys/{made['spend_key_id']}"
    changed = (await api.call("PUT", path, {"status": "paused", "rate_limit": {"rpm": 7}})).json
    assert changed["status"] == "paused"
    assert changed["rate_limit"] == {"rpm": 7, "burst": None}
    rest = set(FULL) - {"status", "rate_limit"}
    assert {name: changed[name] for name in rest} == {name: shown[name] for name in rest}
    known = await _known(api, made["key"])
    assert known is not None
    assert (known.status, known.rate and known.rate.capacity) == ("paused", 7)
    nothing = dict.fromkeys(set(FULL) - {"name", "status", "request_shape"})
    emptied = (await api.call("PUT", path, nothing | {"status": "active"})).json
    assert {name: emptied[name] for name in nothing} == nothing
    assert emptied["request_shape"] == "anthropic"


async def test_rotation_keeps_all_but_the_key(api: Api) -> None:
    made = await _made(api, FULL)
    old = made.pop("key")
    assert await _known(api, old) is not None
    reply = await api.call("POST", f"spend_keys/{made['spend_key_id']}/rotate", b"")
    assert reply.status == 200
    rotated = reply.json
    new = rotated.pop("key")
    assert rotated == made | {"key_preview": new[:16] + "****"}
    assert await _known(api, old) is None
    known = await _known(api, new)
    assert known is not None
    assert known.spend_key_id == made["spend_key_id"]


async def test_a_revoked_key_is_gone(api: Api) -> None:
    made = await _made(api)
    path = f"spend_keys/{made['spend_key_id']}"
    assert await _known(api, made["key"]) is not None
    gone = await api.call("DELETE", path)
    assert (gone.status, gone.json) == (200, {"success": True})
    assert await _known(api, made["key"]) is None
    for method, body in (("GET", None), ("PUT", {"name": "x"}), ("DELETE", None)):
        assert (await api.call(method, path, body)).status == 404
    assert (await api.call("POST", f"{path}/rotate", b"")).status == 404
    assert (await api.get("spend_keys")).json["data"] == []


async def test_what_is_wrong_is_named(api: Api) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    limit = {"amount": "1", "cycle": "daily"}
    for body, path in (
        ({}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "n", "status": "off"}, "status"),
        ({"name": "n", "status": None}, "status"),
        ({"name": "n", "request_shape": "google"}, "request_shape"),
        ({"name": "n", "allowed_models": []}, "allowed_models"),
        ({"name": "n", "allowed_models": ["a", ""]}, "allowed_models[1]"),
        ({"name": "n", "allowed_providers": "openai"}, "allowed_providers"),
        ({"name": "n", "spend_limit": limit | {"amount": "0"}}, "spend_limit.amount"),
        ({"name": "n", "spend_limit": limit | {"amount": 1}}, "spend_limit.amount"),
        ({"name": "n", "spend_limit": limit | {"amount": "-1"}}, "spend_limit.amount"),
        ({"name": "n", "spend_limit": limit | {"cycle": "hourly"}}, "spend_limit.cycle"),
        ({"name": "n", "spend_limit": {"amount": "1"}}, "spend_limit.cycle"),
        ({"name": "n", "request_limit": {"count": 0, "cycle": "daily"}}, "request_limit.count"),
        ({"name": "n", "request_limit": {"count": 1.5, "cycle": "daily"}}, "request_limit.count"),
        ({"name": "n", "rate_limit": {"rpm": 0}}, "rate_limit.rpm"),
        ({"name": "n", "rate_limit": {"burst": 1}}, "rate_limit.rpm"),
        ({"name": "n", "rate_limit": {"rpm": 1, "burst": 0}}, "rate_limit.burst"),
        ({"name": "n", "expires_at": past}, "expires_at"),
        ({"name": "n", "limit": 1}, "limit"),
    ):
        reply = await api.post("spend_keys", body)
        assert (reply.status, reply.paths) == (422, [path]), body
    made = await _made(api)
    for changed, path in (
        ({"name": None}, "name"),
        ({"request_shape": None}, "request_shape"),
        ({"expires_at": past}, "expires_at"),
        ({"allowed_models": []}, "allowed_models"),
    ):
        reply = await api.call("PUT", f"spend_keys/{made['spend_key_id']}", changed)
        assert (reply.status, reply.paths) == (422, [path]), changed


async def test_lists_go_page_by_page(api: Api) -> None:
    made = [(await _made(api))["spend_key_id"] for _ in range(3)]
    first = (await api.get("spend_keys", limit=2)).json
    rest = (await api.get("spend_keys", limit=2, cursor=first["next_cursor"])).json
    assert [key["spend_key_id"] for key in first["data"] + rest["data"]] == made[::-1]
    assert (first["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)


async def test_use_is_what_was_booked(api: Api) -> None:
    """By cycle and in all; a cycle that is over counts in the total only."""
    limits = {
        "spend_limit": {"amount": "1", "cycle": "daily"},
        "request_limit": {"count": 9, "cycle": "monthly"},
    }
    made = await _made(api, {"name": "k", **limits})
    free = await _made(api, {"name": "free"})
    now = api.books.now()
    for key in (made, free):
        for days, outcome in ((0, "completed"), (0, "void"), (70, "cut_off")):
            known = await _known(api, key["key"])
            assert known is not None
            at = now - timedelta(days=days)
            call = make_call(api.merchant_id, shop=api.merchant_id, customer=False, by=None)
            budgets = tuple((want.kind, want.owner_id) for want in known.budgets(at))
            call = replace(call, budgets=budgets, created_at=at)
            cost_e10 = 0 if outcome == "void" else 25
            done = row(api.merchant_id, shop=api.merchant_id, cost_e10=cost_e10, outcome=outcome)
            api.books.settle(api.books.admit(call), replace(done, call=call), None, 0)
    await api.books.writer.flush()
    shown = (await api.get(f"spend_keys/{made['spend_key_id']}")).json
    assert (shown["current_spend"], shown["total_spend"]) == ("0.0000000025", "0.0000000050")
    assert (shown["current_requests"], shown["total_requests"]) == (1, 2)
    newest = (await api.get("spend_keys", limit=1)).json["data"][0]
    assert newest["spend_key_id"] == free["spend_key_id"]
    assert (newest["current_spend"], newest["total_spend"]) == ("0.0000000050", "0.0000000050")
    assert (newest["current_requests"], newest["total_requests"]) == (2, 2)
    assert await api.sound()


async def test_a_spend_key_opens_no_management_route(api: Api) -> None:
    key = (await _made(api))["key"]
    as_key = Api(api.app, api.books, api.database, key, "", api.merchant_id)
    for method, path in (("GET", "customers"), ("POST", "spend_keys"), ("GET", "spend_keys")):
        reply = await as_key.call(method, path, {} if method == "POST" else None)
        assert (reply.status, reply.code) == (403, "forbidden")
