"""APIs that recorded clients call beside chat: Perplexity's agent, decisions, and Azure's speech to
text. The shapes are those of vercel/ai's fixtures, the figures ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lava_adapters import Ask, Reader, Registry
from lava_adapters.openai_tools import OWNED_MAX
from lava_adapters.provider import Route

REGISTRY = Registry.builtin()
AGENT = "api.perplexity.ai"


def _call(
    host: str, path: str, body: bytes, content_type: str = "application/json"
) -> tuple[Route, Ask, Reader]:
    provider = REGISTRY.by_host(host)
    assert provider is not None
    found = provider.route("POST", path)
    assert found is not None, path
    adapter = REGISTRY.adapter(provider, found[0])
    ask = provider.named(adapter.ask("POST", path, "", content_type, body), *found)
    return found[0], ask, adapter.reader(ask)


# packages/perplexity/src/__fixtures__/agent-web-search.json
USAGE: dict[str, Any] = {
    "cost": {"currency": "USD", "tool_calls_cost": 0.002, "total_cost": 0.00219},
    "input_tokens": 3007,
    "input_tokens_details": {"cache_creation_input_tokens": 1224, "cache_read_input_tokens": 1780,
                             "cached_tokens": 1780},
    "output_tokens": 36,
    "output_tokens_details": {"reasoning_tokens": 0},
    "tool_calls_details": {"search_web": {"cost_usd": 0.001, "invocation": 2},
                           "fetch_url": {"invocation": 1}},
    "total_tokens": 3043,
}  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/agent", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_perplexitys_agent(path: str, stream: bool) -> None:
    request = {"preset": "fast", "input": "Hi", "max_output_tokens": 1024, "stream": stream}
    route, ask, reader = _call(AGENT, path, json.dumps(request).encode())
    assert (route.kind, ask.stream, ask.output_cap) == ("responses", stream, 1024)
    assert (ask.model, ask.hidden_input) == ("fast", True)
    assert (ask.tool_fees, ask.rounds) == ((("web_search", None),), None)
    answer: dict[str, Any] = {"id": "resp_1", "object": "response", "model": "openai/gpt-6-luna"}
    answer |= {"status": "completed", "usage": USAGE, "output": [{"type": "search_results"}]}
    if stream:
        reader.event("", json.dumps({"type": "response.completed", "response": answer}).encode())
    else:
        reader.event("", json.dumps(answer).encode())
    usage = reader.usage()
    assert (usage.input_tokens, usage.output_tokens, usage.total_reported) == (3007, 36, 3043)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (1780, 1224)
    assert (usage.web_searches, usage.cost_e10) == (2, 21_900_000)
    assert (reader.final, reader.ended, reader.model) == (True, True, "openai/gpt-6-luna")


# packages/openai/src/openai-decision-model.ts, packages/perplexity/src/__fixtures__/decision-*.json
@pytest.mark.parametrize(
    ("host", "path", "request_"),
    [
        ("api.openai.com", "/v1/decisions",
         {"model": "gpt-6-luna", "input": [{"role": "user", "content": []}],
          "questions": [{"type": "predicate", "name": "a"}, {"type": "choice", "name": "b"}]}),
        (AGENT, "/v1/decisions",
         {"model": "gpt-6-luna", "state": {"message": "Hi"},
          "questions": {"a": {"type": "noul"}, "b": {"type": "score"}}}),
    ],
)  # fmt: skip
def test_decisions(host: str, path: str, request_: dict[str, Any]) -> None:
    _, ask, reader = _call(host, path, json.dumps(request_).encode())
    assert (ask.model, ask.output_cap, ask.capable_of_cap) == ("gpt-6-luna", 200, False)
    assert ask.makes_output
    usage = {"input_tokens": 387, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 7}}
    answer = {"model": "gpt-6-luna", "answers": [{"type": "predicate"}], "usage": usage}
    reader.event("", json.dumps(answer).encode())
    found = reader.usage()
    assert (found.input_tokens, found.output_tokens, found.cache_read_tokens) == (387, 3, 7)
    assert (reader.final, reader.ended) == (True, True)


# packages/azure/src/__fixtures__/azure-speech-mai-transcribe-2-no-timestamps.1.json
@pytest.mark.parametrize("host", ["azure-openai.invalid", "azure-foundry.invalid"])
def test_azures_speech_to_text(host: str) -> None:
    definition = {"enhancedMode": {"enabled": True, "model": "MAI-Transcribe-2"}}
    body = (
        b'--b\r\nContent-Disposition: form-data; name="definition"\r\n\r\n'
        + json.dumps(definition, indent=1).encode()
        + b'\r\n--b\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n'
        b"Content-Type: audio/wav\r\n\r\n" + bytes(64_000) + b"\r\n--b--\r\n"
    )
    _, ask, reader = _call(
        host,
        "/speechtotext/transcriptions:transcribe",
        body,
        "multipart/form-data; boundary=b",
    )
    assert ask.input_ms
    answer = {"durationMilliseconds": 17579, "combinedPhrases": [{"text": "Um"}], "phrases": []}
    reader.event("", json.dumps(answer).encode())
    assert (reader.usage().input_ms, reader.final) == (17579, True)


# vercel/ai sends what came before as references (packages/openai/src/responses): with a managed key
# each must be the customer's own, so whoever got an item owns it.
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("store", [True, False, None])
def test_the_items_of_a_stored_response_have_an_owner(stream: bool, store: bool | None) -> None:
    ask = Ask(model="m", stream=stream)
    reader = REGISTRY.adapter(*_responses()).reader(ask)
    items = [{"type": "reasoning", "id": "rs_1"}, {"type": "message", "id": "msg_1", "content": []},
             {"type": "function_call", "id": "fc_1", "name": "f", "arguments": "{}"},
             {"type": "message", "content": []}]  # fmt: skip
    answer: dict[str, Any] = {"id": "resp_1", "object": "response", "status": "completed"}
    answer |= {"output": items, "usage": {"input_tokens": 1, "output_tokens": 2}}
    answer |= {} if store is None else {"store": store}
    if stream:
        for item in items:
            event = {"type": "response.output_item.done", "item": item}
            reader.event("", json.dumps(event).encode())
        answer = {"type": "response.completed", "response": answer}
    reader.event("", json.dumps(answer).encode())
    assert reader.made == (() if store is False else ("rs_1", "msg_1", "fc_1"))
    assert reader.response_id == "resp_1"


def test_an_answer_has_no_more_owned_items_than_are_kept() -> None:
    reader = REGISTRY.adapter(*_responses()).reader(Ask(model="m"))
    items = [{"type": "message", "id": f"msg_{i}", "content": []} for i in range(1_000)]
    reader.event("", json.dumps({"object": "response", "output": items}).encode())
    assert len(reader.made) == OWNED_MAX


def _responses() -> tuple[Any, Route]:
    provider = REGISTRY.by_host("api.openai.com")
    assert provider is not None
    found = provider.route("POST", "/v1/responses")
    assert found is not None
    return provider, found[0]
