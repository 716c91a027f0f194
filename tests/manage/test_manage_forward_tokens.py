"""Forward tokens over the API: shown once, scoped, listed, ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from api_kit import Api

from lava_proxy.core.ids import hash_secret


async def test_a_token_is_shown_once_and_kept_hashed(api: Api, other: Api) -> None:
    customer = await api.customer(reference_id="ada")
    meter = await api.meter("chat")
    made = await api.made("forward_tokens", {"customer_id": "ada", "meter_slug": "chat"})
    token = made.pop("token")
    assert token.startswith("lava_ft_")
    assert made["token_hint"] == f"lava_ft_****{token[-4:]}"
    assert (made["customer_id"], made["meter_slug"]) == (customer, "chat")
    assert (made["disable_billing"], made["expires_at"]) == (False, None)
    assert (await api.get("forward_tokens")).json["data"] == [made]
    async with api.database.connection() as conn:
        row = await conn.fetchrow("SELECT * FROM forward_tokens")
    assert row is not None
    assert row["token_hash"] == hash_secret(token)
    assert token not in str(dict(row))
    found = await api.books.directory.scoped(hash_secret(token))
    assert found is not None
    assert (found.customer_id, found.meter_id) == (customer, meter["meter_id"])
    path = f"forward_tokens/{made['forward_token_id']}"
    assert (await other.call("DELETE", path)).status == 404
    assert (await other.get("forward_tokens")).json["data"] == []
    gone = await api.call("DELETE", path)
    assert gone.json == {"id": made["forward_token_id"], "deleted": True}
    assert await api.books.directory.scoped(hash_secret(token)) is None
    assert (await api.call("DELETE", path)).status == 404
    assert (await api.get("forward_tokens")).json["data"] == []


async def test_what_is_wrong_is_named(api: Api, other: Api) -> None:
    await api.customer(reference_id="ada")
    await api.meter("chat")
    await other.customer(reference_id="bob")
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    for body, path in (
        ({"customer_id": "ada"}, "meter_slug"),
        ({"expires_at": past}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"spend_limit": {"amount": "0", "cycle": "total"}}, "spend_limit.amount"),
        ({"spend_limit": {"amount": "1", "cycle": "hourly"}}, "spend_limit.cycle"),
        ({"spend_limit": {"amount": "1"}}, "spend_limit.cycle"),
        ({"provider_key": "k"}, "provider_key"),
        ({"disable_billing": "yes"}, "disable_billing"),
    ):
        reply = await api.post("forward_tokens", body)
        assert (reply.status, reply.paths) == (422, [path]), body
    for named in ({"meter_slug": "none"}, {"customer_id": "bob", "meter_slug": "chat"}):
        assert (await api.post("forward_tokens", named)).status == 404


async def test_a_repeat_under_one_key_does_not_show_it_again(api: Api) -> None:
    made = await api.made("forward_tokens", {}, key="k")
    again = await api.made("forward_tokens", {}, key="k")
    assert again == {name: value for name, value in made.items() if name != "token"}
    assert len((await api.get("forward_tokens")).json["data"]) == 1


async def test_lists_go_page_by_page(api: Api) -> None:
    made = [(await api.made("forward_tokens", {}))["forward_token_id"] for _ in range(3)]
    first = (await api.get("forward_tokens", limit=2)).json
    rest = (await api.get("forward_tokens", limit=2, cursor=first["next_cursor"])).json
    shown = [token["forward_token_id"] for token in first["data"] + rest["data"]]
    assert shown == made[::-1]


async def test_a_token_opens_no_management_route(api: Api) -> None:
    token = (await api.made("forward_tokens", {}))["token"]
    as_token = Api(api.app, api.books, api.database, token, "", api.merchant_id)
    for method, path in (("GET", "customers"), ("POST", "forward_tokens")):
        reply = await as_token.call(method, path, {} if method == "POST" else None)
        assert (reply.status, reply.code) == (403, "forbidden")


async def test_a_limit_of_its_own_is_shown(api: Api) -> None:
    limit = {"amount": "2.5000000000", "cycle": "monthly"}
    made = await api.made("forward_tokens", {"spend_limit": {"amount": "2.5", "cycle": "monthly"}})
    assert (made["spend_limit"], made["current_spend"]) == (limit, "0.0000000000")
    plain = await api.made("forward_tokens", {})
    assert (plain["spend_limit"], plain["current_spend"]) == (None, "0.0000000000")
    shown = (await api.get("forward_tokens")).json["data"]
    assert [token["spend_limit"] for token in shown] == [None, limit]
    found = await api.books.directory.scoped(hash_secret(made["token"]))
    assert found is not None
    assert (found.spend_limit_e10, found.spend_cycle) == (25 * 10**9, "monthly")
