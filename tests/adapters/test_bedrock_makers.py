"""Models invoked through Bedrock answer in their makers' words: counts and text are found there,
also where no header repeats them. The shapes are those of recordings, the figures ours."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lava_adapters import Quirks, Reader
from lava_adapters.awsframe import encode
from lava_adapters.contract import Framing
from lava_adapters.families import BUILTIN
from lava_proxy.wire.tap import Tap

ADAPTER = BUILTIN["bedrock"](Quirks(), "invoke")


def _reader(model: str, verb: str) -> Reader:
    return ADAPTER.reader(
        ADAPTER.ask("POST", f"/model/{model}/{verb}", "", "application/json", b"{}")
    )


def _whole(model: str, answer: dict[str, Any]) -> Reader:
    reader = _reader(model, "invoke")
    reader.headers(200, {})
    reader.event("", json.dumps(answer).encode())
    return reader


# openllmetry, instrumentation-bedrock, cassettes/test_guardrails/test_guardrail_invoke.yaml: a
# guardrail that changes the answer writes its counts with a point.
@pytest.mark.parametrize("given", [28, 28.0])
def test_titan_text(given: float) -> None:
    result = {"tokenCount": given * 2, "outputText": "Once upon"}
    reader = _whole(
        "amazon.titan-text-express-v1", {"inputTextTokenCount": given, "results": [result]}
    )
    usage = reader.usage()
    assert (usage.input_tokens, usage.output_tokens) == (28, 56)
    assert reader.final


def test_a_broken_count_is_none() -> None:
    result = {"tokenCount": 1.5, "outputText": "Once upon"}
    usage = _whole("amazon.titan-text-express-v1", {"results": [result]}).usage()
    assert usage.output_tokens is None


# pydantic-ai, tests/cassettes/test_embeddings/TestBedrock.test_titan_v2_minimal.yaml
def test_titan_embeddings() -> None:
    answer = {"embedding": [0.1], "embeddingsByType": {"float": [0.1]}, "inputTextTokenCount": 6}
    reader = _whole("amazon.titan-embed-text-v2:0", answer)
    assert reader.usage().input_tokens == 6
    assert reader.final


@pytest.mark.parametrize(
    "event",
    [
        {"outputText": "Hi", "index": 0, "totalOutputTextTokenCount": None},
        {"generation": "Hi", "stop_reason": None},
        {"outputs": [{"text": "Hi", "stop_reason": None}]},
        {"choices": [{"index": 0, "text": "Hi", "stop_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "Hi"}}]},
        {"event_type": "text-generation", "text": "Hi", "is_finished": False},
        {"generations": [{"text": "Hi"}]},
        {"contentBlockDelta": {"delta": {"text": "Hi"}, "contentBlockIndex": 0}},
    ],
    ids=["titan", "llama", "mistral", "deepseek", "jamba", "cohere", "cohere-old", "nova"],
)
def test_a_stream_is_counted_as_it_runs(event: dict[str, Any]) -> None:
    metrics = {"inputTokenCount": 9, "outputTokenCount": 1}
    frames = b""
    for each in (event, {"amazon-bedrock-invocationMetrics": metrics}):
        inner = base64.b64encode(json.dumps(each).encode()).decode()
        headers = {":message-type": "event", ":event-type": "chunk"}
        frames += encode(headers, json.dumps({"bytes": inner}).encode())
    tap = Tap(Framing.EVENT_STREAM, _reader("m", "invoke-with-response-stream"))
    out = b"".join(each.raw for at in range(len(frames)) for each in tap.feed(frames[at : at + 1]))
    assert out + b"".join(each.raw for each in tap.finish()) == frames
    assert (tap.reader.deltas, tap.reader.delta_bytes) == (1, 2)
    usage = tap.reader.usage()
    assert (usage.input_tokens, usage.output_tokens) == (9, 1)


def test_titan_says_the_totals_in_its_last_chunk() -> None:
    reader = _reader("amazon.titan-text-express-v1", "invoke-with-response-stream")
    last = {"outputText": "!", "totalOutputTextTokenCount": 4, "inputTextTokenCount": 3}
    payload = {"bytes": base64.b64encode(json.dumps(last).encode()).decode()}
    reader.event("chunk", json.dumps(payload).encode())
    assert (reader.usage().input_tokens, reader.usage().output_tokens) == (3, 4)
