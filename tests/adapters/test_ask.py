"""What requests ask for, what is refused, and the smallest edits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lava_adapters import Adapter, Ask, AskError, Registry
from lava_adapters.weigh import IMAGE_TOKENS

REGISTRY = Registry.builtin()
PNG = "data:image/png;base64," + "iVBORw0KGgo" * 500


def adapter(provider_id: str, path: str, method: str = "POST") -> Adapter:
    provider = REGISTRY.by_id(provider_id)
    assert provider is not None
    found = provider.route(method, path)
    assert found is not None
    return REGISTRY.adapter(provider, found[0])


def ask(provider_id: str, path: str, body: bytes | dict[str, Any], query: str = "") -> Ask:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return adapter(provider_id, path).ask("POST", path, query, "application/json", raw)


CHAT = ("openai", "/v1/chat/completions")
RESPONSES = ("openai", "/v1/responses")
MESSAGES = ("anthropic", "/v1/messages")
GENERATE = ("google", "/v1beta/models/gemini-3-pro:generateContent")
STREAM = ("google", "/v1beta/models/gemini-3-pro:streamGenerateContent")
EMBED = ("openai", "/v1/embeddings")


def test_chat() -> None:
    got = ask(*CHAT, {"model": "gpt-5", "stream": True, "n": 2, "max_tokens": 5, "messages": []})
    assert (got.model, got.stream, got.choices, got.output_cap) == ("gpt-5", True, 2, 5)
    assert got.capable_of_usage
    assert got.capable_of_cap
    assert not got.wants_usage
    assert not got.hidden_input
    got = ask(*CHAT, {"stream": True, "stream_options": {"include_usage": True}, "n": None})
    assert got.wants_usage
    assert not got.capable_of_usage
    assert not ask("mistral", CHAT[1], {"stream": True}).capable_of_usage
    assert ask(*CHAT, {"max_tokens": 5, "max_completion_tokens": 9}).output_cap == 9


def test_completions_of_a_batch() -> None:
    path = "/v1/completions"
    assert ask("openai", path, {"prompt": ["a", "b"], "n": 2, "best_of": 3}).choices == 6
    assert ask("openai", path, {"prompt": [1, 2, 3]}).choices == 1
    assert ask("openai", path, {"prompt": "x"}).choices == 1


def test_responses() -> None:
    body = {"model": "o4", "background": True, "max_output_tokens": 7, "input": "x"}
    got = ask(*RESPONSES, body)
    assert (got.output_cap, got.background, got.hidden_input) == (7, True, False)
    stored = {
        "previous_response_id": "resp_1",
        "conversation": {"id": "conv_1"},
        "input": [{"type": "item_reference", "id": "msg_1"}],
        "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}],
    }
    got = ask(*RESPONSES, stored)
    assert set(got.object_ids) == {"resp_1", "conv_1", "msg_1", "vs_1"}
    assert got.hidden_input


@pytest.mark.parametrize(
    ("target", "body", "tier"),
    [
        (CHAT, {"service_tier": "priority"}, "priority"),
        (CHAT, {"service_tier": "auto"}, "auto"),
        (CHAT, {}, None),
        (CHAT, {"service_tier": 7}, None),
        (CHAT, {"service_tier": "x" * 65}, None),
        (RESPONSES, {"service_tier": "Flex"}, "flex"),
        (EMBED, {"service_tier": "priority"}, "priority"),
        (MESSAGES, {"speed": "fast"}, "fast"),
        (MESSAGES, {"service_tier": "auto"}, "standard"),
        (GENERATE, {"serviceTier": "SERVICE_TIER_PRIORITY"}, "priority"),
        (STREAM, {"service_tier": "flex"}, "flex"),
        (GENERATE, {}, None),
    ],
)
def test_service_tiers(target: tuple[str, str], body: dict[str, Any], tier: str | None) -> None:
    assert ask(*target, body).service_tier == tier


SHELL = {
    "type": "shell",
    "environment": {"type": "container_reference", "container_id": "cntr_1"},
}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
OLD_GEMINI = ("google", "/v1beta/models/gemini-2.5-pro:generateContent")
RERANK = ("cohere", "/v2/rerank")


@pytest.mark.parametrize(
    ("target", "body", "fees", "rounds"),
    [
        (RESPONSES, {}, (), 1),
        (RESPONSES, {"tools": [{"type": "function"}, {"type": "local_shell"}]}, (), 1),
        (RESPONSES, {"tools": [{"type": "web_search_preview"}]}, (("web_search", None),), None),
        (
            RESPONSES,
            {"max_tool_calls": 3, "tools": [{"type": "web_search"}, {"type": "file_search"}]},
            (("web_search", 3), ("file_search", 3)),
            4,
        ),
        (
            RESPONSES,
            {"max_tool_calls": 0, "tools": [{"type": "image_generation"}, {"type": "mcp"}]},
            (("picture", 0),),
            1,
        ),
        (
            RESPONSES,
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
            (("container", 1),),
            None,
        ),
        (RESPONSES, {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, (), None),
        (
            RESPONSES,
            {
                "tools": [
                    {"type": "shell", "environment": {"type": "container_auto"}},
                    {"type": "code_interpreter", "container": {"memory_limit": "4g"}},
                ]
            },
            (("container", 5),),
            None,
        ),
        (RESPONSES, {"tools": [SHELL | {"environment": {"type": "local"}}]}, (), 1),
        (RESPONSES, {"tools": [SHELL]}, (), None),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "web_search"}}]}, (), 1),
        (CHAT, {"web_search_options": {}}, (("web_search", 1),), 1),
        (CHAT, {"model": "gpt-4o-search-preview"}, (("web_search", 1),), 1),
        (CHAT, {"model": "sonar-deep-research"}, (("web_search", None),), 1),
        (CHAT, {"plugins": [{"id": "web"}]}, (("web_search", None),), 1),
        (CHAT, {"tools": [{"type": "browser_search"}]}, (("web_search", None),), None),
        (MESSAGES, {"tools": [{"name": "mine"}, {"type": "bash_20250124"}]}, (), 1),
        (MESSAGES, {"tools": [SEARCH]}, (("web_search", None),), None),
        (MESSAGES, {"tools": [SEARCH | {"max_uses": 5}]}, (("web_search", 5),), 6),
        (
            MESSAGES,
            {"tools": [SEARCH | {"max_uses": 5}, {"type": "web_fetch_20250910", "max_uses": 2}]},
            (("web_search", 5),),
            8,
        ),
        (MESSAGES, {"mcp_servers": [{"url": "https://x.example"}]}, (), None),
        (MESSAGES, {"tools": [{"type": "code_execution_20250825"}]}, (), None),
        (GENERATE, {"tools": [{"google_search": {}}]}, (("web_search", None),), 1),
        (OLD_GEMINI, {"tools": {"googleSearch": {}}}, (("web_search", 1),), 1),
        (GENERATE, {"tools": [{"functionDeclarations": []}]}, (), 1),
        (RERANK, {"documents": ["x"] * 99}, (("search_unit", 1),), 1),
        (RERANK, {"documents": ["x" * 500] * 150}, (("search_unit", 5),), 1),
    ],
)
def test_what_tools_may_cost(
    target: tuple[str, str], body: dict[str, Any], fees: tuple[Any, ...], rounds: int | None
) -> None:
    got = ask(*target, body)
    assert (got.tool_fees, got.rounds) == (fees, rounds)


def test_responses_by_id() -> None:
    path = "/v1/responses/resp_9"
    got = adapter("openai", path, "GET").ask("GET", path, "stream=true", "", b"")
    assert (got.object_ids, got.stream, got.free, got.makes_output) == (
        ("resp_9",),
        True,
        False,
        False,
    )
    path += "/cancel"
    got = adapter("openai", path).ask("POST", path, "", "", b"")
    assert got.object_ids == ("resp_9",)
    path = "/v1/responses/input_tokens"
    assert ask("openai", path, {"model": "m", "input": "x"}).free
    assert ask("openai", path, {"model": "m"}).object_ids == ()


def test_messages_and_gemini() -> None:
    got = ask(*MESSAGES, {"model": "claude", "max_tokens": 9, "stream": True})
    assert (got.model, got.output_cap, got.stream, got.hidden_input) == ("claude", 9, True, False)
    assert ask("anthropic", "/v1/messages/count_tokens", {"model": "claude"}).free
    body = {"generationConfig": {"maxOutputTokens": 4, "candidateCount": 2}}
    got = ask(*GENERATE, body)
    assert (got.model, got.output_cap, got.choices, got.as_array) == ("gemini-3-pro", 4, 2, False)
    assert ask(*STREAM, {}).as_array
    assert not ask(*STREAM, {}, "alt=sse").as_array
    assert ask(*GENERATE, {"generation_config": {"max_output_tokens": 3}}).output_cap == 3
    assert ask(*GENERATE, {"tools": [{"googleSearch": {}}]}).hidden_input
    assert not ask(*GENERATE, {"tools": [{"functionDeclarations": []}]}).hidden_input
    assert not ask("google", "/v1/models/e:embedContent", {}).makes_output


@pytest.mark.parametrize("target", [CHAT, RESPONSES, MESSAGES, EMBED])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b"{",
        b'{"model":"a","model":"b"}',
        b'{"model":"a","\\u006dodel":"b"}',
        b'{"model":1}',
        b'{"temperature":NaN}',
        b'{"temperature":Infinity}',
        b'{"model":"\xff"}',
        b"\xef\xbb\xbf{}",
        '{"model":"a"}'.encode("utf-16"),
        b'{"x":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    ],
)
def test_bodies_that_matter_to_the_bill_are_refused(target: tuple[str, str], body: bytes) -> None:
    with pytest.raises(AskError):
        ask(*target, body)


CAPS = [(*CHAT, "max_tokens"), (*CHAT, "max_completion_tokens"), (*MESSAGES, "max_tokens")]


@pytest.mark.parametrize(("provider", "path", "cap"), [*CAPS, (*RESPONSES, "max_output_tokens")])
@pytest.mark.parametrize(
    "value", [b"true", b"1.0", b"0", b"-1", b'"5"', b"9007199254740992", b"1" * 30, b"[]"]
)
def test_caps_must_be_counts(provider: str, path: str, cap: str, value: bytes) -> None:
    with pytest.raises(AskError) as caught:
        ask(provider, path, b'{"%b":%b}' % (cap.encode(), value))
    assert caught.value.path == cap


@pytest.mark.parametrize(
    ("target", "body"),
    [
        (CHAT, b'{"stream":1}'),
        (CHAT, b'{"stream":"true"}'),
        (CHAT, b'{"n":2.0}'),
        (CHAT, b'{"stream_options":[]}'),
        (CHAT, b'{"stream_options":{"include_usage":1}}'),
        (GENERATE, b'{"generationConfig":{"maxOutputTokens":"5"}}'),
        (GENERATE, b'{"generationConfig":{"maxOutputTokens":5,"maxOutputTokens":6}}'),
        (GENERATE, b'{"generationConfig":{},"generation_config":{}}'),
        (GENERATE, b'{"generationConfig":{"maxOutputTokens":5,"max_output_tokens":6}}'),
        (RESPONSES, b'{"background":"yes"}'),
    ],
)
def test_wrong_types_are_refused(target: tuple[str, str], body: bytes) -> None:
    with pytest.raises(AskError):
        ask(*target, body)


def test_an_unparsable_body_is_no_error_on_an_opaque_route() -> None:
    assert ask("openai", "/v1/files", b"--boundary").input_bytes == 10


def test_media_is_weighed_by_item() -> None:
    part = {"type": "image_url", "image_url": {"url": PNG}}
    got = ask(*CHAT, {"messages": [{"role": "user", "content": [part, {"text": "hello"}]}]})
    assert got.input_bytes < 300
    assert got.media_tokens == IMAGE_TOKENS
    assert not got.hidden_input
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    assert ask(*CHAT, {"messages": [{"content": [part]}]}).hidden_input
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 4_000}
    got = ask(*MESSAGES, {"messages": [{"content": [{"type": "image", "source": source}]}]})
    assert (got.media_tokens, got.input_bytes < 300) == (IMAGE_TOKENS, True)
    plain = {"type": "text", "media_type": "text/plain", "data": "word " * 800}
    got = ask(*MESSAGES, {"messages": [{"content": [{"type": "document", "source": plain}]}]})
    assert got.input_bytes > 4_000
    inline = {"inlineData": {"mimeType": "audio/mp3", "data": "A" * 8_000}}
    got = ask(*GENERATE, {"contents": [{"parts": [inline]}]})
    assert (got.media_tokens, got.input_bytes < 300) == (81, True)


def test_file_ids_are_owned_objects_but_tool_arguments_are_data() -> None:
    part = {"type": "input_file", "file_id": "file_1"}
    assert ask(*RESPONSES, {"input": [{"content": [part]}]}).object_ids == ("file_1",)
    call = {"type": "tool_use", "name": "open", "input": {"file_id": "mine"}}
    assert ask(*MESSAGES, {"messages": [{"content": [call]}]}).object_ids == ()
    hidden = b'{"input":[{"content":[{"type":"input_file","file\\u005fid":"file_2"}]}]}'
    assert ask(*RESPONSES, hidden).object_ids == ("file_2",)


EDITS = [
    (CHAT, b'{"model":"m"}', None, True, b'{"stream_options":{"include_usage":true},"model":"m"}'),
    (
        CHAT,
        b'{ "stream_options" : {"x":1}, "a":[1, 2 ] }',
        None,
        True,
        b'{ "stream_options" : {"include_usage":true,"x":1}, "a":[1, 2 ] }',
    ),
    (
        CHAT,
        b'{"stream_options":{"include_usage" : false }}',
        None,
        True,
        b'{"stream_options":{"include_usage" : true }}',
    ),
    (
        CHAT,
        b'{"stream_options":null}',
        None,
        True,
        b'{"stream_options":{"include_usage":true}}',
    ),
    (CHAT, b'{"max_tokens": 900 }', 100, False, b'{"max_tokens": 100 }'),
    (CHAT, b'{"max_tokens": 50 }', 100, False, b'{"max_tokens": 50 }'),
    (
        CHAT,
        b'{"max_tokens":900,"max_completion_tokens":800}',
        100,
        False,
        b'{"max_tokens":100,"max_completion_tokens":100}',
    ),
    (CHAT, b" {}", 100, False, b' {"max_completion_tokens":100}'),
    (CHAT, b'{"max_completion_tokens":null}', 9, False, b'{"max_completion_tokens":9}'),
    (("mistral", CHAT[1]), b'{"a":1}', 100, False, b'{"max_tokens":100,"a":1}'),
    (("openai", "/v1/completions"), b'{"a":1}', 100, False, b'{"max_tokens":100,"a":1}'),
    (RESPONSES, b'{"a":1}', 7, False, b'{"max_output_tokens":7,"a":1}'),
    (MESSAGES, b'{"max_tokens":1024}', 7, False, b'{"max_tokens":7}'),
    (
        GENERATE,
        b'{"contents":[]}',
        7,
        False,
        b'{"generationConfig":{"maxOutputTokens":7},"contents":[]}',
    ),
    (
        GENERATE,
        b'{"generationConfig":{"topK":1}}',
        7,
        False,
        b'{"generationConfig":{"maxOutputTokens":7,"topK":1}}',
    ),
    (
        GENERATE,
        b'{"generation_config":{"max_output_tokens":99}}',
        7,
        False,
        b'{"generation_config":{"max_output_tokens":7}}',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("target", "body", "cap", "usage", "wanted"), EDITS)
def test_edits_change_only_what_they_must(
    target: tuple[str, str], body: bytes, cap: int | None, usage: bool, wanted: bytes
) -> None:
    maker = adapter(*target)
    asked = maker.ask("POST", target[1], "", "application/json", body)
    assert maker.edit(asked, body, usage=usage, output_cap=cap) == wanted
