"""Webhooks over the API: three at most, a secret shown once and sealed at rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest
from api_kit import Api
from books_kit import fetch
from typer.testing import CliRunner

from lava_proxy.cli.main import app as cli
from lava_proxy.core.vault import KEY_FILE, open_vault
from lava_proxy.store.webhooks import MOST_OLD

NEW = {"name": "ours", "url": "https://example.com/hook"}


async def test_a_webhook_from_beginning_to_end(api: Api) -> None:
    made = await api.made("webhooks", NEW, key="k")
    secret = made.pop("webhook_secret")
    assert set(made) == {
        "webhook_id",
        "name",
        "url",
        "events",
        "status",
        "disabled_at",
        "old_secret_until",
        "created_at",
    }
    assert (made["status"], made["disabled_at"]) == ("active", None)
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


async def sealed_of(api: Api, webhook_id: str) -> tuple[str, list[str]]:
    """A webhook's secret, and the old ones that still sign with it."""
    vault = open_vault(api.books.settings)
    [(new,)] = await fetch(
        api.database, "SELECT secret_sealed FROM webhooks WHERE webhook_id = $1", webhook_id
    )
    old = await fetch(
        api.database,
        "SELECT secret_sealed FROM webhook_old_secrets "
        "WHERE webhook_id = $1 AND ends_at > $2 ORDER BY ends_at",
        webhook_id,
        api.books.now(),
    )
    assert isinstance(new, bytes)
    return (
        vault.unseal(new, webhook_id),
        [vault.unseal(sealed, webhook_id) for (sealed,) in old if isinstance(sealed, bytes)],
    )


async def test_a_secret_is_rotated_and_the_old_one_stays_for_a_day(api: Api) -> None:
    made = await api.made("webhooks", NEW)
    first = made.pop("webhook_secret")
    path = f"webhooks/{made['webhook_id']}"
    assert made["old_secret_until"] is None
    turned = await api.made(f"{path}/rotate", {}, key="k")
    second = turned.pop("webhook_secret")
    assert second != first
    until = datetime.fromisoformat(turned["old_secret_until"])
    assert abs((until - api.books.now() - timedelta(days=1)).total_seconds()) < 60
    assert turned == made | {"old_secret_until": turned["old_secret_until"]}
    assert (await api.get(path)).json == turned
    assert (await api.get("webhooks")).json["data"] == [turned]
    assert await api.made(f"{path}/rotate", {}, key="k") == turned  # once, and without its secret
    assert await sealed_of(api, made["webhook_id"]) == (second, [first])


async def test_an_overlap_can_be_shorter_also_for_secrets_before(api: Api) -> None:
    made = await api.made("webhooks", NEW)
    path = f"webhooks/{made['webhook_id']}/rotate"
    await api.made(path, {})
    shorter = await api.made(path, {"overlap_s": 60})
    until = datetime.fromisoformat(shorter["old_secret_until"])
    assert abs((until - api.books.now()).total_seconds() - 60) < 30
    last = await api.made(path, {"overlap_s": 0})  # it leaked: nothing older signs any more
    assert last["old_secret_until"] is None
    assert await sealed_of(api, made["webhook_id"]) == (last["webhook_secret"], [])
    for wrong in (-1, 86_401, "1"):
        reply = await api.post(path, {"overlap_s": wrong})
        assert (reply.status, reply.paths) == (422, ["overlap_s"]), wrong


async def test_rotations_at_once_keep_every_old_secret_and_there_is_a_bound(api: Api) -> None:
    made = await api.made("webhooks", NEW)
    path = f"webhooks/{made['webhook_id']}/rotate"
    replies = await asyncio.gather(*[api.post(path, {}) for _ in range(MOST_OLD + 2)])
    assert sorted(reply.status for reply in replies) == [200] * MOST_OLD + [409] * 2
    secrets = {r.json["webhook_secret"] for r in replies if r.status == 200}
    now, old = await sealed_of(api, made["webhook_id"])
    assert {now, *old} == secrets | {made["webhook_secret"]}
    assert (await api.post(path, {"overlap_s": 0})).status == 200  # an end at once always goes


async def test_only_its_merchant_rotates_a_webhook(api: Api, other: Api) -> None:
    made = await api.made("webhooks", NEW)
    path = f"webhooks/{made['webhook_id']}/rotate"
    assert (await other.post(path, {})).status == 404
    assert (await api.post("webhooks/wh_none/rotate", {})).status == 404
    assert await sealed_of(api, made["webhook_id"]) == (made["webhook_secret"], [])


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, database_url: str, api: Api
) -> Callable[..., Awaitable[tuple[int, str]]]:
    """``lava-proxy webhooks ...`` on this database: its status and what it prints."""
    monkeypatch.setenv("LAVA_DATABASE_URL", database_url)
    key = (api.books.settings.data_dir / KEY_FILE).read_text
    monkeypatch.setenv("LAVA_DATA_DIR", str(api.books.settings.data_dir))

    async def call(*words: str) -> tuple[int, str]:
        monkeypatch.setenv("LAVA_MASTER_KEY", key().strip())
        done = await asyncio.to_thread(CliRunner().invoke, cli, ["webhooks", *words])
        return done.exit_code, done.output.strip()

    return call


async def test_the_operator_rotates_a_secret(
    api: Api, command: Callable[..., Awaitable[tuple[int, str]]]
) -> None:
    made = await api.made("webhooks", NEW)
    status, second = await command("rotate", made["webhook_id"])
    assert (status, await sealed_of(api, made["webhook_id"])) == (
        0,
        (second, [made["webhook_secret"]]),
    )
    status, third = await command("rotate", made["webhook_id"], "--overlap-s", "0")
    assert (status, await sealed_of(api, made["webhook_id"])) == (0, (third, []))
    assert (await command("rotate", "wh_none"))[0] == 2


async def disable(api: Api) -> None:
    async with api.database.transaction() as conn:
        await conn.execute("UPDATE webhooks SET disabled_at = '2026-01-02T03:04:05Z', failures = 9")


async def test_a_disabled_webhook_says_so_and_is_enabled_again(
    api: Api, command: Callable[..., Awaitable[tuple[int, str]]]
) -> None:
    made = await api.made("webhooks", NEW)
    del made["webhook_secret"]
    path = f"webhooks/{made['webhook_id']}"
    off = made | {"status": "disabled", "disabled_at": "2026-01-02T03:04:05.000Z"}
    for change in ({"status": "active"}, {"url": NEW["url"]}):
        await disable(api)
        assert (await api.get(path)).json == off
        assert (await api.call("PATCH", path, {"name": "ours"})).json == off
        assert (await api.call("PATCH", path, change)).json == made
    await disable(api)
    assert (await api.get("webhooks")).json["data"] == [off]
    assert (await command("enable", made["webhook_id"]))[0] == 0
    assert (await api.get(path)).json == made
    assert (await command("enable", "wh_none"))[0] == 2
    for wrong in ("disabled", "paused", None):
        reply = await api.call("PATCH", path, {"status": wrong})
        assert (reply.status, reply.paths) == (422, ["status"]), wrong
