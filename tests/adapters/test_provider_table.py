"""Every provider that the public service names, and those of the issue, has a complete row."""

from __future__ import annotations

import json
from datetime import date
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest

from lava_adapters import Registry
from lava_adapters.provider import Credential

REGISTRY = Registry.builtin()

NAMED = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "xai": "https://api.x.ai/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta",
    "googleOpenaiCompatible": "https://generativelanguage.googleapis.com/v1beta/openai",
    "kluster": "https://api.kluster.ai/v1",
    "inference": "https://api.inference.net/v1",
    "groq": "https://api.groq.com/openai/v1",
    "novita": "https://api.novita.ai/v3/openai",
    "vercel": "https://api.v0.dev/v1",
    "together": "https://api.together.xyz/v1",
    "hyperbolic": "https://api.hyperbolic.xyz/v1",
    "sambanova": "https://api.sambanova.ai/v1",
    "deepinfra": "https://api.deepinfra.com/v1/openai",
    "cohere": "https://api.cohere.ai/compatibility/v1",
    "parasail": "https://api.parasail.io/v1",
    "nebius": "https://api.studio.nebius.com/v1",
    "fireworks": "https://api.fireworks.ai/inference/v1",
    "embercloud": "https://api.embercloud.ai/v1",
    "cerebras": "https://api.cerebras.ai/v1",
    "targon": "https://api.targon.com/v1",
    "gmicloud": "https://api.gmi-serving.com/v1",
    "chutes": "https://llm.chutes.ai/v1",
    "baseten": "https://inference.baseten.co/v1",
    "moonshot": "https://api.moonshot.ai/v1",
    "elevenlabs": "https://api.elevenlabs.io/v1",
}
"""The 28 constants of the public SDK, with their targets."""

PATHS = {
    "anthropic": "/messages",
    "google": "/models/gemini-2.5-flash:streamGenerateContent",
    "elevenlabs": "/text-to-speech/voice/stream",
}
"""What is appended to them; everywhere else OpenAI's chat path."""

FURTHER = {
    # id: (host, path, family, kind, where its key goes)
    "openrouter": ("openrouter.ai", "/api/v1/chat/completions", "openai_chat", "chat", "bearer"),
    "perplexity": ("api.perplexity.ai", "/chat/completions", "openai_chat", "chat", "bearer"),
    "azure": ("azure-openai.invalid", "/openai/deployments/d/chat/completions", "openai_chat",
              "chat", "api-key"),
    "azure-foundry": ("azure-foundry.invalid", "/models/chat/completions", "openai_chat", "chat",
                      "api-key"),
    "bedrock": ("bedrock-runtime.eu-central-1.amazonaws.com", "/model/m/converse-stream",
                "bedrock", "converse", "bearer"),
    "bedrock-mantle": ("bedrock-mantle.us-east-1.api.aws", "/openai/v1/responses",
                       "openai_responses", "responses", "bearer"),
    "vertex": ("us-east5-aiplatform.googleapis.com",
               "/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict",
               "anthropic_messages", "raw_predict", "bearer"),
    "voyage": ("api.voyageai.com", "/v1/rerank", "openai_embeddings", "rerank", "bearer"),
    "deepgram": ("api.deepgram.com", "/v1/listen", "media", "transcription", "token"),
    "huggingface": ("router.huggingface.co", "/together/v1/chat/completions", "openai_chat",
                    "chat", "bearer"),
    "zai": ("api.z.ai", "/api/paas/v4/chat/completions", "openai_chat", "chat", "bearer"),
    "alibaba": ("dashscope-intl.aliyuncs.com", "/compatible-mode/v1/chat/completions",
                "openai_chat", "chat", "bearer"),
    "minimax": ("api.minimax.io", "/v1/chat/completions", "openai_chat", "chat", "bearer"),
    "replicate": ("api.replicate.com", "/v1/predictions", "predictions", "prediction",
                  "bearer"),
    "ollama": ("ollama.com", "/api/chat", "ollama", "chat", "bearer"),
    "vllm": ("vllm.invalid", "/v1/chat/completions", "openai_chat", "chat", "bearer"),
    "lmstudio": ("lmstudio.invalid", "/v1/responses", "openai_responses", "responses", "bearer"),
    "snowflake": ("snowflake.invalid", "/api/v2/cortex/v1/chat/completions", "openai_chat", "chat",
                  "bearer"),
    "heroku": ("us.inference.heroku.com", "/v1/chat/completions", "openai_chat", "chat", "bearer"),
}  # fmt: skip

CREDENTIALS = {
    "anthropic": "x-api-key",
    "google": "x-goog-api-key",
    "elevenlabs": "xi-api-key",
}
FAMILIES = {"anthropic": "anthropic_messages", "google": "gemini", "elevenlabs": "media"}


@pytest.mark.parametrize("name", NAMED)
def test_the_public_services_providers(name: str) -> None:
    assert len(NAMED) == 28
    target = urlsplit(NAMED[name] + PATHS.get(name, "/chat/completions"))
    provider = REGISTRY.by_host(target.netloc)
    assert provider is not None
    assert provider.id == ("google" if name.startswith("google") else name)
    found = provider.route("POST", target.path)
    assert found is not None
    assert found[0].managed
    assert found[0].family == FAMILIES.get(name, "openai_chat")
    assert provider.credential_for(found[0]) == CREDENTIALS.get(name, "bearer")


@pytest.mark.parametrize("name", FURTHER)
def test_further_providers(name: str) -> None:
    host, path, family, kind, credential = FURTHER[name]
    provider = REGISTRY.by_host(host)
    assert provider is not None
    assert provider.id == name
    found = provider.route("POST", path)
    assert found is not None
    assert (found[0].family, found[0].kind) == (family, kind)
    assert provider.credential_for(found[0]) == credential


def test_every_row_says_where_it_comes_from() -> None:
    ids = {provider.id for provider in REGISTRY.providers}
    assert {"google" if name.startswith("google") else name for name in NAMED} | set(FURTHER) <= ids
    for provider in REGISTRY.providers:
        assert provider.label != provider.id
        assert urlsplit(provider.docs).scheme == "https", provider.id
        assert date(2026, 11, 1) <= date.fromisoformat(provider.checked), provider.id
        assert provider.credential in get_args(Credential)
        assert any(route.kind not in ("free", "opaque") for route in provider.routes), provider.id


def test_every_paid_route_knows_its_model_and_whether_it_streams() -> None:
    """The price and the way of metering depend on both."""
    asked: dict[str, Any] = {"model": "m-1", "version": "m-1", "stream": True, "max_tokens": 9}
    asked["model_id"] = "m-1"
    reranker = {"modelConfiguration": {"modelArn": "arn:aws:bedrock:r::foundation-model/m-1"}}
    asked["rerankingConfiguration"] = {"bedrockRerankingConfiguration": reranker}
    body = json.dumps(asked).encode()
    for provider in REGISTRY.providers:
        for route in provider.routes:
            if route.kind in ("free", "opaque", "retrieve", "cancel", "conversations"):
                continue
            path = route.path.replace("{model}", "m-1").replace("{deployment}", "m-1")
            if "{" in path:
                path = path.replace("{", "").replace("}", "")
            adapter = REGISTRY.adapter(provider, route)
            query = "model=m-1" if provider.quirks.model_in_query else ""
            ask = adapter.ask("POST", path, query, "application/json", body)
            found = provider.route("POST", path)
            assert found is not None, (provider.id, path)
            model = "m-1" if route.suffix_param is None else f"m-1:{route.suffix_param}"
            model = f"owner/{model}" if "{owner}" in route.path and "predict" in path else model
            assert provider.named(ask, *found).model == model, (provider.id, path)
            in_path = route.family in ("gemini", "bedrock", "watsonx") or "embed" in route.kind
            one_piece = route.kind in ("rerank", "prediction", "ocr", "predict")
            assert ask.stream or in_path or one_piece, (provider.id, path)


def test_what_a_hang_up_means() -> None:
    """As OpenRouter's page lists it (see providers.toml); the policy follows, unless it is said."""
    told = {provider.id: provider.cancel_stops_charge for provider in REGISTRY.providers}
    assert (told["openai"], told["groq"], told["openrouter"]) == (True, False, None)
    for provider in REGISTRY.providers:
        wanted = "drain" if provider.cancel_stops_charge is False else "cancel"
        assert provider.disconnect == wanted, provider.id
    row = {"id": "mine", "hosts": ["a.example"], "base": "https://a.example"}
    for more, policy in (
        ({}, "cancel"),
        ({"cancel_stops_charge": True}, "cancel"),
        ({"cancel_stops_charge": False}, "drain"),
        ({"cancel_stops_charge": False, "disconnect": "cancel"}, "cancel"),
    ):
        mine = REGISTRY.with_providers([row | more]).by_id("mine")
        assert mine is not None
        assert mine.disconnect == policy


@pytest.mark.parametrize(
    ("name", "method", "path", "kind"),
    [
        ("together", "POST", "/v1/audio/transcriptions", "transcription"),
        ("together", "POST", "/v1/audio/translations", "transcription"),
        ("fireworks", "POST", "/inference/v1/rerank", "rerank"),
        ("fireworks", "POST", "/inference/v1/audio/transcriptions", "transcription"),
        ("fireworks", "POST", "/v1/audio/translations", "transcription"),
        ("azure-foundry", "POST", "/openai/v1/responses/r_1/cancel", "cancel"),
        ("azure-foundry", "DELETE", "/openai/v1/responses/r_1", "free"),
        ("bedrock-mantle", "POST", "/v1/responses", "responses"),
        ("bedrock-mantle", "GET", "/openai/v1/responses/r_1", "retrieve"),
    ],
)
def test_further_endpoints(name: str, method: str, path: str, kind: str) -> None:
    provider = REGISTRY.by_id(name)
    assert provider is not None
    found = provider.route(method, path)
    assert found is not None
    assert (found[0].kind, found[0].managed) == (kind, True)
    assert REGISTRY.by_host("audio-turbo.us-virginia-1.direct.fireworks.ai") is not None
