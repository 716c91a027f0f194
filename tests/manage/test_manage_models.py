"""The list of models: for everybody, and for a spend key only what it may use."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from api_kit import Api, Reply, call_app, new_merchant
from jsonschema_rs import validator_for

from lava_adapters.models import Models
from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.environment import load_settings
from lava_proxy.manage import openapi
from lava_proxy.manage.app import ROUTES, create_management
from lava_proxy.store import prices
from lava_proxy.store.database import Database
from lava_proxy.store.prices import PriceRow

AT = datetime(2026, 1, 1, tzinfo=UTC)
KEYED = ("openai", "anthropic", "google", "groq", "openrouter", "deepseek")


@pytest.fixture
async def keyed(books: Books, database: Database, tmp_path: Path) -> Api:
    """A merchant where the operator has keys for some providers."""
    keys = {f"LAVA_PROVIDER_KEY_{name.upper()}": "sk" for name in KEYED}
    books.settings = load_settings(keys, data_dir=tmp_path)
    app = create_management(books, Registry.builtin())
    return await new_merchant(app, books, database, "keyed")


async def _list(api: Api, key: str | None = None, header: str = "authorization") -> Reply:
    text = f"Bearer {key}" if header == "authorization" else str(key)
    headers = [] if key is None else [(header, text)]
    return await call_app(api.app, "GET", "/v1/models", headers=headers)


def _ids(reply: Reply) -> set[str]:
    assert reply.status == 200, reply.body
    return {model["id"] for model in reply.json["data"]}


async def test_everybody_sees_what_can_be_called(keyed: Api) -> None:
    reply = await _list(keyed)
    schema = {
        "$ref": "#/components/schemas/ModelList",
        "components": openapi.describe(ROUTES)["components"],
    }
    assert validator_for(schema).is_valid(reply.json)
    ids = _ids(reply)
    assert {"gpt-4o-mini", "claude-haiku-4-5", "gemini-2.5-flash", "deepseek-chat"} <= ids
    assert {"groq/openai/gpt-oss-120b", "openrouter/ai21/jamba-1-5-large"} <= ids
    assert not ids & {"gpt-image-1", "gpt-4o-mini-tts", "google/claude-haiku-4-5", "grok-3"}
    models, owners = Models(Registry.builtin()), dict[str, str]()
    for one in reply.json["data"]:
        owners[one["id"]] = one["owned_by"]
        served = [models.served(one["id"], kind) for kind in ("chat", "messages")]
        assert {place.provider.id for place in served if place} == {one["owned_by"]}, one
    assert len(owners) == len(reply.json["data"])
    assert set(owners.values()) == set(KEYED)
    assert _ids(await _list(keyed, keyed.secret)) == ids


async def test_without_keys_there_is_nothing_to_call(api: Api) -> None:
    assert (await _list(api)).json == {"object": "list", "data": []}


async def test_a_spend_key_sees_what_it_may_use(keyed: Api) -> None:
    async def key(**fields: object) -> str:
        made = await keyed.made("spend_keys", {"name": "k", **fields}, status=201)
        return str(made["key"])

    ids = _ids(await _list(keyed, await key()))
    assert {"gpt-4o-mini", "claude-haiku-4-5"} <= ids  # the other dialect is translated
    claude = await key(request_shape="anthropic", allowed_providers=["anthropic", "deepseek"])
    ids = _ids(await _list(keyed, claude, "x-api-key"))
    assert {"claude-haiku-4-5", "deepseek-chat"} <= ids
    assert "gpt-4o-mini" not in ids
    only = await key(allowed_models=["gpt-4o-mini", "groq/openai/gpt-oss-120b", "grok-3"])
    assert _ids(await _list(keyed, only)) == {"gpt-4o-mini", "groq/openai/gpt-oss-120b"}
    dated = [
        "claude-haiku-4-5-20251001",
        "claude-haiku-4-5",
        "anthropic/claude-haiku-4-5",
        "grok-3",
    ]
    own = await key(request_shape="anthropic", allowed_models=dated)
    assert _ids(await _list(keyed, own)) == {"claude-haiku-4-5-20251001", "claude-haiku-4-5"}
    groq = await key(allowed_providers=["groq"])
    ids = _ids(await _list(keyed, groq))
    assert "llama-3.3-70b-versatile" in ids
    assert all(i.startswith(("groq/", "llama-")) for i in ids)


async def test_models_that_only_have_a_price_of_ones_own(keyed: Api) -> None:
    """The operator's for everybody, a merchant's for its keys."""
    operators = PriceRow(
        "prc_1", None, "openai", "exact", "gpt-9", {"input_1m": "1", "output_1m": "2"}, *(AT, AT)
    )
    async with keyed.database.transaction() as conn:
        await prices.create(conn, operators)
    for provider, model in (("openai", "gpt-8"), ("groq", "new/One"), ("mistral", "no-key")):
        body = {"provider": provider, "model": model, "rates": {"input_1m": "1", "output_1m": "2"}}
        await keyed.made("prices", body)
    made = await keyed.made("spend_keys", {"name": "k"}, status=201)
    everybody, own = _ids(await _list(keyed)), _ids(await _list(keyed, made["key"]))
    assert "gpt-9" in everybody
    assert own - everybody == {"gpt-8", "groq/new/One"}
    assert everybody <= own


async def test_a_key_that_is_no_good(keyed: Api) -> None:
    made = await keyed.made("spend_keys", {"name": "k"}, status=201)
    path = f"spend_keys/{made['spend_key_id']}"
    await keyed.call("PUT", path, {"status": "paused"})
    reply = await _list(keyed, made["key"])
    assert (reply.status, reply.code) == (403, "key_paused")
    await keyed.call("DELETE", path)
    reply = await _list(keyed, made["key"])
    assert (reply.status, reply.code) == (401, "invalid_token")
