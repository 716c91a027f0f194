"""Readers survive anything: no shape of JSON and no bytes make them raise."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_adapters import NO_USAGE, Ask, Quirks, Reader
from lava_adapters.families import BUILTIN

FAMILIES = tuple(BUILTIN)
USAGE = {
    "prompt_tokens": 1,
    "input_tokens": 2,
    "cost": 1.5,
    "prompt_tokens_details": {"cached_tokens": 2},
    "cache_creation": {"ephemeral_1h_input_tokens": 3},
    "iterations": [{"model": "m", "output_tokens": 4}],
}
OUTPUT = [{"type": "f_call", "content": [{"text": "x"}], "name": "n"}]
DELTA = {"content": "a", "tool_calls": [{"function": {"name": "f"}}]}
PART = {"functionCall": {"name": "f", "args": {"a": 1}}}
METADATA = {"promptTokenCount": 1, "promptTokensDetails": [{"modality": "IMAGE", "tokenCount": 1}]}
TOOLS = [
    {"type": "web_search_call", "id": "w", "action": {"type": "search"}},
    {"type": "code_interpreter_call", "container_id": "c"},
    {"type": "file_search_call", "id": "f"},
]
TOOL_USAGE = {
    "web_search": {"num_requests": 2},
    "image_gen": {"input_tokens": 1, "output_tokens": 2},
}
BILLED = {"billed_units": {"input_tokens": 1, "output_tokens": 2, "search_units": 1}}
CONVERSED = {
    "inputTokens": 1,
    "outputTokens": 2,
    "cacheWriteInputTokens": 3,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 3}],
}
INTERACTION_USAGE = {
    "total_input_tokens": 1,
    "total_thought_tokens": 2,
    "input_tokens_by_modality": [{"modality": "audio", "tokens": 3}],
    "grounding_tool_count": [{"type": "google_search", "count": 1}],
}
CALL = {"type": "google_search_call", "arguments": {"queries": ["a"]}}
INTERACTION = {"id": "i", "status": "completed", "usage": INTERACTION_USAGE, "steps": [CALL]}
SEEDS: list[dict[str, Any]] = [
    {"event_type": "interaction.completed", "interaction": INTERACTION},
    {"event_type": "step.delta", "index": 1, "delta": {"text": "x", "content": {"text": "y"}}},
    {"event_type": "step.start", "index": 1, "step": CALL | {"summary": [{"text": "x"}]}},
    INTERACTION | {"object": "interaction", "outputs": [{"text": "x", "content": [CALL]}]},
    {"choices": [{"delta": DELTA, "finish_reason": "stop"}], "usage": USAGE, "model": "m"},
    {"choices": [], "x_groq": {"usage": USAGE}, "error": None, "service_tier": "x", "id": "i"},
    {"type": "response.completed", "response": {"usage": USAGE, "output": OUTPUT}},
    {"object": "response", "status": "completed", "usage": USAGE, "output": OUTPUT},
    {"type": "response.output_item.added", "item": {"type": "x_call", "name": "f"}},
    {"type": "message_start", "message": {"usage": USAGE, "id": "i"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE},
    {"type": "message", "content": [{"type": "tool_use", "name": "f"}], "usage": USAGE},
    {"type": "content_block_delta", "delta": {"text": "x", "partial_json": "y"}},
    {"candidates": [{"content": {"parts": [PART]}}], "usageMetadata": METADATA},
    {"candidates": [{"groundingMetadata": {"webSearchQueries": ["a"]}, "finishReason": "STOP"}]},
    {"type": "response.output_item.done", "item": {"type": "web_search_call", "id": "w"}},
    {"status": "completed", "usage": USAGE, "output": TOOLS, "tool_usage": TOOL_USAGE},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": BILLED}},
    {"event_type": "stream-end", "finish_reason": "x", "response": {"meta": BILLED}},
    {"type": "content-delta", "delta": {"message": {"content": {"text": "x"}}}},
    {"contentBlockDelta": {"delta": {"text": "x", "toolUse": {"input": "y"}}}},
    {"metadata": {"usage": CONVERSED, "serviceTier": {"type": "flex"}}, "metrics": {}},
    {"bytes": "eyJnZW5lcmF0aW9uIjoieCIsInByb21wdF90b2tlbl9jb3VudCI6MX0="},
    {"results": [{"tokenCount": 1, "outputText": "x"}], "inputTextTokenCount": 2},
    {"message": {"content": "x", "tool_calls": [{"function": {"name": "f"}}]}, "done": True},
    {"response": "x", "done": True, "prompt_eval_count": 1, "eval_count": 2},
    {"metadata": {"duration": 1.25, "channels": 2}, "usage": {"seconds": 1, "type": "duration"}},
    {"data": [{"b64_json": "x"}], "usage": USAGE, "metrics": {"predict_time": 1.5}},
    {"usage_info": {"pages_processed": 3}, "model": "m", "pages": []},
    {"status": "succeeded", "id": "p", "metrics": {"predict_time": 2.5, "output_token_count": 3}},
]
ODD = [None, True, -1, 2.5, "x", [], {}, [None], {"a": None}, 2**70, [[]], [{"text": 1}]]


def reader(family: str, ask: Ask) -> Reader:
    return BUILTIN[family](Quirks(), "").reader(ask)


def mutate(value: Any, chance: random.Random) -> Any:
    if chance.random() < 0.15:
        return copy.deepcopy(chance.choice(ODD))
    if isinstance(value, dict):
        return {key: mutate(inner, chance) for key, inner in value.items()}
    return [mutate(inner, chance) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("family", FAMILIES)
def test_no_shape_of_json_makes_a_reader_raise(family: str) -> None:
    chance = random.Random(family)
    for seed in SEEDS:
        for _ in range(150):
            made = reader(family, chance.choice((Ask(stream=True), Ask())))
            for _ in range(2):
                made.event("", json.dumps(mutate(seed, chance)).encode())
            usage = made.usage()
            for value in (usage.input_tokens, usage.output_tokens):
                assert value is None or 0 <= value < 2**55


@given(st.binary(max_size=60))
@pytest.mark.parametrize("family", FAMILIES)
def test_no_bytes_make_a_reader_raise(family: str, data: bytes) -> None:
    made = reader(family, Ask(stream=True))
    made.event("error", data)
    made.event("", b'{"a":' + data)
    assert made.usage() == NO_USAGE
