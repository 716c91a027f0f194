"""Requests that public projects have recorded find their route, and the adapter reads them: what a
provider has accepted is nothing for us to refuse. Hosts, paths and members are those of the
recordings, the rest is ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lava_adapters import Ask, Registry
from lava_adapters.contract import Usage
from lava_adapters.provider import Route
from lava_proxy.wire.tap import Tap

REGISTRY = Registry.builtin()
CHAT = {"model": "m-1", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "m-1", "prompt": "Hi"}
HF = "router.huggingface.co"


def call(host: str, method: str, path: str, request: object = None) -> tuple[Route, Ask]:
    """The route of a call, and what it asks for."""
    provider = REGISTRY.by_host(host)
    assert provider is not None, host
    found = provider.route(method, path)
    assert found is not None, path
    body = b"" if request is None else json.dumps(request).encode()
    ask = REGISTRY.adapter(provider, found[0]).ask(method, path, "", "application/json", body)
    return found[0], provider.named(ask, *found)


def answer(host: str, path: str, request: object, body: dict[str, Any]) -> Usage:
    """What is read in a whole answer."""
    route, ask = call(host, "POST", path, request)
    provider = REGISTRY.by_host(host)
    assert provider is not None
    adapter = REGISTRY.adapter(provider, route)
    tap = Tap(adapter.framing(ask, "application/json"), adapter.reader(ask))
    tap.feed(json.dumps(body).encode())
    tap.finish()
    return tap.reader.usage()


# huggingface.js, packages/inference/src/providers/*.ts and test/tapes.json
@pytest.mark.parametrize(
    ("host", "path", "request_", "kind", "model"),
    [
        (HF, "/cohere/compatibility/v1/chat/completions", CHAT, "chat", "m-1:cohere"),
        (HF, "/zai-org/api/paas/v4/chat/completions", CHAT, "chat", "m-1:zai-org"),
        (HF, "/clarifai/v2/ext/openai/v1/chat/completions", CHAT, "chat", "m-1:clarifai"),
        (HF, "/deepinfra/v1/openai/chat/completions", CHAT, "chat", "m-1:deepinfra"),
        (HF, "/featherless-ai/v1/completions", TEXT, "completions", "m-1:featherless-ai"),
        (HF, "/novita/v3/openai/completions", TEXT, "completions", "m-1:novita"),
        (HF, "/nebius/v1/embeddings", {"model": "m-1", "input": "Hi"}, "embeddings", "m-1:nebius"),
        (HF, "/nscale/v1/images/generations", TEXT, "images", "m-1:nscale"),
        (HF, "/hf-inference/models/o/m/v1/completions", TEXT, "completions", "m-1"),
        (HF, "/hf-inference/models/o/m", {"inputs": "Hi"}, "opaque", None),
        (HF, "/hf-inference/models/gpt2", {"inputs": "Hi"}, "opaque", None),
        (HF, "/hf-inference/models/o/m/pipeline/feature-extraction", {"inputs": "Hi"}, "opaque",
         None),
        ("huggingface.co", "/api/inference-proxy/hf-inference/models/o/m/v1/chat/completions",
         CHAT, "chat", "m-1"),
        ("huggingface.co", "/api/inference-proxy/together/v1/chat/completions", CHAT, "chat",
         "m-1:together"),
        ("api-inference.huggingface.co", "/models/o/m/v1/chat/completions", CHAT, "chat", "m-1"),
        ("api-inference.huggingface.co", "/models/o/m", {"inputs": "Hi"}, "opaque", None),
    ],
)  # fmt: skip
def test_hugging_face(
    host: str, path: str, request_: dict[str, Any], kind: str, model: str | None
) -> None:
    route, ask = call(host, "POST", path, request_)
    assert (route.kind, ask.model) == (kind, model)


# huggingface.js, packages/inference/src/providers/hyperbolic.ts: the model has a name of its own.
@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/image/generation"])
def test_hyperbolic_pictures(path: str) -> None:
    request = {"model_name": "SD2", "prompt": "a dog", "steps": 30}
    usage = answer("api.hyperbolic.xyz", path, request, {"images": [{"image": "QUJD"}]})
    assert (usage.images, usage.model) == (1, "SD2")


# openllmetry, instrumentation-anthropic, cassettes/test_completion/test_anthropic_completion.yaml:
# no usage is stated.
def test_anthropics_text_completions() -> None:
    request = {"model": "claude-instant-1.2", "max_tokens_to_sample": 2048, "prompt": "\n\nHuman:"}
    route, ask = call("api.anthropic.com", "POST", "/v1/complete", request)
    assert route.managed
    assert (ask.model, ask.output_cap, ask.stream) == ("claude-instant-1.2", 2048, False)
    assert ask.makes_output
    provider = REGISTRY.by_host("api.anthropic.com")
    assert provider is not None
    adapter = REGISTRY.adapter(provider, route)
    body = json.dumps(request).encode()
    lowered = json.loads(adapter.edit(ask, body, usage=False, output_cap=9))
    assert lowered == request | {"max_tokens_to_sample": 9}
    reader = adapter.reader(ask)
    done = {"type": "completion", "completion": " Hello!", "stop_reason": "stop_sequence"}
    reader.event("", json.dumps(done | {"model": "claude-instant-1.2"}).encode())
    assert (reader.ended, reader.deltas, reader.delta_bytes) == (True, 1, 7)


def test_anthropics_text_completions_streamed() -> None:
    request = {"model": "claude-2.1", "max_tokens_to_sample": 9, "prompt": "Hi", "stream": True}
    route, ask = call("api.anthropic.com", "POST", "/v1/complete", request)
    provider = REGISTRY.by_host("api.anthropic.com")
    assert provider is not None
    reader = REGISTRY.adapter(provider, route).reader(ask)
    for text, stop in ((" Hel", None), ("lo", None), ("", "stop_sequence")):
        assert not reader.ended
        event = {"type": "completion", "completion": text, "stop_reason": stop, "log_id": "compl_1"}
        reader.event("completion", json.dumps(event).encode())
    assert (reader.ended, reader.deltas, reader.delta_bytes) == (True, 2, 6)


# openllmetry, instrumentation-ollama, cassettes/test_embeddings/test_ollama_embeddings_legacy.yaml
def test_ollamas_older_embeddings() -> None:
    request = {"model": "llama3", "prompt": "all-minilm", "options": {}, "keep_alive": None}
    route, ask = call("ollama.com", "POST", "/api/embeddings", request)
    assert (route.kind, ask.model, ask.stream, ask.makes_output) == (
        "embed",
        "llama3",
        False,
        False,
    )


# openllmetry, instrumentation-replicate, cassettes/test_image_generation/*.yaml
@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/stability-ai/stable-diffusion",
        "/v1/models/stability-ai/stable-diffusion/versions",
        "/v1/models/stability-ai/stable-diffusion/versions/27b9",
    ],
)
def test_replicates_client_looks_its_models_up(path: str) -> None:
    assert call("api.replicate.com", "GET", path)[1].free


# ruby_llm, chat_..._azure_*: all APIs of a resource at one host
@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/openai/v1/models", "free"),
        ("POST", "/openai/v1/audio/transcriptions", "transcription"),
        ("POST", "/openai/v1/audio/speech", "speech"),
        ("POST", "/openai/v1/images/generations", "images"),
        ("POST", "/openai/v1/images/edits", "images"),
        ("POST", "/openai/v1/completions", "completions"),
        ("POST", "/openai/responses", "responses"),
        ("POST", "/models/images/embeddings", "embeddings"),
        ("POST", "/openai/deployments/d/audio/transcriptions", "transcription"),
        ("POST", "/openai/deployments/d/images/generations", "images"),
    ],
)
def test_azures_foundry(method: str, path: str, kind: str) -> None:
    request = TEXT if method == "POST" else None
    assert call("azure-foundry.invalid", method, path, request)[0].kind == kind


# pydantic-ai, tests/providers/cassettes/test_databricks; ruby_llm, chat_function_calling_gpustack_*
@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("databricks.invalid", "/serving-endpoints/chat/completions"),
        ("gpustack.invalid", "/v1/chat/completions"),
        ("gpustack.invalid", "/v1-openai/chat/completions"),
    ],
)
def test_servers_of_ones_own(host: str, path: str) -> None:
    route, ask = call(host, "POST", path, CHAT)
    assert (route.family, route.kind, ask.model) == ("openai_chat", "chat", "m-1")


# vercel/ai, packages/amazon-bedrock/src/reranking: the region's agent runtime
def test_bedrocks_rerank() -> None:
    arn = "arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0"
    model = {"modelConfiguration": {"modelArn": arn}, "numberOfResults": 2}
    text = {"type": "TEXT", "textDocument": {"text": "rainy"}}
    source = {"type": "INLINE", "inlineDocumentSource": text}
    request = {
        "queries": [{"type": "TEXT", "textQuery": {"text": "rain"}}],
        "sources": [source, source],
        "rerankingConfiguration": {"type": "BEDROCK_RERANKING_MODEL",
                                   "bedrockRerankingConfiguration": model},
    }  # fmt: skip
    _, ask = call("bedrock-agent-runtime.us-west-2.amazonaws.com", "POST", "/rerank", request)
    assert (ask.model, ask.makes_output) == ("cohere.rerank-v3-5:0", False)
    assert ask.tool_fees == (("search_unit", 1),)


# pydantic-ai, tests/models/cassettes/test_openrouter/test_openrouter_web_search_tool_usage.yaml
@pytest.mark.parametrize("member", ["server_tool_use_details", "server_tool_use"])
def test_openrouter_counts_its_searches(member: str) -> None:
    usage = {"prompt_tokens": 8174, "completion_tokens": 30, "total_tokens": 8204, "cost": 0.0133}
    usage |= {member: {"web_search_requests": 2}}  # type: ignore[dict-item]
    found = answer(
        "openrouter.ai",
        "/api/v1/chat/completions",
        CHAT | {"tools": [{"type": "openrouter:web_search"}]},
        {"id": "gen-1", "choices": [], "usage": usage},
    )
    assert (found.input_tokens, found.output_tokens, found.web_searches) == (8174, 30, 2)
    assert found.cost_e10 == 133_000_000


# pydantic-ai (code execution, mantle), ruby_llm (batches, models, files), vercel/ai (skills): what
# clients do beside asking a model. With the caller's own key, where others could be seen.
@pytest.mark.parametrize(
    ("host", "method", "path", "managed"),
    [
        ("api.openai.com", "GET", "/v1/containers/c/files", False),
        ("api.openai.com", "GET", "/v1/containers/c/files/f/content", False),
        ("api.openai.com", "POST", "/v1/vector_stores", False),
        ("api.openai.com", "POST", "/v1/vector_stores/v/files", False),
        ("api.openai.com", "POST", "/v1/uploads", False),
        ("api.openai.com", "POST", "/v1/skills", False),
        ("api.openai.com", "GET", "/v1/skills/s/versions", False),
        ("api.openai.com", "POST", "/v1/videos", False),
        ("api.openai.com", "GET", "/v1/videos/v/content", False),
        ("api.anthropic.com", "POST", "/v1/skills", False),
        ("generativelanguage.googleapis.com", "POST", "/v1beta/models/m:batchGenerateContent",
         False),
        ("generativelanguage.googleapis.com", "GET", "/v1beta/batches/b", False),
        ("aiplatform.googleapis.com", "GET", "/v1beta1/publishers/google/models", True),
        ("api.mistral.ai", "POST", "/v1/files", False),
        ("api.mistral.ai", "GET", "/v1/files/f/url", False),
        ("api.mistral.ai", "POST", "/v1/batch/jobs", False),
        ("api.x.ai", "GET", "/v1/language-models", True),
        ("api.x.ai", "POST", "/v1/videos/generations", False),
        ("api.x.ai", "GET", "/v1/videos/v", False),
        ("api.x.ai", "POST", "/v1/files", False),
        ("openrouter.ai", "GET", "/api/v1/models/openai/gpt-6/endpoints", True),
        ("openrouter.ai", "GET", "/api/v1/key", False),
        ("api.together.xyz", "POST", "/v2/videos", False),
        ("api.together.xyz", "GET", "/v2/videos/v", False),
    ],
)  # fmt: skip
def test_beside_the_models(host: str, method: str, path: str, managed: bool) -> None:
    assert call(host, method, path, {} if method == "POST" else None)[0].managed is managed


@pytest.mark.parametrize(
    ("host", "path", "family", "kind"),
    [
        ("api.mistral.ai", "/v1/agents/completions", "openai_chat", "chat"),
        ("api.mistral.ai", "/v1/chat/moderations", "openai_embeddings", "embeddings"),
        ("api.x.ai", "/v1/images/edits", "media", "images"),
        ("bedrock-mantle.us-east-1.api.aws", "/anthropic/v1/messages", "anthropic_messages",
         "messages"),
        ("openrouter.ai", "/api/v1/messages", "anthropic_messages", "messages"),
    ],
)  # fmt: skip
def test_more_paths_of_models(host: str, path: str, family: str, kind: str) -> None:
    route, ask = call(host, "POST", path, CHAT)
    assert (route.family, route.kind, route.managed) == (family, kind, True)
    assert ask.model == "m-1"


# openllmetry, instrumentation-writer, test_completions/test_writer_streaming_completions_*.yaml:
# neither choices nor usage nor an end.
def test_writers_streamed_completions_are_counted() -> None:
    route, ask = call("api.writer.com", "POST", "/v1/completions", TEXT | {"stream": True})
    provider = REGISTRY.by_host("api.writer.com")
    assert provider is not None
    adapter = REGISTRY.adapter(provider, route)
    body = b'data: {"value":"Sure"}\n\ndata: {"value":","}\n\ndata: {"value":" h\\u00e9re"}\n\n'
    for size in (1, 7, len(body)):
        tap = Tap(adapter.framing(ask, "text/event-stream"), adapter.reader(ask))
        for at in range(0, len(body), size):
            tap.feed(body[at : at + size])
        tap.finish()
        assert (tap.reader.deltas, tap.reader.delta_bytes) == (3, 11)
