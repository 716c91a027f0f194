"""Google's paths beside generateContent: caches have an owner and cost what they read once, and
Imagen answers at the Gemini host too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lava_adapters import Ask, Reader, Registry
from lava_adapters.provider import Route

REGISTRY = Registry.builtin()
GEMINI = "generativelanguage.googleapis.com"
VERTEX = "aiplatform.googleapis.com"
PLACE = "projects/5/locations/us-central1"


def _ask(
    host: str, method: str, path: str, request: dict[str, Any] | None = None
) -> tuple[Route, Ask, Reader]:
    provider = REGISTRY.by_host(host)
    assert provider is not None
    found = provider.route(method, path)
    assert found is not None, path
    adapter = REGISTRY.adapter(provider, found[0])
    body = b"" if request is None else json.dumps(request).encode()
    ask = adapter.ask(method, path, "", "application/json", body)
    return found[0], ask, adapter.reader(ask)


# ruby_llm, cachedcontent_explicit_caching_round-trip_vertexai_..._creates_uses_and_deletes_a_cache
@pytest.mark.parametrize(
    ("host", "version", "parent", "model"),
    [
        (GEMINI, "v1beta", "", "models/gemini-2.5-flash"),
        (VERTEX, "v1", f"{PLACE}/", f"{PLACE}/publishers/google/models/gemini-2.5-flash"),
        (VERTEX, "v1beta1", f"{PLACE}/", f"{PLACE}/publishers/google/models/gemini-2.5-flash"),
    ],
)
def test_a_cache_is_made_used_and_deleted(host: str, version: str, parent: str, model: str) -> None:
    contents = [{"role": "user", "parts": [{"text": "a handbook"}]}]
    request = {"model": model, "contents": contents, "ttl": "300s"}
    route, ask, reader = _ask(host, "POST", f"/{version}/{parent}cachedContents", request)
    assert (route.kind, route.managed) == ("caches", True)
    assert (ask.model, ask.makes_output, ask.free) == ("gemini-2.5-flash", False, False)
    name = f"{parent}cachedContents/706"
    answer = {"name": name, "model": model, "usageMetadata": {"totalTokenCount": 9602}}
    reader.event("", json.dumps(answer).encode())
    usage = reader.usage()
    assert (usage.input_tokens, usage.output_tokens) == (9602, 0)
    assert (usage.model, reader.response_id) == ("gemini-2.5-flash", name)
    assert reader.final
    for method in ("GET", "DELETE"):
        _, again, _ = _ask(host, method, f"/{version}/{name}")
        assert (again.free, again.object_ids) == (True, (name,))
    place = f"{parent}publishers/google/" if parent else ""
    path = f"/{version}/{place}models/gemini-2.5-flash:generateContent"
    _, use, _ = _ask(host, "POST", path, {"contents": contents, "cachedContent": name})
    assert use.object_ids == (name,)


def test_nobody_lists_the_caches_of_others() -> None:
    provider = REGISTRY.by_host(GEMINI)
    assert provider is not None
    found = provider.route("GET", "/v1beta/cachedContents")
    assert found is not None
    assert not found[0].managed


# vercel/ai, packages/google/src/__fixtures__/issue-10843-google-imagen-generate-image.json
def test_imagen_at_the_gemini_host() -> None:
    request = {"instances": [{"prompt": "a hamster"}], "parameters": {"sampleCount": 2}}
    path = "/v1beta/models/imagen-4.0-generate-001:predict"
    route, ask, reader = _ask(GEMINI, "POST", path, request)
    assert (route.kind, route.managed) == ("predict", True)
    assert (ask.model, ask.images) == ("imagen-4.0-generate-001", 2)
    made = {"mimeType": "image/png", "bytesBase64Encoded": "QUJD"}
    reader.event("", json.dumps({"predictions": [made, made]}).encode())
    assert reader.usage().images == 2
