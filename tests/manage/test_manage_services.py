"""The catalogue: what it lists can be called, list prices digit by digit, and made once a day."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from api_kit import Api, Reply, call_app
from jsonschema_rs import validator_for
from pydantic import SecretStr

from lava_adapters.registry import Registry
from lava_proxy.manage import openapi
from lava_proxy.manage.app import ROUTES, Management, create_management
from lava_proxy.rules.catalog import compile_rates
from lava_proxy.rules.rates import DENOMINATOR


async def ask(app: Management, path: str = "services", query: str = "") -> Reply:
    return await call_app(app, "GET", f"/v1/{path}", query=query)


@pytest.fixture
def keyed(api: Api) -> Management:
    keys = {"openai": SecretStr("sk-secret")}
    api.books.settings = api.books.settings.model_copy(update={"provider_keys": keys})
    return create_management(api.books, Registry.builtin())


def entry(found: Any, name: str) -> Any:
    [one] = [row for row in found["data"] if row["id"] == name]
    return one


async def test_everybody_may_look(keyed: Management) -> None:
    reply = await ask(keyed)
    found = reply.json
    assert (reply.status, set(found), found["object"]) == (
        200,
        {"object", "data", "providers"},
        "list",
    )
    assert b"sk-secret" not in reply.body
    ids = [row["id"] for row in found["data"]]
    assert len(ids) == len(set(ids)) > 1000
    counts = {row["id"]: row["entry_count"] for row in found["providers"]}
    assert {row["provider"] for row in found["data"]} <= set(counts)
    assert sum(counts.values()) == len(ids)
    document = openapi.describe(ROUTES)
    schema = {"$ref": "#/components/schemas/Services", "components": document["components"]}
    assert validator_for(schema).is_valid((await ask(keyed, query="provider=anthropic")).json)


async def test_a_model_and_an_endpoint(keyed: Management) -> None:
    found = (await ask(keyed, query="provider=openai")).json
    assert {row["provider"] for row in found["data"]} == {"openai"}
    model = entry(found, "openai/gpt-4o-mini")
    assert model | {"pricing": None} == {
        "id": "openai/gpt-4o-mini",
        "object": "model",
        "provider": "openai",
        "provider_label": "OpenAI",
        "api_reference": "https://platform.openai.com/docs/api-reference",
        "endpoint": "POST https://api.openai.com/v1/chat/completions",
        "method": "POST",
        "url_template": "https://api.openai.com/v1/chat/completions",
        "service_type": "llm",
        "managed": True,
        "capabilities": ["streaming"],
        "example_body": {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "Hello"}],
        },
        "pricing": None,
    }
    speech = entry(found, "openai/v1/audio/speech")
    assert (speech["object"], speech["service_type"]) == ("endpoint", "speech")
    embedding = entry(found, "openai/text-embedding-3-small")
    assert embedding["url_template"].endswith("/v1/embeddings")
    claude = (await ask(keyed, query="provider=anthropic")).json["data"]
    assert {row["managed"] for row in claude} == {False}
    assert {row["service_type"] for row in claude} == {"llm"}


async def test_prices_are_the_charged_ones(keyed: Management, api: Api) -> None:
    """Where nobody overrides them: the list and the compiled price are the same to the digit."""
    found = (await ask(keyed, query="provider=openai")).json["data"]
    seen = 0
    for name in ("gpt-4o", "gpt-4o-mini", "o3", "gpt-4.1", "text-embedding-3-small"):
        pricing = entry({"data": found}, f"openai/{name}")["pricing"]
        rates = compile_rates("openai", name, api.books.now())
        assert rates is not None
        for member, weight in (("input", rates.base.input), ("output", rates.base.output)):
            if member in pricing:
                assert Decimal(pricing[member]) * DENOMINATOR == weight * 10**6
                seen += 1
    assert seen == 9


async def test_what_is_listed_can_be_called(keyed: Management) -> None:
    registry = Registry.builtin()
    for row in (await ask(keyed)).json["data"]:
        host, _, path = row["url_template"].removeprefix("https://").partition("/")
        provider = registry.by_host(host) or registry.by_id(row["provider"])
        assert provider is not None
        assert provider.id == row["provider"]
        filled = "/" + path.replace("{", "x").replace("}", "x")
        assert provider.route(row["method"], filled) is not None, row


async def test_one_provider(keyed: Management) -> None:
    summary = (await ask(keyed, "services/providers/openai")).json
    assert (await ask(keyed, query="provider=openai")).json["providers"] == [summary]
    assert (summary["label"], summary["managed"]) == ("OpenAI", True)
    for reply in (
        await ask(keyed, "services/providers/nobody"),
        await ask(keyed, query="provider=nobody"),
        await ask(keyed, query="provider="),
    ):
        assert (reply.status, reply.code) == (404, "not_found")
    assert (await ask(keyed, query="limit=1")).status == 422


async def test_it_is_made_once(keyed: Management) -> None:
    catalogue = keyed._desk.catalogue
    now = keyed._desk.books.now()
    assert catalogue.part("openai", now) is catalogue.part("openai", now)
    assert await catalogue.whole(now) is await catalogue.whole(now)
    tomorrow = now + timedelta(days=1)
    assert catalogue.part("openai", tomorrow) is not catalogue.part("openai", now)
