"""The catalogue: what it lists can be called, list prices digit by digit, and made once a day."""

from __future__ import annotations

import asyncio
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
from lava_proxy.rules.bundled import compile_rates
from lava_proxy.rules.catalog import OVERRIDE_UNITS, Override, compile_override
from lava_proxy.rules.rates import RELATIVES


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
    """Where nobody overrides them: the rates that are shown, taken as a price of one's own, charge
    what the list charges, in every band and at every tier; and none that is charged is absent."""
    registry, now = Registry.builtin(), api.books.now()
    names = registry.price_names
    shown = {row["id"]: row for row in (await ask(keyed)).json["data"] if "pricing" in row}
    assert len(shown) > 2000
    units = set()
    for row in shown.values():
        pricing, model = row["pricing"], row["id"].removeprefix(f"{row['provider']}/")
        provider = names.get(row["provider"], row["provider"])
        tiers = pricing.get("service_tiers", {})
        for tier, price in [(None, pricing), *tiers.items()]:
            rates = compile_rates(provider, model, now, tier)
            assert rates is not None, row
            bands = [(0, price["rates"])]
            bands += [(o["above_tokens"], o["rates"]) for o in price.get("long_context", ())]
            assert [start for start, _ in bands[1:]] == [start for start, _ in rates.cliffs], row
            for start, told in bands:
                units |= told.keys()
                own = compile_override(Override("o", "p", "exact", "m", tuple(told.items())))
                band = rates.band(start + 1)
                for kind in RELATIVES:
                    said, charged = getattr(own.base, kind), getattr(band, kind)
                    # A price by the hour has more digits than are shown by the minute.
                    assert abs(said - charged) * 10**9 <= max(charged, 1), (row, kind)
                assert own.unpriced == rates.unpriced, row
    missing = set(OVERRIDE_UNITS) - units
    assert missing <= {"output_characters_1m", "guardrail_other", "image"}  # no list has them


async def test_the_public_members_say_the_same(keyed: Management) -> None:
    found = (await ask(keyed)).json["data"]
    pricing = {row["id"]: row["pricing"] for row in found if "pricing" in row}
    for price in pricing.values():
        unit = {"tokens_1m": "1m", "characters_1m": "characters_1m", "minutes": "minute"}
        rates = {name: Decimal(text) for name, text in price["rates"].items()}
        for member, name in (
            ("input", f"input_{unit.get(price['type'])}"),
            ("output", f"output_{unit.get(price['type'])}"),
            ("cache_input_read", "cache_read_1m"),
            ("cache_input_write", "cache_write_1m"),
            ("cost_per_request", "request"),
        ):
            assert price.get(member) == rates.get(name), price
        for medium in ("audio", "image"):
            assert price.get(medium, {}).get("input") == rates.get(f"input_{medium}_1m")
            assert price.get(medium, {}).get("output") == rates.get(f"output_{medium}_1m")
    audio = pricing["openai/gpt-4o-audio-preview"]
    assert (audio["type"], audio["text"]) == (
        "tokens_1m",
        {"input": audio["input"], "output": audio["output"]},
    )
    assert audio["audio"] == {"input": 40, "output": 80}
    assert audio["rates"]["input_audio_1m"] == "40.0000000000"


async def test_every_unit_reads_well(keyed: Management) -> None:
    found = (await ask(keyed)).json["data"]

    def price(name: str) -> Any:
        return entry({"data": found}, name)["pricing"]

    claude = price("anthropic/claude-opus-4-5")["rates"]
    assert Decimal(claude["cache_write_1h_1m"]) > Decimal(claude["cache_write_1m"])
    assert Decimal(claude["web_search"]) == Decimal("0.01")
    long = price("google/gemini-2.5-pro")
    assert [one["above_tokens"] for one in long["long_context"]] == [200_000]
    assert Decimal(long["long_context"][0]["rates"]["input_1m"]) > Decimal(str(long["input"]))
    flex = price("openai/gpt-5")["service_tiers"]
    assert {"flex", "priority"} <= set(flex)
    assert "default" not in flex  # as usual
    assert Decimal(flex["flex"]["rates"]["input_1m"]) < Decimal(str(price("openai/gpt-5")["input"]))
    assert price("openai/gpt-5")["rates"]["file_search"] == "0.0025000000"
    for name, kind, service, rates in (
        ("openai/tts-1", "characters_1m", "speech", {"input_characters_1m": "15.0000000000"}),
        ("groq/whisper-large-v3", "minutes", "transcription", {"input_minute": ...}),
        ("deepgram/nova-3", "minutes", "transcription", {"input_minute": "0.0077000000"}),
        ("elevenlabs/eleven_v3", "characters_1m", "speech", {"input_characters_1m": ...}),
        ("cohere/rerank-v3.5", "requests", "rerank", {"search_unit": "0.0020000000"}),
        ("voyage/rerank-2.5", "tokens_1m", "rerank", {"input_1m": "0.0500000000"}),
        ("mistral/mistral-ocr-2512", "requests", "ocr", {"page": ...}),
        ("openai/gpt-image-1", "tokens_1m", "image", {"input_image_1m": "10.0000000000"}),
        ("fireworks/accounts/fireworks/models/glm-5p3", "tokens_1m", "llm", {"input_1m": ...}),
        ("bedrock/us.amazon.nova-2-lite-v1:0", "tokens_1m", "llm", {"guardrail_filter": ...}),
        ("openai/gpt-4o-transcribe", "tokens_1m", "transcription", {"input_audio_1m": ...}),
        ("openai/text-embedding-3-small", "tokens_1m", "embeddings", {"input_1m": ...}),
    ):
        row = entry({"data": found}, name)
        assert (row["pricing"]["type"], row["service_type"]) == (kind, service), row
        told = row["pricing"]["rates"]
        for unit, text in rates.items():
            assert told[unit] == text or text is ..., row


async def test_what_is_listed_can_be_called(keyed: Management) -> None:
    registry = Registry.builtin()
    for row in (await ask(keyed)).json["data"]:
        host, _, path = row["url_template"].removeprefix("https://").partition("/")
        provider = registry.by_host(host) or registry.by_id(row["provider"])
        assert provider is not None
        assert provider.id == row["provider"]
        filled = "/" + path.replace("{", "x").replace("}", "x")
        assert provider.route(row["method"], filled) is not None, row


async def test_what_is_talked_to_is_not_listed(keyed: Management) -> None:
    ids = {row["id"] for row in (await ask(keyed)).json["data"]}
    gone = {"openai/gpt-realtime", "google/gemini-3.8-live", "xai/grok-voice-latest"}
    assert not gone & ids
    kinds = {row["id"]: row["service_type"] for row in (await ask(keyed)).json["providers"]}
    assert (kinds["groq"], kinds["voyage"], kinds["deepgram"]) == ("llm", "embeddings", "speech")


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


async def test_many_who_ask_at_once_get_one_work(
    keyed: Management, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, made = keyed._desk.catalogue, []
    make = catalogue._made

    async def noted(provider: Any, now: Any) -> Any:
        made.append(provider.id)
        return await make(provider, now)

    monkeypatch.setattr(catalogue, "_made", noted)
    bodies = await asyncio.gather(*(ask(keyed) for _ in range(5)))
    assert len({reply.body for reply in bodies}) == 1
    assert len(made) == len(set(made)) > 30


async def test_it_is_made_once(keyed: Management) -> None:
    catalogue = keyed._desk.catalogue
    now = keyed._desk.books.now()
    assert await catalogue.part("openai", now) is await catalogue.part("openai", now)
    assert await catalogue.whole(now) is await catalogue.whole(now)
    tomorrow = now + timedelta(days=1)
    assert await catalogue.part("openai", tomorrow) is not await catalogue.part("openai", now)
