"""Our own count against the provider's final word: measured, learned from and shown, by stream."""

from __future__ import annotations

import json

import pytest
from gateway_kit import CHAT, Gate, fresh_model

from lava_proxy.net.simulated import Piece, Script
from lava_proxy.telemetry.exposition import render

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _ratio(gate: Gate) -> tuple[float, float]:
    """(sum, count) of the ratios seen at OpenAI."""
    text = render(gate.gateway.metrics.registry)[0].decode()
    found = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("lava_estimate_ratio_") and 'provider="openai"' in line
        if "_bucket" not in line
    }
    return found.get("lava_estimate_ratio_sum", 0), found.get("lava_estimate_ratio_count", 0)


async def test_a_stream_that_ends_with_usage_is_compared(gate: Gate) -> None:
    payer = await gate.payer()
    before = _ratio(gate)
    body = {"model": "sim-60-0-drift", "stream": True, "messages": []}
    assert (await gate.call(CHAT, body, payer)).whole
    row = await gate.row(payer)
    assert (row["usage_source"], row["output_tokens"]) == ("provider", 60)
    total, count = _ratio(gate)
    assert count == before[1] + 1
    assert 0.8 < total - before[0] < 1.25
    assert gate.gateway.books.learned.take_fresh()


async def test_what_was_not_streamed_or_not_finished_is_not(gate: Gate) -> None:
    before = _ratio(gate)
    plain = await gate.payer()
    assert (await gate.call(CHAT, {"model": "sim-60-0", "messages": []}, plain)).whole
    cut = await gate.payer("0.0010")
    body = {"model": "sim-2000-0", "stream": True, "messages": []}
    assert not (await gate.call(CHAT, body, cut)).whole
    await gate.rows(cut)
    assert _ratio(gate) == before


async def test_a_stream_that_shows_a_summary_of_its_reasoning_is_not(gate: Gate) -> None:
    """The provider's figure has the reasoning, ours its summary: neither has what the other has."""
    payer = await gate.payer()
    model = f"gemini-2.5-{fresh_model()}"
    parts = [{"text": "so " * 100, "thought": True}]
    events = [
        {"candidates": [{"content": {"parts": parts}}]},
        {
            "candidates": [{"content": {"parts": [{"text": "x " * 60}]}, "finishReason": "STOP"}],
            "usageMetadata": {
                "promptTokenCount": 5,
                "candidatesTokenCount": 60,
                "thoughtsTokenCount": 400,
                "totalTokenCount": 465,
            },
        },
    ]
    gate.gateway.books.learned.take_fresh()
    gate.sim.script[model] = Script(
        [Piece(b"data: %b\r\n\r\n" % json.dumps(event).encode()) for event in events]
    )
    path = f"/google/v1beta/models/{model}:streamGenerateContent?alt=sse"
    assert (await gate.call(path, {"contents": [{"parts": [{"text": "x"}]}]}, payer)).whole
    row = await gate.row(payer)
    assert (row["output_tokens"], row["reasoning_tokens"]) == (460, 400)
    assert not gate.gateway.books.learned.take_fresh()
