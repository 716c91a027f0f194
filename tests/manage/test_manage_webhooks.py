"""Webhooks over the API: three at most, a secret shown once and sealed at rest."""

from __future__ import annotations

import asyncio

from api_kit import Api
from books_kit import fetch

from lava_proxy.core.vault import open_vault

NEW = {"name": "ours", "url": "https://example.com/hook"}


async def test_a_webhook_from_beginning_to_end(api: Api) -> None:
    made = await api.made("webhooks", NEW, key="k")
    secret = made.pop("webhook_secret")
    assert set(made) == {"webhook_id", "name", "url", "events", "created_at"}
    assert made["events"] == [
        "customer.created",
        "customer.wallet.balance.updated",
        "customer.deleted",
    ]
    assert await api.made("webhooks", NEW, key="k") == made  # once, and without its secret
    [(sealed,)] = await fetch(api.database, "SELECT secret_sealed FROM webhooks")
    assert isinstance(sealed, bytes)
    assert secret.encode() not in sealed
    vault = open_vault(api.books.settings)
    assert vault.unseal(sealed, made["webhook_id"]) == secret
    path = f"webhooks/{made['webhook_id']}"
    changed = (await api.call("PATCH", path, {"url": "https://example.org/", "name": "m"})).json
    assert changed == made | {"url": "https://example.org/", "name": "m"}
    assert (await api.get(path)).json == changed
    assert (await api.get("webhooks")).json["data"] == [changed]
    assert (await api.call("DELETE", path)).json == {"id": made["webhook_id"], "deleted": True}
    assert (await api.get(path)).status == 404


async def test_three_at_most_also_in_a_race(api: Api, other: Api) -> None:
    replies = await asyncio.gather(*[api.post("webhooks", NEW) for _ in range(6)])
    assert sorted(reply.status for reply in replies) == [200, 200, 200, 409, 409, 409]
    assert (await other.post("webhooks", NEW)).status == 200
    first = (await api.get("webhooks")).json["data"][0]["webhook_id"]
    await api.call("DELETE", f"webhooks/{first}")
    assert (await api.post("webhooks", NEW)).status == 200


async def test_what_is_wrong_is_named(api: Api) -> None:
    for change, path in (
        ({"url": "http://example.com/"}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://user:pw@example.com/"}, "url"),
        ({"url": "https://example.com/#f"}, "url"),
        ({"url": "https://example.com:99999/"}, "url"),
        ({"url": "https://exa mple.com/"}, "url"),
        ({"url": "https://b\u00fccher.example/"}, "url"),
        ({"events": []}, "events"),
        ({"events": ["customer.sneezed"]}, "events[0]"),
        ({"name": ""}, "name"),
    ):
        reply = await api.post("webhooks", NEW | change)
        assert (reply.status, reply.paths) == (422, [path]), change
    made = await api.made("webhooks", NEW | {"events": ["request.cut_off", "request.cut_off"]})
    assert made["events"] == ["request.cut_off"]
    null = await api.call("PATCH", f"webhooks/{made['webhook_id']}", {"url": None})
    assert (null.status, null.paths) == (422, ["url"])
