"""Every trap of the providers that changes a bill, with the figures that were seen: one row each.

A row is an answer's bytes, what they must be read as, and what that costs at 1 USD per million
tokens in, 10 out, and 0.01 per search (`ELSEWHERE`: five times as much), in millionths of a dollar.
Every row is read whole and byte by byte.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from lava_adapters import Ask, Quirks, Usage
from lava_adapters.awsframe import encode
from lava_adapters.contract import Framing
from lava_adapters.families import BUILTIN
from lava_proxy.core.money import E12
from lava_proxy.rules.price import CLAMPED, PROVIDER_COST, cost_of
from lava_proxy.rules.rates import Rates, make_rates, weight
from lava_proxy.wire.tap import Tap

ELSEWHERE = "claude-opus-4-7"
MICRO_E10 = 10**4


def rates(times: int = 1) -> Rates:
    per_token = {"input": 1, "output": 10}
    weights = {kind: weight(usd * times * E12, E12, 10**6) for kind, usd in per_token.items()}
    return make_rates("v", "m", weights | {"web_search": weight(10**10 * times, E12, 1)})


OWN, OTHER = rates(), rates(5)


@dataclass(frozen=True)
class Trap:
    """One answer."""

    family: str
    body: bytes
    wanted: dict[str, Any]
    micro_usd: int | None = None
    """None: what it costs is not this row's business."""
    kind: str = ""
    ask: Ask = field(default_factory=lambda: Ask(model="asked", stream=True))
    framing: Framing = Framing.SSE
    headers: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    own_cost: bool = True
    free: bool = False


WHOLE = Ask(model="asked")


def sse(*events: Any, end: str = "\n", done: bool = False) -> bytes:
    out = []
    for event in events:
        name = event.get("type") if isinstance(event, dict) else None
        head = f"event: {name}{end}" if name else ""
        out.append(f"{head}data: {json.dumps(event)}{end}{end}")
    return ("".join(out) + (f"data: [DONE]{end}{end}" if done else "")).encode()


def chat(*usages: Any, **more: Any) -> bytes:
    delta = {"choices": [{"index": 0, "delta": {"content": "x"}}]}
    last = [{"choices": [], "usage": usage, **more} for usage in usages]
    return sse(delta, *last, done=True)


def claude(start: dict[str, Any], last: dict[str, Any], model: str = "claude") -> bytes:
    message = {"id": "m", "model": model, "usage": start}
    return sse(
        {"type": "message_start", "message": message},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last},
        {"type": "message_stop"},
    )


def gemini(*usages: dict[str, Any], finish: bool = True, **more: Any) -> bytes:
    chunks: list[Any] = [
        {"candidates": [{"content": {"parts": [{"text": "x"}]}}], "usageMetadata": usage}
        for usage in usages
    ]
    if finish:
        chunks[-1]["candidates"][0]["finishReason"] = "STOP"
    for chunk in chunks:
        chunk["candidates"][0].update(more)
    return sse(*chunks, end="\r\n")


def passes(*counts: tuple[Any, ...]) -> list[dict[str, Any]]:
    """(input, output, model or None)"""
    return [
        {"type": "message", "input_tokens": given, "output_tokens": made}
        | ({"model": model[0]} if model else {})
        for given, made, *model in counts
    ]


def responses(kind: str, **response: Any) -> bytes:
    return sse({"type": f"response.{kind}", "response": {"status": kind, **response}})


SEARCH = {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "q"}}
OPENED = {"type": "web_search_call", "action": {"type": "open_page"}}

TRAPS: dict[str, Trap] = {
    # Anthropic
    "compaction: the top level leaves a pass out, and the last value is not the whole": Trap(
        "anthropic_messages",
        claude(
            {"input_tokens": 60_385},
            {"input_tokens": 612, "output_tokens": 2_819,
             "iterations": passes((60_385, 522), (612, 2_819))},
        ),
        {"input_tokens": 60_997, "output_tokens": 3_341},
        60_997 + 33_410,
    ),
    "advisor: the other model's pass is left out, and has another price": Trap(
        "anthropic_messages",
        claude(
            {"input_tokens": 4_727},
            {"input_tokens": 4_727, "output_tokens": 3_391,
             "iterations": passes((2_727, 1_391), (2_728, 3_880, ELSEWHERE), (2_000, 2_000))},
        ),
        {"input_tokens": 7_455, "output_tokens": 7_271},
        4_727 + 33_910 + 5 * (2_728 + 38_800),
    ),
    "fallback: the top level is another model's than the start": Trap(
        "anthropic_messages",
        claude(
            {"input_tokens": 100},
            {"input_tokens": 100, "output_tokens": 20,
             "iterations": passes((100, 5), (100, 20, ELSEWHERE))},
        ),
        {"input_tokens": 200, "output_tokens": 25},
        150 + 5 * 300,
    ),
    "the later input wins: server tools have added to it": Trap(
        "anthropic_messages",
        claude({"input_tokens": 10, "output_tokens": 1},
               {"input_tokens": 1_250, "output_tokens": 40,
                "server_tool_use": {"web_search_requests": 2}}),
        {"input_tokens": 1_250, "output_tokens": 40, "web_searches": 2},
        1_250 + 400 + 20_000,
    ),
    "cached tokens lie beside the input": Trap(
        "anthropic_messages",
        claude({"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7},
               {"output_tokens": 3}),
        {"input_tokens": 22, "output_tokens": 3, "cache_read_tokens": 5, "cache_write_tokens": 7},
        22 + 30,
    ),
    "the start comes twice": Trap(
        "anthropic_messages",
        claude({"input_tokens": 10}, {}) + claude({"input_tokens": 12}, {"output_tokens": 2}),
        {"input_tokens": 12, "output_tokens": 2},
        32,
    ),
    "padding, and pings that are events": Trap(
        "anthropic_messages",
        b'event: ping\ndata: {"type": "ping"}\n\n'
        + claude({"input_tokens": 4}, {"output_tokens": 2}).replace(b"}\n\n", b"}           \n\n"),
        {"input_tokens": 4, "output_tokens": 2},
        24,
    ),
    "Anthropic's service tier": Trap(
        "anthropic_messages",
        claude({"input_tokens": 4, "service_tier": "priority"}, {"output_tokens": 2}),
        {"service_tier": "priority"},
    ),
    # OpenAI and those who copied it
    "xAI: reasoning lies beside the completion": Trap(
        "openai_chat",
        chat({"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 354,
              "completion_tokens_details": {"reasoning_tokens": 340}}),
        {"input_tokens": 12, "output_tokens": 342, "reasoning_tokens": 340},
        12 + 3_420,
    ),
    "xAI: its own cost, in ticks": Trap(
        "openai_chat",
        chat({"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 354,
              "completion_tokens_details": {"reasoning_tokens": 340},
              "cost_in_usd_ticks": 1_750_000}),
        {"output_tokens": 342, "cost_e10": 1_750_000},
        175,
        flags=(PROVIDER_COST,),
    ),
    "Google's OpenAI-compatible endpoint hides its thinking": Trap(
        "openai_chat",
        chat({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}),
        {"input_tokens": 35, "output_tokens": 74},
        35 + 740,
    ),
    "Mistral: audio lies beside the prompt": Trap(
        "openai_chat",
        chat({"prompt_tokens": 9, "completion_tokens": 248, "total_tokens": 632,
              "prompt_audio_seconds": 30}),
        {"input_tokens": 384, "output_tokens": 248},
        384 + 2_480,
    ),
    "Grok on Azure: more was cached than sent": Trap(
        "openai_chat",
        chat({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
              "prompt_tokens_details": {"cached_tokens": 161}}),
        {"input_tokens": 7, "output_tokens": 3, "cache_read_tokens": 7},
        37,
    ),
    "OpenRouter's error: more reasoning than completion": Trap(
        "openai_chat",
        sse({"error": {"code": 500, "message": "m"}, "choices": [{"delta": {"content": ""}}]},
            {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 10,
             "completion_tokens_details": {"reasoning_tokens": 11}}}, done=True),
        {"output_tokens": 10, "reasoning_tokens": 10, "failed": True},
        5 + 100,
    ),
    "OpenRouter's own cost": Trap(
        "openai_chat",
        chat({"prompt_tokens": 5, "completion_tokens": 10, "cost": 0.0145476}),
        {"cost_e10": 145_476_000},
        None,
        flags=(PROVIDER_COST,),
    ),
    "OpenRouter's cost is not the provider's where the key is the caller's": Trap(
        "openai_chat",
        chat({"prompt_tokens": 5, "completion_tokens": 10, "cost": 0.1, "is_byok": True}),
        {"cost_e10": None},
        105,
    ),
    "nor where the key is the customer's": Trap(
        "openai_chat",
        chat({"prompt_tokens": 5, "completion_tokens": 10, "cost": 0.1}),
        {"cost_e10": 10**9},
        105,
        own_cost=False,
    ),
    "Perplexity: most of the cost is the request, and usage is in every chunk": Trap(
        "openai_chat",
        sse(*({"choices": [{"delta": {"content": "x"}}],
               "usage": {"prompt_tokens": 10, "completion_tokens": made, "total_tokens": 10 + made,
                         "cost": {"request_cost": 0.005, "total_cost": cost}}}
              for made, cost in ((1, 0.00502), (11, 0.00522))), end="\r\n"),
        {"input_tokens": 10, "output_tokens": 11, "cost_e10": 52_200_000},
        5_220,
        flags=(PROVIDER_COST,),
    ),
    "usage in an early chunk, null behind it": Trap(
        "openai_chat",
        sse({"choices": [{"delta": {"content": "x"}}],
             "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
            {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None}, done=True),
        {"input_tokens": 3, "output_tokens": 2, "final": True},
        23,
    ),
    "Azure's first chunk is not the usage chunk": Trap(
        "openai_chat",
        sse({"choices": [], "model": "", "prompt_filter_results": [], "usage": None},
            {"choices": [], "model": "gpt", "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
            done=True),
        {"input_tokens": 3, "model": "gpt"},
        23,
    ),
    "Groq nests it": Trap(
        "openai_chat",
        sse({"choices": [{"delta": {}, "finish_reason": "stop"}],
             "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}}, done=True),
        {"input_tokens": 3, "output_tokens": 2},
        23,
    ),
    "OpenAI's service tier": Trap(
        "openai_chat",
        chat({"prompt_tokens": 3, "completion_tokens": 2}, service_tier="flex"),
        {"service_tier": "flex"},
    ),
    "searches of OpenAI's own tool, those that are charged": Trap(
        "openai_responses",
        sse(*({"type": "response.output_item.done", "item": item} for item in (SEARCH, OPENED)))
        + responses("completed", output=[SEARCH, SEARCH | {"id": "ws_2"}, OPENED],
                    usage={"input_tokens": 3, "output_tokens": 2}),
        {"web_searches": 2},
        23 + 20_000,
    ),
    "a background response has no usage at first": Trap(
        "openai_responses",
        json.dumps({"id": "r", "object": "response", "status": "queued", "usage": None}).encode(),
        {"input_tokens": None, "output_tokens": None, "final": False},
        ask=WHOLE,
        framing=Framing.JSON,
    ),
    "and states it when it is read again": Trap(
        "openai_responses",
        json.dumps({"id": "r", "object": "response", "status": "completed",
                    "usage": {"input_tokens": 3, "output_tokens": 2}}).encode(),
        {"input_tokens": 3, "output_tokens": 2, "final": True, "response_id": "r"},
        23,
        "retrieve",
        WHOLE,
        Framing.JSON,
    ),
    "obfuscation is no content": Trap(
        "openai_responses",
        sse({"type": "response.output_text.delta", "delta": "hi", "obfuscation": "x" * 500}),
        {"delta_bytes": 2},
    ),
    # Google
    "Gemini: what tools put into the prompt is input": Trap(
        "gemini",
        gemini({"promptTokenCount": 427, "toolUsePromptTokenCount": 771, "candidatesTokenCount": 5,
                "thoughtsTokenCount": 6, "totalTokenCount": 1_209}),
        {"input_tokens": 1_198, "output_tokens": 11, "tool_prompt_tokens": 771},
        1_198 + 110,
    ),
    "Gemini: counts change on the way, the last set holds": Trap(
        "gemini",
        gemini({"promptTokenCount": 50, "candidatesTokenCount": 9, "thoughtsTokenCount": 4},
               {"promptTokenCount": 40, "candidatesTokenCount": 7, "totalTokenCount": 47}),
        {"input_tokens": 40, "output_tokens": 7, "final": True},
        110,
    ),
    "Gemini: where it is cut, the largest of each": Trap(
        "gemini",
        gemini({"promptTokenCount": 50, "candidatesTokenCount": 9, "thoughtsTokenCount": 4},
               {"promptTokenCount": 40, "candidatesTokenCount": 7}, finish=False),
        {"input_tokens": 50, "output_tokens": 13, "final": False},
        180,
    ),
    "Gemini's service tier": Trap(
        "gemini",
        gemini({"promptTokenCount": 1, "trafficType": "PROVISIONED_THROUGHPUT"}),
        {"service_tier": "PROVISIONED_THROUGHPUT"},
    ),
    "Gemini 2: a prompt with searches is charged once": Trap(
        "gemini",
        gemini({"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
               groundingMetadata={"webSearchQueries": ["a", "b", "c"]}),
        {"web_searches": 1},
        23 + 10_000,
        ask=Ask(model="gemini-2.5-flash", stream=True),
    ),
    "Gemini 3: each search is charged": Trap(
        "gemini",
        gemini({"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
               groundingMetadata={"webSearchQueries": ["a", "b", "c"]}),
        {"web_searches": 3},
        23 + 30_000,
        ask=Ask(model="gemini-3-pro-preview", stream=True),
    ),
    "Gemini without alt=sse": Trap(
        "gemini",
        b'[{"candidates": [{"content": {"parts": [{"text": "}]"}]}}],\r\n"usageMetadata": '
        b'{"promptTokenCount": 3}}\r\n,\r\n{"candidates": [{"finishReason": "STOP"}], '
        b'"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}}\r\n]\n',
        {"input_tokens": 3, "output_tokens": 2, "final": True},
        23,
        framing=Framing.JSON_ARRAY,
    ),
    "Vertex AI: embeddings state tokens one by one": Trap(
        "gemini",
        json.dumps({"predictions": [
            {"embeddings": {"statistics": {"token_count": tokens, "truncated": False}}}
            for tokens in (5, 6)
        ], "metadata": {"billableCharacterCount": 35}}).encode(),
        {"input_tokens": 11, "output_tokens": 0, "input_characters": 35, "final": True},
        11,
        "predict",
        Ask(model="text-embedding-005", makes_output=False),
        Framing.JSON,
    ),
    "Vertex AI: pictures": Trap(
        "gemini",
        b'{"predictions": [{"bytesBase64Encoded": "AA"}, {"bytesBase64Encoded": "AA"}]}',
        {"images": 2, "final": True},
        None,
        "predict",
        Ask(model="imagen-4.0-generate-001", makes_output=False),
        Framing.JSON,
    ),
    # Others
    "Cohere: what is billed, not what was tokenized": Trap(
        "cohere",
        sse({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {
            "billed_units": {"input_tokens": 12, "output_tokens": 4},
            "tokens": {"input_tokens": 507, "output_tokens": 4}}}}),
        {"input_tokens": 12, "output_tokens": 4},
        52,
        "chat",
    ),
    "Bedrock: a guardrail rewrote the body, the headers know": Trap(
        "bedrock",
        b'{"usage": {"inputTokens": 30}}',
        {"input_tokens": 30, "output_tokens": 51},
        30 + 510,
        "invoke",
        WHOLE,
        Framing.JSON,
        {"x-amzn-bedrock-input-token-count": "30", "x-amzn-bedrock-output-token-count": "51"},
    ),
    "Bedrock: cached tokens lie beside the input": Trap(
        "bedrock",
        b"".join(
            encode({":message-type": "event", ":event-type": kind}, json.dumps(body).encode())
            for kind, body in (
                ("messageStop", {"stopReason": "end_turn"}),
                ("metadata", {"metrics": {}, "usage": {"inputTokens": 10, "outputTokens": 4,
                 "cacheReadInputTokens": 90, "cacheWriteInputTokens": 5, "totalTokens": 109}}),
            )
        ),
        {"input_tokens": 105, "output_tokens": 4, "cache_read_tokens": 90},
        145,
        "converse",
        framing=Framing.EVENT_STREAM,
    ),
    "Bedrock: an invoked model's last chunk": Trap(
        "bedrock",
        encode(
            {":message-type": "event", ":event-type": "chunk"},
            json.dumps({"bytes": base64.b64encode(json.dumps({
                "type": "message_stop", "amazon-bedrock-invocationMetrics": {
                    "inputTokenCount": 10, "outputTokenCount": 4}}).encode()).decode(),
                "p": "abcdefgh"}).encode(),
        ),
        {"input_tokens": 10, "output_tokens": 4, "final": True},
        50,
        "invoke",
        framing=Framing.EVENT_STREAM,
    ),
    "Ollama: the last line": Trap(
        "ollama",
        b'{"message":{"content":"x"},"done":false}\n'
        b'{"done":true,"prompt_eval_count":3,"eval_count":2}\n',
        {"input_tokens": 3, "output_tokens": 2},
        23,
        "chat",
        framing=Framing.NDJSON,
    ),
    # How events are written
    "no space after data:, and CR alone ends lines": Trap(
        "openai_chat",
        chat({"prompt_tokens": 3, "completion_tokens": 2}).replace(b"data: ", b"data:")
        .replace(b"\n", b"\r"),
        {"input_tokens": 3, "output_tokens": 2},
        23,
    ),
    "data over several lines": Trap(
        "openai_chat",
        b'data: {"choices": [],\ndata: "usage": {"prompt_tokens": 3,\ndata:"completion_tokens": 2}'
        b"}\n\ndata: [DONE]\n\n",
        {"input_tokens": 3, "output_tokens": 2},
        23,
    ),
    "comments keep a connection alive and mean nothing": Trap(
        "openai_chat",
        b": OPENROUTER PROCESSING\n\n: ping - 2026-06-08 12:00:00\r\n\r\n"
        + chat({"prompt_tokens": 3, "completion_tokens": 2}),
        {"input_tokens": 3, "output_tokens": 2, "deltas": 1},
        23,
    ),
    "a failure as a field of its own": Trap(
        "openai_chat",
        sse({"choices": [{"delta": {"content": "x"}}]}) + b'error: {"code":500,"message":"m"}\n\n',
        {"failed": True},
    ),
    "the last event has no empty line behind it": Trap(
        "openai_chat",
        sse({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}).rstrip(b"\n"),
        {"input_tokens": 3, "output_tokens": 2},
        23,
    ),
    "half an emoji": Trap(
        "openai_chat",
        b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n'
        + chat({"prompt_tokens": 3, "completion_tokens": 2}),
        {"input_tokens": 3, "deltas": 2},
        23,
    ),
    "an event that repeats the whole answer, larger than what is parsed": Trap(
        "openai_responses",
        responses("completed", output=[{"content": [{"text": "x" * 1_500_000}]}],
                  usage={"input_tokens": 3, "output_tokens": 2}),
        {"input_tokens": 3, "output_tokens": 2, "ended": True},
        23,
    ),
}  # fmt: skip


def read(trap: Trap, size: int) -> Tap:
    adapter = BUILTIN[trap.family](Quirks(), trap.kind)
    tap = Tap(trap.framing, adapter.reader(trap.ask))
    if tap.reader.reads_headers:
        tap.reader.headers(200, trap.headers)
    out = b""
    for at in range(0, len(trap.body), size):
        out += b"".join(event.raw for event in tap.feed(trap.body[at : at + size]))
    out += b"".join(event.raw for event in tap.finish())
    assert out == trap.body
    assert not tap.faulty
    return tap


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap(name: str) -> None:
    trap = TRAPS[name]
    small = 1 if len(trap.body) < 10_000 else 4_096
    for size in (len(trap.body), small):
        reader = read(trap, size).reader
        usage: Usage = reader.usage()
        for member, value in trap.wanted.items():
            of = usage if member in Usage.__dataclass_fields__ and member != "model" else reader
            assert getattr(of, member) == value, member
        if trap.micro_usd is None:
            continue
        cost = cost_of(
            usage, lambda model: OTHER if model == ELSEWHERE else OWN, own_cost=trap.own_cost
        )
        assert cost is not None
        assert cost.total_e10 == trap.micro_usd * MICRO_E10
        assert set(cost.flags) == set(trap.flags)
        assert CLAMPED not in cost.flags


@pytest.mark.parametrize(
    ("family", "kind", "path"),
    [
        ("anthropic_messages", "free", "/v1/messages/count_tokens"),
        ("opaque", "free", "/v1/moderations"),
        ("openai_chat", "free", "/v1/models"),
        ("openai_responses", "free", "/v1/responses/input_tokens"),
        ("gemini", "free", "/v1beta/models/m:countTokens"),
        ("bedrock", "free", "/model/m/count-tokens"),
    ],
)
def test_what_costs_nothing(family: str, kind: str, path: str) -> None:
    body = b'{"model": "m", "messages": []}'
    ask = BUILTIN[family](Quirks(), kind).ask("POST", path, "", "application/json", body)
    assert ask.free
    assert not ask.makes_output
