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
