"""Models find their provider by name: the table against the price list's own models."""

from __future__ import annotations

import pytest
from genai_prices import data_snapshot

from lava_adapters.models import Kind, Models, route_of
from lava_adapters.registry import Registry

REGISTRY = Registry.builtin()
MODELS = Models(REGISTRY)


@pytest.mark.parametrize(
    ("model", "kind", "place"),
    [
        ("gpt-4o-mini", "chat", ("openai", "/v1/chat/completions", "gpt-4o-mini")),
        ("o3", "chat", ("openai", "/v1/chat/completions", "o3")),
        ("ft:gpt-4o:org::id", "chat", ("openai", "/v1/chat/completions", "ft:gpt-4o:org::id")),
        ("claude-sonnet-4-5", "messages", ("anthropic", "/v1/messages", "claude-sonnet-4-5")),
        ("GPT-4o", "chat", ("openai", "/v1/chat/completions", "GPT-4o")),
        (
            "gemini-2.5-flash",
            "chat",
            ("google", "/v1beta/openai/chat/completions", "gemini-2.5-flash"),
        ),
        ("gpt-oss-120b", "chat", ("cerebras", "/v1/chat/completions", "gpt-oss-120b")),
        (
            "groq/openai/gpt-oss-120b",
            "chat",
            ("groq", "/openai/v1/chat/completions", "openai/gpt-oss-120b"),
        ),
        (
            "openrouter/deepseek/deepseek-chat",
            "chat",
            ("openrouter", "/api/v1/chat/completions", "deepseek/deepseek-chat"),
        ),
        ("openai/gpt-4o", "chat", ("openai", "/v1/chat/completions", "gpt-4o")),
        ("deepseek-chat", "messages", ("deepseek", "/anthropic/v1/messages", "deepseek-chat")),
        ("claude-sonnet-4-5", "chat", None),
        ("gpt-4o", "messages", None),
        ("deepseek-ai/DeepSeek-V3", "chat", None),
        ("nobody-knows", "chat", None),
        ("openai/", "chat", None),
        ("/gpt-4o", "chat", None),
        ("", "chat", None),
        ("voyage/voyage-3", "chat", None),
        ("azure/gpt-4o", "chat", None),
    ],
)
def test_places(model: str, kind: Kind, place: tuple[str, str, str] | None) -> None:
    served = MODELS.served(model, kind)
    got = None if served is None else (served.provider.id, served.route.path, served.model)
    assert got == place


def test_the_table_leads_to_providers_that_serve_it() -> None:
    """Every entry ends at a route."""
    for name, provider_id in [*MODELS._names.items(), *MODELS._prefixes.items()]:
        provider = REGISTRY.by_id(provider_id)
        assert provider is not None
        served = [MODELS.served(name, kind) for kind in ("chat", "messages")]
        assert any(served), name
        assert {place.provider.id for place in served if place} == {provider_id}
        assert route_of(provider, "chat") or route_of(provider, "messages")


def test_no_model_of_one_maker_goes_to_another() -> None:
    """The makers that sell their own models by their own names, in the price list."""
    makers = {"openai": "gpt-oss", "anthropic": "", "x-ai": "", "moonshotai": "", "zai": ""}
    ids = {p.prices: p.id for p in REGISTRY.providers}
    for provider in data_snapshot.get_snapshot().providers:
        if provider.id not in makers:
            continue
        for model in provider.models:
            place = MODELS.owner(model.id)
            lent = makers[provider.id] and model.id.startswith(makers[provider.id])
            assert lent or place in (None, ids[provider.id]), model.id


def test_what_makes_no_text() -> None:
    assert not MODELS.makes_text("gpt-4o-mini-TTS")
    assert MODELS.makes_text("gpt-4o")
