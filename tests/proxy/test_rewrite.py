"""`/v1/rewrite`: an SDK of one dialect at a provider of another, through the whole gateway."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from gateway_kit import TOKEN_E10, Gate, fresh_model
from rewrite_kit import CLAUDE, GPT, HELLO, anthropic_at, openai_at

from lava_proxy.net.simulated import Piece, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "target", [CLAUDE, CLAUDE.replace("//", "/"), CLAUDE.removeprefix("https://")]
)
async def test_openai_sdk_streams_from_anthropic(gate: Gate, target: str) -> None:
    payer = await gate.payer()
    async with openai_at(gate, target, payer.token()) as client:
        stream = await client.chat.completions.create(
            model="sim-5-0-in7",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text.split() == ["one", "two", "three", "four", "five"]
    assert chunks[-2].choices[0].finish_reason == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 5)
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"], row["provider"]) == (
        "completed",
        "provider",
        "anthropic",
    )
    assert row["charge_e10"] == 12 * TOKEN_E10


async def test_openai_sdk_whole_answer_from_anthropic(gate: Gate) -> None:
    payer = await gate.payer()
    async with openai_at(gate, CLAUDE, payer.token()) as client:
        made = await client.chat.completions.create(model="sim-5-0-in7", messages=HELLO)
    assert (made.choices[0].message.content or "").split()[-1] == "five"
    assert made.usage is not None
    assert made.usage.total_tokens == 12
    sent = json.loads(gate.seen("sim-5-0-in7")[-1].body)
    assert sent["max_tokens"] == 4096


@pytest.mark.parametrize("stream", [True, False])
async def test_anthropic_sdk_at_openai(gate: Gate, stream: bool) -> None:
    payer = await gate.payer()
    async with anthropic_at(gate, GPT, payer.token()) as client:
        asked: Any = {"model": "sim-5-0-in7", "messages": HELLO, "max_tokens": 90}
        if stream:
            async with client.messages.stream(**asked) as events:
                message: Any = await events.get_final_message()
        else:
            message = await client.messages.create(**asked)
    assert message.content[0].text.split()[-1] == "five"
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 5)
    assert (await gate.row(payer))["charge_e10"] == 12 * TOKEN_E10


async def test_the_same_dialect_passes_untouched(gate: Gate) -> None:
    payer = await gate.payer()
    body = b'{"model": "sim-3-0",  "messages": [], "max_tokens": 9, "unknown": 1}'
    answer = await gate.call(f"/v1/rewrite/openai/{GPT}", body, payer)
    assert answer.status == 200
    assert gate.seen("sim-3-0")[-1].body == body


async def _drained(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="sim-2000-0", messages=HELLO, max_tokens=9000, stream=True
    )
    async for _ in stream:
        pass


async def test_a_cut_stream_raises_the_clients_error(gate: Gate) -> None:
    payer = await gate.payer("0.0010")
    async with openai_at(gate, CLAUDE, payer.token()) as client:
        with pytest.raises(openai.APIError) as caught:
            await _drained(client)
    assert caught.value.code == "budget_exhausted"
    assert (await gate.row(payer))["outcome"] == "cut_off"
    poor = await gate.payer("0.0010")
    async with anthropic_at(gate, GPT, poor.token()) as other:
        with pytest.raises(anthropic.APIStatusError, match="budget_exhausted"):
            async with other.messages.stream(
                model="sim-2000-0", messages=HELLO, max_tokens=9000
            ) as events:
                await events.get_final_message()


async def test_refusals_are_in_the_clients_dialect(gate: Gate) -> None:
    payer = await gate.payer("0.0000000001")
    async with openai_at(gate, CLAUDE, payer.token()) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="sim-5-0", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (402, "insufficient_credit")
    rich = await gate.payer()
    async with openai_at(gate, CLAUDE, rich.token()) as client:
        with pytest.raises(openai.UnprocessableEntityError, match="top_logprobs"):
            await client.chat.completions.create(model="m", messages=HELLO, top_logprobs=3)
    assert gate.sim.requests == []


@pytest.mark.parametrize("status", [400, 429, 529])
async def test_errors_of_the_provider_are_translated(gate: Gate, status: int) -> None:
    payer, model = await gate.payer(), fresh_model()
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}
    gate.sim.script[model] = Script.plain(json.dumps(error).encode(), status=status)
    body = {"model": model, "messages": HELLO, "stream": True}
    answer = await gate.call(f"/v1/rewrite/openai/{CLAUDE}", body, payer)
    assert answer.status == status
    assert json.loads(answer.body)["error"]["message"] == "too busy"
    assert (await gate.row(payer))["outcome"] == "upstream_error"


async def test_tool_calls_arrive_whole(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    chunks: list[Any] = [
        {
            "index": 0,
            "id": "call_a",
            "type": "function",
            "function": {"name": "f", "arguments": ""},
        },
        {
            "index": 1,
            "id": "call_b",
            "type": "function",
            "function": {"name": "g", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": '{"x": '}},
        {"index": 1, "function": {"arguments": '{"y": 2}'}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    events = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in chunks]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    events.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}})
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    gate.sim.script[model] = Script([Piece(line) for line in [*lines, b"data: [DONE]\n\n"]])
    async with anthropic_at(gate, GPT, payer.token()) as client:
        async with client.messages.stream(model=model, messages=HELLO, max_tokens=90) as stream:
            message: Any = await stream.get_final_message()
    found = [(block.id, block.name, block.input) for block in message.content]
    assert found == [("call_a", "f", {"x": 1}), ("call_b", "g", {"y": 2})]
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 9)
