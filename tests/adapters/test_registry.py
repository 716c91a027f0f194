"""The provider table: rows, routes, adapters, and rows of an operator's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lava_adapters import Ask, Registry, RegistryError, load_family
from lava_adapters.families import BUILTIN
from lava_adapters.registry import read_rows

REGISTRY = Registry.builtin()
FORWARD_NAMES = [
    "alibaba",
    "anthropic",
    "baseten",
    "cerebras",
    "chutes",
    "cohere",
    "crusoe",
    "deepgram",
    "deepinfra",
    "deepseek",
    "elevenlabs",
    "embercloud",
    "fireworks",
    "gmicloud",
    "google",
    "groq",
    "huggingface",
    "hyperbolic",
    "inference",
    "kluster",
    "minimax",
    "mistral",
    "moonshot",
    "nebius",
    "novita",
    "openai",
    "openrouter",
    "parasail",
    "perplexity",
    "sambanova",
    "targon",
    "together",
    "vercel",
    "voyage",
    "writer",
    "xai",
    "zai",
]


def family(host: str, method: str, path: str) -> tuple[str, str, bool] | None:
    provider = REGISTRY.by_host(host)
    assert provider is not None
    found = provider.route(method, path)
    return None if found is None else (found[0].family, found[0].kind, found[0].managed)


def test_every_advertised_provider_has_a_row() -> None:
    assert all(REGISTRY.by_id(name) is not None for name in FORWARD_NAMES)
    assert REGISTRY.by_host("API.OPENAI.COM") is None
    assert REGISTRY.by_id("nobody") is None


def test_every_row_is_usable() -> None:
    for provider in REGISTRY.providers:
        assert provider.base.removeprefix("https://") in provider.hosts
        assert provider.checked
        assert provider.docs
        for route in provider.routes:
            assert REGISTRY.adapter(provider, route).family == route.family
            assert route.path.startswith("/")
            assert route.object_param is None or f"{{{route.object_param}}}" in route.path


@pytest.mark.parametrize(
    ("host", "method", "path", "wanted"),
    [
        ("api.openai.com", "POST", "/v1/chat/completions", ("openai_chat", "chat", True)),
        ("api.openai.com", "GET", "/v1/chat/completions", None),
        ("api.openai.com", "POST", "/v1/chat/completions/", None),
        ("api.openai.com", "POST", "/v1/files", ("opaque", "opaque", False)),
        ("api.openai.com", "GET", "/v1/organization/usage", None),
        ("api.openai.com", "GET", "/v1/responses/r", ("openai_responses", "retrieve", True)),
        ("api.openai.com", "GET", "/v1/responses/r/x", None),
        (
            "api.anthropic.com",
            "POST",
            "/v1/messages/batches",
            ("anthropic_messages", "free", False),
        ),
        ("api.groq.com", "POST", "/openai/v1/chat/completions", ("openai_chat", "chat", True)),
        ("api.groq.com", "POST", "/v1/chat/completions", None),
        (
            "generativelanguage.googleapis.com",
            "POST",
            "/v1beta/models/gemini-3-pro:streamGenerateContent",
            ("gemini", "gemini", True),
        ),
        (
            "generativelanguage.googleapis.com",
            "POST",
            "/v1beta/openai/chat/completions",
            ("openai_chat", "chat", True),
        ),
    ],
)
def test_routes(host: str, method: str, path: str, wanted: tuple[str, str, bool] | None) -> None:
    assert family(host, method, path) == wanted


def test_path_parameters() -> None:
    openai = REGISTRY.by_id("openai")
    assert openai is not None
    found = openai.route("POST", "/v1/responses/resp_1/cancel")
    assert found is not None
    assert found[1] == {"response_id": "resp_1"}
    assert found[0].object_param == "response_id"


def test_the_path_says_who_serves_the_model_behind_a_router() -> None:
    router = REGISTRY.by_id("huggingface")
    assert router is not None
    ask = Ask(model="Qwen/Qwen3-32B")
    for path, model in (
        ("/together/v1/chat/completions", "Qwen/Qwen3-32B:together"),
        ("/fireworks-ai/inference/v1/chat/completions", "Qwen/Qwen3-32B:fireworks-ai"),
        ("/v1/chat/completions", "Qwen/Qwen3-32B"),
        ("/hf-inference/models/google/gemma-2b/v1/chat/completions", "Qwen/Qwen3-32B"),
    ):
        found = router.route("POST", path)
        assert found is not None
        assert router.named(ask, *found).model == model


OWN: dict[str, Any] = {
    "id": "mine",
    "hosts": ["LLM.example.org"],
    "base": "https://llm.example.org",
}


def test_operators_add_compatible_hosts() -> None:
    row = OWN | {"serves": ["chat"], "prefix": "/api", "usage_opt_in": True}
    mine = REGISTRY.with_providers([row]).by_host("llm.example.org")
    assert mine is not None
    assert mine.usage_opt_in
    assert mine.route("POST", "/api/chat/completions") is not None
    more = REGISTRY.with_providers([{"id": "openai", "hosts": ["eu.api.openai.com"]}])
    assert (
        more.by_host("eu.api.openai.com") is more.by_id("openai") is more.by_host("api.openai.com")
    )
    assert REGISTRY.by_host("eu.api.openai.com") is None


@pytest.mark.parametrize(
    "row",
    [
        OWN | {"hosts": ["api.openai.com"]},
        OWN | {"id": "openai"},
        OWN | {"id": "Not An Id"},
        OWN | {"hosts": []},
        OWN | {"hosts": ["a/b"]},
        OWN | {"base": "https://llm.example.org/v1"},
        OWN | {"credential": "cookie"},
        OWN | {"serves": ["everything"]},
        OWN | {"surprise": 1},
        OWN | {"usage_opt_in": "yes"},
        OWN | {"hidden_tokens_per_s": True},
        OWN | {"routes": [{"methods": ["POST"], "path": "/x", "family": "none", "kind": "x"}]},
        OWN | {"routes": [{"path": "/x"}]},
        OWN | {"serves": ["chat", "chat"]},
        {"id": "mine"},
    ],
)
def test_bad_rows_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(RegistryError):
        REGISTRY.with_providers([row])


def test_families_of_others() -> None:
    with pytest.raises(RegistryError):
        load_family("nobody-has-this")
    with pytest.raises(RegistryError):
        REGISTRY.with_families({"gemini": BUILTIN["opaque"]})
    route = {"methods": ["POST"], "path": "/x", "family": "theirs", "kind": "x"}
    wider = REGISTRY.with_families({"theirs": BUILTIN["opaque"]})
    mine = wider.with_providers([OWN | {"routes": [route]}]).by_id("mine")
    assert mine is not None
    assert wider.adapter(mine, mine.routes[0]).family == "opaque"


def test_a_provider_file_gives_azure_its_hosts() -> None:
    text = (
        '[[provider]]\nid = "azure"\nhosts = ["us.openai.azure.com"]\n'
        'base = "https://us.openai.azure.com"\n'
        '[[provider]]\nid = "local"\nhosts = ["vllm:8000"]\nbase = "http://vllm:8000"\n'
        'serves = ["chat"]\nusage_opt_in = true\n'
    )
    wider = REGISTRY.with_providers(read_rows(text))
    azure, local = wider.by_host("us.openai.azure.com"), wider.by_host("vllm:8000")
    assert azure is not None
    assert azure.base == "https://us.openai.azure.com"
    assert azure.credential_for(azure.routes[0]) == "api-key"
    assert local is not None
    assert local.usage_opt_in


AZURE: dict[str, Any] = {
    "hosts": ["us.openai.azure.com"],
    "base": "https://us.openai.azure.com",
    "models": {"ours": "gpt-4o"},
}


def test_a_deployment_is_the_model_whatever_the_body_says() -> None:
    azure = REGISTRY.with_providers([AZURE | {"id": "azure"}]).by_id("azure")
    assert azure is not None
    chat = "chat/completions"
    for path, body, model in (
        (f"/openai/deployments/ours/{chat}", {}, "gpt-4o"),
        (f"/openai/deployments/theirs/{chat}", {"model": "gpt-4o-mini"}, "theirs"),
        (f"/openai/deployments/a%20b/{chat}", {}, "a b"),
        ("/openai/v1/chat/completions", {"model": "ours"}, "gpt-4o"),
        ("/openai/v1/chat/completions", {"model": "gpt-5"}, "gpt-5"),
    ):
        found = azure.route("POST", path)
        assert found is not None
        sent = json.dumps(body | {"messages": []}).encode()
        ask = REGISTRY.adapter(azure, found[0]).ask("POST", path, "", "application/json", sent)
        assert azure.named(ask, *found).model == model


@pytest.mark.parametrize(
    ("version", "asked"),
    [("2023-05-15", False), ("2024-06-01", False), ("2024-09-01-preview", True),
     ("2024-10-21", True), ("2025-04-01-preview", True), ("preview", True)],
)  # fmt: skip
def test_older_versions_of_azure_are_not_asked_for_usage(version: str, asked: bool) -> None:
    azure = REGISTRY.by_id("azure")
    assert azure is not None
    path = "/openai/deployments/d/chat/completions"
    found = azure.route("POST", path)
    assert found is not None
    adapter = REGISTRY.adapter(azure, found[0])
    body = b'{"messages": [], "stream": true}'
    ask = adapter.ask("POST", path, f"a=b&api-version={version}", "application/json", body)
    assert ask.capable_of_usage == asked


def test_another_resource_is_like_one_that_is_known() -> None:
    rows = [AZURE | {"id": "azure-us", "like": "azure"}, {"id": "azure-us", "models": {"a": "b"}}]
    wider = REGISTRY.with_providers(rows)
    other, azure = wider.by_host("us.openai.azure.com"), wider.by_id("azure")
    assert other is not None
    assert azure is not None
    assert (other.id, other.label, other.routes) == ("azure-us", "azure-us", azure.routes)
    assert other.models == {"ours": "gpt-4o", "a": "b"}
    assert (other.usage_opt_in, wider.price_names["azure-us"]) == (True, "azure")
    assert azure.models == {}
    for wrong in (
        AZURE | {"id": "azure-us", "like": "nobody"},
        AZURE | {"id": "azure", "like": "openai"},
        AZURE | {"id": "azure-us", "like": "azure", "serves": ["chat"]},
        {"id": "azure-us", "like": "azure"},
        AZURE | {"id": "azure-us", "like": "azure", "models": {"a": 1}},
    ):
        with pytest.raises(RegistryError):
            REGISTRY.with_providers([wrong])


def test_an_operator_sets_the_quirks_of_a_known_provider() -> None:
    """Their server may be older, or newer, than the one that the row describes."""
    rows = [
        {"id": "vllm", "hosts": ["old.example"], "base": "https://old.example",
         "usage_opt_in": False, "cap_member": "max_completion_tokens", "disconnect": "drain"},
        {"id": "alibaba", "usage_opt_in": False},
        {"id": "vllm-new", "like": "vllm", "hosts": ["new.example"], "usage_opt_in": True,
         "base": "https://new.example"},
    ]  # fmt: skip
    wider = REGISTRY.with_providers(rows)
    vllm, alibaba, new = (wider.by_id(name) for name in ("vllm", "alibaba", "vllm-new"))
    before = REGISTRY.by_id("alibaba")
    assert vllm is not None
    assert alibaba is not None
    assert new is not None
    assert before is not None
    assert (vllm.usage_opt_in, vllm.cap_member) == (False, "max_completion_tokens")
    assert (vllm.disconnect, vllm.one_token_events) == ("drain", True)
    assert (alibaba.usage_opt_in, before.usage_opt_in) == (False, True)
    assert (alibaba.hosts, alibaba.routes, alibaba.base) == (
        before.hosts, before.routes, before.base)  # fmt: skip
    assert (new.usage_opt_in, new.cap_member) == (True, "max_completion_tokens")
    for wrong in (
        {"id": "openai", "usage_opt_in": "no"},
        {"id": "openai", "usage_opt_in": False, "base": "https://evil.example"},
        {"id": "openai", "credential": "api-key"},
        {"id": "openai", "prices": "groq"},
        {"id": "openai", "disconnect": "wait"},
    ):
        with pytest.raises(RegistryError):
            REGISTRY.with_providers([wrong])


@pytest.mark.parametrize("text", ["[provider]\nid=1", "x = 1", "provider = [1]", "[["])
def test_a_provider_file_holds_rows_only(text: str) -> None:
    with pytest.raises(RegistryError):
        read_rows(text)


def test_bedrock_and_vertex_paths() -> None:
    host = "bedrock-runtime.eu-west-1.amazonaws.com"
    path = "/model/us.amazon.nova-lite-v1%3A0/converse-stream"
    assert family(host, "POST", path) == ("bedrock", "converse", True)
    vertex = "/v1/projects/p/locations/global/publishers/google/models/g-3:streamGenerateContent"
    assert family("aiplatform.googleapis.com", "POST", vertex) == ("gemini", "gemini", True)
    assert family("api.cohere.com", "POST", "/v2/chat") == ("cohere", "chat", True)


def test_express_mode_of_vertex_takes_a_key() -> None:
    vertex = REGISTRY.by_id("vertex")
    assert vertex is not None
    for version in ("v1", "v1beta1"):
        for verb, kind in (("generateContent", "gemini"), ("streamGenerateContent", "gemini"),
                           ("countTokens", "free")):  # fmt: skip
            path = f"/{version}/publishers/google/models/gemini-3-pro:{verb}"
            found = vertex.route("POST", path)
            assert found is not None
            assert (found[0].kind, vertex.credential_for(found[0])) == (kind, "x-goog-api-key")
            ask = REGISTRY.adapter(vertex, found[0]).ask("POST", path, "", "", b"{}")
            assert (ask.model, ask.stream) == ("gemini-3-pro", verb.startswith("stream"))
    route = {"methods": ["GET"], "path": "/x", "family": "opaque", "kind": "free"}
    with pytest.raises(RegistryError, match="credential"):
        REGISTRY.with_providers([OWN | {"routes": [route | {"credential": "cookie"}]}])
