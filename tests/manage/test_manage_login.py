"""Login of a tool: a code works once, for a minute, for the key that was typed in; it leads nowhere
but to the loopback, and nothing that is refused says why."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from api_kit import Api, Reply, call_app, unknown_secret
from books_kit import fetch

from lava_proxy.core.ids import hash_secret
from lava_proxy.store import keys, logins

STATE = "0123456789abcdef0123456789abcdef"
FORM = {"state": STATE, "port": "49152"}


async def typed_in(api: Api, secret: str, path: str = "/auth/connect", **more: str) -> Reply:
    body = urlencode(FORM | {"secret_key": secret} | more).encode()
    headers = [("content-type", "application/x-www-form-urlencoded")]
    return await call_app(api.app, "POST", path, headers=headers, pieces=[body], html=True)


async def code_for(api: Api, secret: str | None = None) -> str:
    reply = await typed_in(api, secret or api.secret)
    assert reply.status == 303, reply.body
    return parse_qs(urlsplit(reply.headers["location"]).query)["code"][0]


async def trade(api: Api, code: object) -> Reply:
    """As the SDK does: without any credential."""
    body = json.dumps({"code": code}).encode()
    return await call_app(api.app, "POST", "/v1/auth/callback", pieces=[body])


async def keys_of(api: Api) -> list[str]:
    return [row["secret_key_id"] for row in (await api.get("secret_keys", limit=100)).json["data"]]


async def test_the_whole_way(api: Api) -> None:
    page = await call_app(api.app, "GET", "/auth/connect", query=urlencode(FORM), html=True)
    text = page.body.decode()
    assert page.status == 200
    assert f'value="{STATE}"' in text
    reply = await typed_in(api, api.secret)
    where = urlsplit(reply.headers["location"])
    assert (reply.status, where.scheme, where.netloc, where.path) == (
        303,
        "http",
        "127.0.0.1:49152",
        "/callback",
    )
    query = parse_qs(where.query)
    assert (set(query), query["state"]) == ({"code", "state"}, [STATE])
    assert len(await keys_of(api)) == 1  # the key is made when the code is used
    made = await trade(api, query["code"][0])
    assert made.status == 200
    shown = made.json
    assert set(shown) == {"wallet_id", "secret_key_id", "secret_key", "merchant_id", "account_id"}
    assert shown["merchant_id"] == api.merchant_id
    tool = replace(api, secret=shown["secret_key"])
    assert (await tool.get("wallet")).json["wallet_id"] == shown["wallet_id"]
    assert shown["secret_key_id"] in await keys_of(tool)
    assert (await tool.call("DELETE", f"secret_keys/{shown['secret_key_id']}")).status == 200


async def test_a_code_works_once(api: Api) -> None:
    code = await code_for(api)
    replies = await asyncio.gather(*(trade(api, code) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [200] + [401] * 7
    again = await trade(api, code)
    assert (again.status, again.code) == (401, "invalid_code")
    assert len(await keys_of(api)) == 2


async def test_a_code_ends_after_a_minute(api: Api) -> None:
    code = await code_for(api)
    [(left_s,)] = await fetch(
        api.database, "SELECT extract(epoch FROM expires_at - now())::float8 FROM auth_codes"
    )
    assert isinstance(left_s, float)
    assert 55 < left_s <= 60.5
    await fetch(api.database, "UPDATE auth_codes SET expires_at = now() - interval '1 millisecond'")
    reply = await trade(api, code)
    assert (reply.status, reply.code) == (401, "invalid_code")
    assert len(await keys_of(api)) == 1
    async with api.database.transaction() as conn:
        await logins.prune(conn)
    assert await fetch(api.database, "SELECT 1 FROM auth_codes") == []


async def test_a_code_is_of_the_merchant_whose_key_it_was(api: Api, other: Api) -> None:
    """Whoever trades it, with whatever credential beside it."""
    code = await code_for(other)
    body = json.dumps({"code": code}).encode()
    mine = [("authorization", f"Bearer {api.secret}")]
    made = await call_app(api.app, "POST", "/v1/auth/callback", headers=mine, pieces=[body])
    assert made.json["merchant_id"] == other.merchant_id
    assert len(await keys_of(api)) == 1
    shown = replace(api, secret=made.json["secret_key"])
    customer = await api.customer()
    assert (await shown.get(f"customers/{customer}")).code == "not_found"


async def test_a_code_ends_with_its_key(api: Api) -> None:
    await api.made("secret_keys", {"name": "spare"})
    code = await code_for(api)
    async with api.database.transaction() as conn:
        assert await keys.revoke(conn, api.merchant_id, api.secret_key_id)
    assert (await trade(api, code)).code == "invalid_code"


async def test_the_mode_stays(api: Api) -> None:
    async with api.database.transaction() as conn:
        made = await keys.add_key(conn, api.merchant_id, name="t", test=True)
    shown = (await trade(api, await code_for(api, made.secret_key))).json
    assert shown["secret_key"].startswith("aks_test_")
    assert shown["wallet_id"].startswith("wal_test_")


async def test_wrong_codes_are_all_alike_and_only_hashes_are_kept(api: Api) -> None:
    used, over, right = await code_for(api), await code_for(api), await code_for(api)
    assert (await trade(api, used)).status == 200
    await fetch(
        api.database,
        "UPDATE auth_codes SET expires_at = now() WHERE code_hash = $1",
        hash_secret(over),
    )
    bodies = set()
    for wrong in (used, over, right[:-1], right + "x", right.upper(), "", "é", "x" * 255):
        reply = await trade(api, wrong)
        assert (reply.status, reply.code) == (401, "invalid_code"), wrong
        bodies.add(reply.body)
    assert len(bodies) == 1
    rows = await fetch(api.database, "SELECT auth_codes::text FROM auth_codes")
    assert not any(right in str(row) or api.secret in str(row) for row in rows)
    assert (await trade(api, right)).status == 200


async def test_bodies_that_are_no_code(api: Api) -> None:
    for code in (None, 5, ["x"], "x" * 256):
        reply = await trade(api, code)
        assert (reply.status, reply.paths) == (422, ["code"])


@pytest.mark.parametrize("secret", ["", "x", "aks_live_é", "lava_sk_" + "a" * 43, "a\r\nb: c"])
async def test_other_things_that_are_typed_in(api: Api, secret: str) -> None:
    for typed in (secret, unknown_secret(), api.secret + "x"):
        reply = await typed_in(api, typed)
        assert (reply.status, "location" in reply.headers) == (401, False)
        assert "not a secret key in force" in reply.body.decode()
        assert not typed or typed not in reply.body.decode() or len(typed) < 2
    assert await fetch(api.database, "SELECT 1 FROM auth_codes") == []


@pytest.mark.parametrize(
    ("state", "port"),
    [
        ("", "49152"),
        ("short", "49152"),
        ("a" * 129, "49152"),
        ('"><script>alert(1)</script>', "49152"),
        (STATE, ""),
        (STATE, "0"),
        (STATE, "65536"),
        (STATE, "80@evil.example"),
        (STATE, "80/evil"),
        (STATE, "-1"),
        (STATE, "4９152"),
    ],
)
async def test_it_leads_nowhere_but_to_the_loopback(api: Api, state: str, port: str) -> None:
    reply = await typed_in(api, api.secret, state=state, port=port)
    assert (reply.status, "location" in reply.headers) == (400, False)
    query = urlencode({"state": state, "port": port})
    page = await call_app(api.app, "GET", "/auth/connect", query=query, html=True)
    assert (page.status, b"<form" in page.body) == (400, False)
    assert b"<script" not in page.body
    assert await fetch(api.database, "SELECT 1 FROM auth_codes") == []


async def test_nobody_may_frame_the_page_and_it_loads_nothing(api: Api) -> None:
    for path in ("/auth/connect", "/auth/cli", "/v1/auth/connect"):
        page = await call_app(api.app, "GET", path, query=urlencode(FORM), html=True)
        assert page.status == 200
        policy = page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert (await typed_in(api, api.secret, path)).status == 303
    assert (await call_app(api.app, "GET", "/auth/other")).status == 404
    assert (await call_app(api.app, "GET", "/auth")).status == 404
