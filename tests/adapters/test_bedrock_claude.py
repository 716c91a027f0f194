"""Claude through Bedrock's invoke: Anthropic's own reader reads it, and nothing that is billed is
lost; what Bedrock states itself wins."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lava_adapters import Ask, Quirks, Reader
from lava_adapters.awsframe import encode
from lava_adapters.contract import Usage
from lava_adapters.families import BUILTIN
from lava_proxy.wire.tap import Tap

MODEL = "us.anthropic.claude-opus-4-7-v1:0"
CREATION = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 900}
USAGE = {
    "input_tokens": 10, "output_tokens": 7, "cache_read_input_tokens": 20,
    "cache_creation_input_tokens": 1000, "cache_creation": CREATION,
    "server_tool_use": {"web_search_requests": 3}, "output_tokens_details": {"thinking_tokens": 4},
}  # fmt: skip
METRICS = {
    "inputTokenCount": 10, "outputTokenCount": 7, "cacheReadInputTokenCount": 20,
    "cacheWriteInputTokenCount": 1000, "invocationLatency": 5,
}  # fmt: skip
PASSES = [
    {"type": "compaction", "input_tokens": 60_385, "output_tokens": 522},
    {"type": "message", "input_tokens": 612, "output_tokens": 2_819},
    {"type": "advisor_message", "model": "claude-sonnet-4-6", "input_tokens": 2_728,
     "output_tokens": 3_880},
]  # fmt: skip


def _reader(stream: bool) -> Reader:
    return BUILTIN["bedrock"](Quirks(), "invoke").reader(Ask(model=MODEL, stream=stream))


def _whole(usage: dict[str, Any], headers: dict[str, str] | None = None) -> Usage:
    reader = _reader(stream=False)
    reader.headers(200, headers or {})
    answer = {"id": "msg_1", "type": "message", "model": "claude-opus-4-7", "usage": usage}
    answer |= {"content": [{"type": "text", "text": "Hi"}]}
    reader.event("", json.dumps(answer).encode())
    assert reader.final
    assert reader.ended
    assert (reader.deltas, reader.delta_bytes, reader.response_id) == (1, 2, "msg_1")
    return reader.usage()


def _frames(usage: dict[str, Any], metrics: dict[str, int]) -> bytes:
    begun = usage | {"output_tokens": 1}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": begun}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}}
          for t in ("Hel", "lo")),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics},
    ]  # fmt: skip
    frames = b""
    for event in events:
        inner = base64.b64encode(json.dumps(event).encode()).decode()
        payload = json.dumps({"bytes": inner, "p": "abcd"}).encode()
        frames += encode({":message-type": "event", ":event-type": "chunk"}, payload)
    return frames


def _streamed(usage: dict[str, Any], metrics: dict[str, int], size: int = 10**6) -> Usage:
    adapter = BUILTIN["bedrock"](Quirks(), "invoke")
    ask = Ask(model=MODEL, stream=True)
    tap = Tap(adapter.framing(ask, "application/vnd.amazon.eventstream"), adapter.reader(ask))
    frames = _frames(usage, metrics)
    least = 0
    for at in range(0, len(frames), size):
        tap.feed(frames[at : at + size])
        made = tap.reader.usage().output_tokens or 0
        assert made >= least
        least = made
    reader = tap.reader
    assert not tap.faulty
    assert (reader.final, reader.ended, reader.deltas, reader.delta_bytes) == (True, True, 2, 5)
    return reader.usage()


def _all_billed(usage: Usage) -> None:
    assert (usage.input_tokens, usage.output_tokens) == (1030, 7)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (20, 1000)
    assert usage.cache_write_1h_tokens == 900
    assert usage.web_searches == 3
    assert usage.reasoning_tokens == 4
    assert usage.model == MODEL


def test_cache_writes_for_an_hour_and_searches() -> None:
    _all_billed(_whole(USAGE))


@pytest.mark.parametrize("size", [10**6, 1, 37])
def test_the_same_of_a_stream(size: int) -> None:
    _all_billed(_streamed(USAGE, METRICS, size))


def test_every_pass_is_billed_by_its_own_model() -> None:
    top = {"input_tokens": 612, "output_tokens": 2_819, "iterations": PASSES}
    for usage in (_whole(top), _streamed(top, {})):
        assert (usage.input_tokens, usage.output_tokens) == (63_725, 7_221)
        assert [part.model for part in usage.parts] == [MODEL, MODEL, "claude-sonnet-4-6"]


def test_what_bedrock_states_wins() -> None:
    """A guardrail may have taken the usage out of the body."""
    headers = {f"x-amzn-bedrock-{k}-token-count": v for k, v in (("input", "30"), ("output", "51"))}
    usage = _whole({}, headers)
    assert (usage.input_tokens, usage.output_tokens) == (30, 51)
    usage = _streamed(USAGE, METRICS | {"outputTokenCount": 9})
    assert (usage.output_tokens, usage.cache_write_1h_tokens) == (9, 900)


def test_the_tier_of_the_head_wins() -> None:
    reader = _reader(stream=False)
    reader.headers(200, {"x-amzn-bedrock-service-tier": "flex"})
    answer = {"type": "message", "usage": USAGE | {"service_tier": "x"}}
    reader.event("", json.dumps(answer).encode())
    assert reader.service_tier == "flex"
