"""Odd input: callers are refused by the member's name, and providers' nonsense never raises."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lava_adapters.awsframe import encode
from lava_proxy.core.errors import LavaError
from lava_proxy.wire.translate import neutral as n
from lava_proxy.wire.translate.dialects import DIALECTS, Facts, Name, Named
from lava_proxy.wire.translate.members import Unreadable
from lava_proxy.wire.translate.translation import AWS_STREAM, Translation

TURN = [{"role": "user", "content": "x"}]
PARTS = [{"role": "user", "parts": [{"text": "x"}]}]
BLOCKS = [{"role": "user", "content": [{"text": "x"}]}]
BASES: dict[Name, dict[str, Any]] = {
    "openai": {"model": "m", "messages": TURN},
    "anthropic": {"model": "m", "messages": TURN, "max_tokens": 9},
    "google": {"contents": PARTS},
    "bedrock": {"messages": BLOCKS},
}
NAMES = list(BASES)
NAMED = Named("m")


def _read(name: Name, more: dict[str, Any]) -> n.Request:
    return DIALECTS[name].read_request(json.dumps(BASES[name] | more).encode(), NAMED)


def _turn(*content: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [*TURN, {"role": role, "content": list(content)}]}


def _said(*parts: Any) -> dict[str, Any]:
    return {"contents": [*PARTS, {"role": "model", "parts": list(parts)}]}


WRONG: list[tuple[Name, dict[str, Any], str]] = [
    ("openai", {"model": 1}, "model"),
    ("openai", {"messages": [1]}, "messages.0"),
    ("openai", {"messages": [{"role": "alien", "content": "x"}]}, "messages.0.role"),
    ("openai", {"messages": [{"role": "user", "content": 1}]}, "messages.0.content"),
    ("openai", {"messages": [{"role": "user"}]}, "messages"),
    ("openai", _turn({"type": "image_url", "image_url": {"url": "ftp://x"}}),
     "messages.1.content.0.image_url.url"),
    ("openai", {"messages": [{"role": "system", "content": [
        {"type": "image_url", "image_url": {"url": "https://x"}}]}]}, "messages.0.content"),
    ("openai", {"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]},
     "messages.0.tool_calls.0.type"),
    ("openai", {"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]},
     "messages.0.audio"),
    ("openai", {"tool_choice": "sometimes"}, "tool_choice"),
    ("openai", {"stop": 1}, "stop"),
    ("openai", {"stop": [1]}, "stop"),
    ("openai", {"response_format": {"type": "json_schema"}},
     "response_format.json_schema.schema"),
    ("openai", {"reasoning_effort": "huge"}, "reasoning_effort"),
    ("openai", {"max_tokens": 1.5}, "max_tokens"),
    ("openai", {"max_tokens": True}, "max_tokens"),
    ("openai", {"stream": "yes"}, "stream"),
    ("openai", {"tools": {}}, "tools"),
    ("anthropic", {"service_tier": "priority"}, "service_tier"),
    ("anthropic", {"messages": []}, "messages"),
    ("anthropic", {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ("anthropic", _turn({"type": "document", "source": {"type": "url", "url": "u"}}),
     "messages.1.content.0.source.type"),
    ("anthropic", _turn({"type": "search_result"}), "messages.1.content.0.type"),
    ("openai", _turn({"type": "file", "file": {"file_id": "f"}}),
     "messages.1.content.0.file.file_data"),
    ("openai", _turn({"type": "file", "file": {"file_data": "data:text/csv;base64,aGk="}}),
     "messages.1.content.0.file.file_data"),
    ("anthropic", _turn({"type": "image", "source": {"type": "file"}}),
     "messages.1.content.0.source.type"),
    ("anthropic", _turn({"type": "tool_result", "tool_use_id": "t", "content": [
        {"type": "tool_use", "id": "a", "name": "b"}]}), "messages.1.content.0.content"),
    ("anthropic", {"system": [{"type": "image", "source": {"type": "url", "url": "u"}}]}, "system"),
    ("anthropic", {"stop_sequences": [1]}, "stop_sequences.0"),
    ("anthropic", {"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.0.type"),
    ("anthropic", {"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
    ("anthropic", {"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ("anthropic", {"thinking": {"type": "often"}}, "thinking.type"),
    ("anthropic", {"container": "c"}, "container"),
    ("google", {"contents": []}, "contents"),
    ("google", {"contents": [{"role": "alien", "parts": [{"text": "x"}]}]}, "contents.0.role"),
    ("google", _said({"inlineData": {"mimeType": "audio/wav", "data": "aGk="}}),
     "contents.1.parts.0.inlineData.mimeType"),
    ("google", _said({"fileData": {"fileUri":
        "https://generativelanguage.googleapis.com/v1beta/files/f"}}),
     "contents.1.parts.0.fileData.fileUri"),
    ("google", _said({"executableCode": {"code": "1"}}), "contents.1.parts.0.executableCode"),
    ("google", {"tools": [{"google_search": {}}]}, "tools.0.googleSearch"),
    ("google", {"cachedContent": "c"}, "cachedContent"),
    ("google", {"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
    ("google", {"generation_config": {"presence_penalty": 1}}, "generationConfig.presencePenalty"),
    ("google", {"generationConfig": {"stopSequences": [1]}}, "generationConfig.stopSequences.0"),
    ("google", {"generationConfig": {"responseMimeType": "application/json"}},
     "generationConfig.responseMimeType"),
    ("google", {"generationConfig": {"thinkingConfig": {"thinkingLevel": "huge"}}},
     "generationConfig.thinkingConfig.thinkingLevel"),
    ("google", {"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}},
     "toolConfig.functionCallingConfig.mode"),
    ("google", {"toolConfig": {"functionCallingConfig": {
        "mode": "ANY", "allowedFunctionNames": ["a", "b"]}}},
     "toolConfig.functionCallingConfig.allowedFunctionNames"),
    ("bedrock", {"messages": []}, "messages"),
    ("bedrock", {"messages": [{"role": "system", "content": [{"text": "x"}]}]}, "messages.0.role"),
    ("bedrock", {"messages": [{"role": "user", "content": [
        {"document": {"format": "csv", "name": "d"}}]}]},
     "messages.0.content.0.document.format"),
    ("bedrock", {"guardrailConfig": {"guardrailIdentifier": "g"}}, "guardrailConfig"),
    ("bedrock", {"additionalModelRequestFields": {"top_k": 1}}, "additionalModelRequestFields"),
    ("bedrock", {"inferenceConfig": {"topK": 1}}, "inferenceConfig.topK"),
    ("bedrock", {"inferenceConfig": {"stopSequences": [1]}}, "inferenceConfig.stopSequences.0"),
    ("bedrock", {"messages": [{"role": "user", "content": [{"toolResult": {
        "toolUseId": "t", "content": [{"toolUse": {"toolUseId": "a", "name": "b"}}]}}]}]},
     "messages.0.content.0.toolResult.content.0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more", "path"), WRONG)
def test_a_caller_is_refused_by_the_members_name(
    name: Name, more: dict[str, Any], path: str
) -> None:
    with pytest.raises(LavaError) as caught:
        _read(name, more)
    assert caught.value.status == 422
    details: Any = caught.value.details
    assert details[0]["path"].startswith(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff"])
def test_what_is_no_json_object_is_refused(name: Name, body: bytes) -> None:
    with pytest.raises(LavaError) as caught:
        DIALECTS[name].read_request(body, NAMED)
    assert caught.value.status in (400, 422)


@pytest.mark.parametrize("name", ["google", "bedrock"])
def test_a_model_must_be_named_somewhere(name: Name) -> None:
    with pytest.raises(LavaError, match="neither the URL nor the body"):
        DIALECTS[name].read_request(json.dumps(BASES[name]).encode(), Named())


FINE: list[tuple[Name, dict[str, Any]]] = [
    ("openai", {"n": 1, "presence_penalty": 0, "logit_bias": {}, "seed": 1, "store": True}),
    ("openai", {"stop": None, "reasoning_effort": "none", "response_format": {"type": "text"}}),
    ("openai", {"metadata": {"a": "b"}, "modalities": ["text"], "service_tier": "auto"}),
    ("anthropic", {"service_tier": "auto", "thinking": {"type": "disabled"}}),
    ("anthropic", {"thinking": {"type": "adaptive"}, "cache_control": {"type": "ephemeral"}}),
    ("anthropic", _turn({"type": "redacted_thinking", "data": "x"}, role="assistant")),
    ("google", {"safety_settings": [{"category": "c"}], "labels": {"a": "b"}}),
    ("google", {"generationConfig": {"seed": 1, "responseMimeType": "text/plain"}}),
    ("google", {"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}}),
    ("google", _said({"text": "hm", "thought": True}, {"text": "", "thoughtSignature": "s"})),
    ("bedrock", {"performanceConfig": {"latency": "optimized"}, "requestMetadata": {"a": "b"}}),
    ("bedrock", {"additionalModelRequestFields": {}, "serviceTier": {"type": "default"}}),
    ("bedrock", {"messages": [*BLOCKS, {"role": "assistant", "content": [
        {"cachePoint": {"type": "default"}}, {"reasoningContent": {"redactedContent": "x"}}]}]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more"), FINE)
def test_what_changes_nothing_passes(name: Name, more: dict[str, Any]) -> None:
    assert _read(name, more).messages == (n.Message("user", (n.Text("x"),)),)


def test_efforts_and_choices_of_all() -> None:
    budget = {"thinking": {"type": "enabled", "budget_tokens": 5000}}
    assert _read("anthropic", budget).effort == "high"
    assert _read("anthropic", {"output_config": {"effort": "max"}}).effort == "high"
    assert _read("openai", {"reasoning_effort": "xhigh"}).effort == "high"
    level = {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}}
    assert _read("google", level).effort == "low"
    small = {"generationConfig": {"thinkingConfig": {"thinkingBudget": 2000}}}
    assert _read("google", small).effort == "medium"
    for name, more, mode in (
        ("openai", {"tool_choice": "none"}, "none"),
        ("anthropic", {"tool_choice": {"type": "none"}}, "none"),
        ("anthropic", {"tool_choice": {"type": "any"}}, "required"),
        ("google", {"toolConfig": {"functionCallingConfig": {"mode": "NONE"}}}, "none"),
        ("google", {"toolConfig": {"functionCallingConfig": {}}}, "auto"),
        ("bedrock", {"toolConfig": {"tools": [], "toolChoice": {"auto": {}}}}, "auto"),
        ("bedrock", {"toolConfig": {"tools": [], "toolChoice": {"tool": {"name": "f"}}}}, "tool"),
    ):
        choice = _read(name, more).choice  # type: ignore[arg-type]
        assert choice is not None, more
        assert choice.mode == mode


WORDS = [
    "model", "messages", "role", "content", "type", "text", "tools", "function", "name", "id",
    "parameters", "tool_calls", "tool_choice", "stop", "usage", "choices", "delta", "message",
    "finish_reason", "index", "arguments", "error", "code", "contents", "parts", "functionCall",
    "args", "candidates", "usageMetadata", "finishReason", "promptFeedback", "responseId",
    "input", "content_block", "partial_json", "stop_reason", "thinking", "output", "toolUse",
    "toolUseId", "contentBlockIndex", "start", "stopReason", "reasoningContent", "inferenceConfig",
    "generationConfig", "system", "systemInstruction", "prompt_tokens", "input_tokens", "user",
]  # fmt: skip
KINDS = [
    "text", "tool_use", "tool_result", "message_start", "content_block_start",
    "content_block_delta", "message_delta", "message_stop", "error", "function", "user",
    "assistant", "text_delta", "input_json_delta",
]  # fmt: skip
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(KINDS) | st.just(0.5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=120)
@given(more=st.dictionaries(st.sampled_from(WORDS), junk, max_size=5), bare=st.booleans())
def test_any_request_is_read_or_refused(name: Name, more: dict[str, Any], bare: bool) -> None:
    body = json.dumps(more if bare else more | BASES[name]).encode()
    with suppress(LavaError):  # and nothing else
        request = DIALECTS[name].read_request(body, NAMED)
        for other in DIALECTS.values():
            with suppress(LavaError):
                json.loads(other.write_request(request, Facts(100)))


def _answered(client: Name, provider: Name, *, stream: bool) -> Translation:
    asked = n.Request("m", (n.Message("user", (n.Text("x"),)),), stream=stream)
    return Translation(DIALECTS[client], DIALECTS[provider], asked, answer_id="r", created=1)


@pytest.mark.parametrize("provider", NAMES)
@settings(max_examples=80)
@given(
    body=junk.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40),
    status=st.sampled_from([200, 400, 503]),
    client=st.sampled_from(NAMES),
    stream=st.booleans(),
)
def test_any_body_is_an_answer_or_an_error(
    provider: Name, body: bytes, status: int, client: Name, stream: bool
) -> None:
    made = _answered(client, provider, stream=stream)
    made.head(status, "application/json")
    out = made.feed(body) + made.finish()
    assert out
    if status >= 400 or not stream:
        assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize("provider", NAMES)
@settings(max_examples=80)
@given(
    events=st.lists(st.tuples(st.sampled_from(["", "error", *WORDS]), junk), max_size=5),
    client=st.sampled_from(NAMES),
)
def test_any_stream_is_an_answer_or_an_error(
    provider: Name, events: list[tuple[str, Any]], client: Name
) -> None:
    made = _answered(client, provider, stream=True)
    made.head(200, AWS_STREAM if provider == "bedrock" else "text/event-stream")
    for name, value in events:
        data = json.dumps(value).encode()
        if provider == "bedrock":
            made.feed(encode({":event-type": name, ":message-type": "event"}, data))
        else:
            made.feed(b"event: %b\ndata: %b\n\n" % (name.encode(), data))
    made.finish()
    assert made.ended != made.broken


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_answer_is_unreadable(name: Name) -> None:
    for body in (b"", b"[]", b"{}", b"<html>"):
        with pytest.raises(Unreadable):
            DIALECTS[name].read_answer(body)
    assert DIALECTS[name].read_error(503, b"busy").message == "busy"
    assert DIALECTS[name].read_error(503, b"").message == "status 503"
    assert DIALECTS[name].read_error(503, b"x" * 5000).message == "status 503"


def test_google_says_no_in_several_ways() -> None:
    blocked = DIALECTS["google"].read_answer(b'{"promptFeedback": {"blockReason": "SAFETY"}}')
    assert (blocked.parts, blocked.stop) == ((), "filter")
    error = {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}
    for body in (error, [error]):
        failed = DIALECTS["google"].read_error(429, json.dumps(body).encode())
        assert (failed.message, failed.kind) == ("slow", "RESOURCE_EXHAUSTED")
