"""The fallback chain: shown, replaced, cleared, checked against the provider table."""

from __future__ import annotations

from api_kit import Api

from lava_proxy.core.ids import hash_secret

FIRST = {"url": "https://api.openai.com/v1/chat/completions", "model": "gpt-4o"}
SECOND = {"url": "api.anthropic.com/v1/messages", "model": "claude-sonnet-4-5"}


async def test_a_chain_is_shown_replaced_and_cleared(api: Api, other: Api) -> None:
    assert (await api.get("account/fallback")).json == {"fallback_chain": []}
    for chain in ([FIRST, SECOND], [SECOND], [FIRST] * 5):
        reply = await api.call("PATCH", "account/fallback", {"fallback_chain": chain})
        assert (reply.status, reply.json) == (200, {"success": True}), reply.body
        assert (await api.get("account/fallback")).json == {"fallback_chain": chain}
    assert (await other.get("account/fallback")).json == {"fallback_chain": []}
    found = await api.books.directory.principal(hash_secret(api.secret))
    assert found is not None
    assert found.merchant.fallbacks == ((FIRST["url"], FIRST["model"]),) * 5
    for nothing in (None, []):
        await api.call("PATCH", "account/fallback", {"fallback_chain": [FIRST]})
        await api.call("PATCH", "account/fallback", {"fallback_chain": nothing})
        assert (await api.get("account/fallback")).json == {"fallback_chain": []}


async def test_what_is_wrong_is_named(api: Api) -> None:
    for chain, path in (
        ([FIRST] * 6, "fallback_chain"),
        ([FIRST, {"url": FIRST["url"]}], "fallback_chain[1].model"),
        ([FIRST | {"model": ""}], "fallback_chain[0].model"),
        ([FIRST, FIRST | {"url": "https://example.com/v1"}], "fallback_chain[1].url"),
        ([FIRST | {"url": "https://api.openai.com/v1/nowhere"}], "fallback_chain[0].url"),
        ([FIRST | {"url": "http://127.0.0.1/v1/chat/completions"}], "fallback_chain[0].url"),
        ([FIRST | {"url": "ftp://api.openai.com/v1/models"}], "fallback_chain[0].url"),
        ([FIRST | {"key": "k"}], "fallback_chain[0].key"),
        ("all", "fallback_chain"),
    ):
        reply = await api.call("PATCH", "account/fallback", {"fallback_chain": chain})
        assert (reply.status, reply.paths) == (422, [path]), chain
    assert (await api.call("PATCH", "account/fallback", {})).paths == ["fallback_chain"]
    assert (await api.get("account/fallback")).json == {"fallback_chain": []}
