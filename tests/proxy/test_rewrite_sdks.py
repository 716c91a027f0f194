"""What real SDKs send and read through `/v1/rewrite`: tools, images, usage, reasons, errors."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from gateway_kit import TOKEN_E10, Gate, fresh_model
from rewrite_kit import (
    CLAUDE,
    GPT,
    HELLO,
    anthropic_at,
    choice,
    claude_stream,
    gpt_stream,
    openai_at,
)

from lava_proxy.net.simulated import Ending, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = "iVBORw0KGgo="


# OpenAI's SDK at Anthropic.

GPT_TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "description": "w", "parameters": SCHEMA}}
]
GPT_HISTORY: Any = [
    {"role": "system", "content": "be brief"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "weather in both?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": f"c{i}", "type": "function", "function": {"name": "weather", "arguments": a}}
            for i, a in enumerate(('{"city":"Rome"}', '{"city":"Oslo"}'))
        ],
    },
    {"role": "tool", "tool_call_id": "c0", "content": "sunny"},
    {"role": "tool", "tool_call_id": "c1", "content": ""},
    {"role": "developer", "content": "in Celsius"},
]
CLAUDE_USAGE = {
    "input_tokens": 10,
    "cache_read_input_tokens": 30,
    "cache_creation_input_tokens": 20,
    "output_tokens": 9,
}
CLAUDE_ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "t0", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "t1", "name": "now", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": CLAUDE_USAGE,
}


def _claude_events() -> list[dict[str, Any]]:
    start = CLAUDE_ANSWER | {"content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start | {"usage": CLAUDE_USAGE | {"output_tokens": 1}}}
    ]
    fragments = [["Let me", " look."], ['{"ci', 'ty":"R', 'ome"}'], []]
    blocks: Any = CLAUDE_ANSWER["content"]
    for index, (block, pieces) in enumerate(zip(blocks, fragments, strict=True)):
        kind = "text" if block["type"] == "text" else "partial_json"
        empty = block | ({"text": ""} if kind == "text" else {"input": {}})
        delta = {"type": "text_delta" if kind == "text" else "input_json_delta"}
        events += [
            {"type": "content_block_start", "index": index, "content_block": empty},
            {"type": "ping"},
            *(
                {"type": "content_block_delta", "index": index, "delta": delta | {kind: piece}}
                for piece in pieces
            ),
            {"type": "content_block_stop", "index": index},
        ]
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 9}})
    return [*events, {"type": "message_stop"}]


async def test_openais_request_at_anthropic(gate: Gate) -> None:
    payer, model = await gate.payer("10.00"), fresh_model()
    gate.sim.script[model] = Script.json(CLAUDE_ANSWER)
    async with openai_at(gate, CLAUDE, payer.token()) as client:
        await client.chat.completions.create(
            model=model,
            messages=GPT_HISTORY,
            tools=GPT_TOOLS,
            tool_choice="required",
            parallel_tool_calls=False,
            max_completion_tokens=200,
            temperature=0.5,
            stop="END",
            user="u1",
            seed=1,
        )
    seen = gate.seen(model)[-1]
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in seen.headers
    assert not [name for name in seen.headers if name.startswith(("x-stainless", "openai-"))]
    assert json.loads(seen.body) == {
        "model": model,
        "max_tokens": 200,
        "system": [{"type": "text", "text": "be brief"}, {"type": "text", "text": "in Celsius"}],
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "tools": [{"name": "weather", "description": "w", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "weather in both?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "c0", "name": "weather", "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c0",
                        "content": [{"type": "text", "text": "sunny"}],
                    },
                    {"type": "tool_result", "tool_use_id": "c1", "content": []},
                ],
            },
        ],
    }


async def _gpt_message(client: openai.AsyncOpenAI, model: str, *, stream: bool) -> Any:
    if not stream:
        return await client.chat.completions.create(model=model, messages=HELLO)
    async with client.chat.completions.stream(
        model=model, messages=HELLO, stream_options={"include_usage": True}
    ) as events:
        return await events.get_final_completion()


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_answer_for_openai(gate: Gate, stream: bool) -> None:
    payer, model = await gate.payer(), fresh_model()
    script = claude_stream(_claude_events()) if stream else Script.json(CLAUDE_ANSWER)
    gate.sim.script[model] = script
    async with openai_at(gate, CLAUDE, payer.token()) as client:
        made = await _gpt_message(client, model, stream=stream)
    message = made.choices[0].message
    assert (made.id, made.model, message.role) == ("msg_1", "claude-x", "assistant")
    assert message.content == "Let me look."
    assert made.choices[0].finish_reason == "tool_calls"
    found = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls]
    assert found == [("t0", "weather", {"city": "Rome"}), ("t1", "now", {})]
    usage = made.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (60, 9, 69)
    assert usage.prompt_tokens_details.cached_tokens == 30
    row = await gate.row(payer)
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"]) == (60, 9, 30)
    assert (row["usage_source"], row["charge_e10"]) == ("provider", 69 * TOKEN_E10)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("new_reason", "stop"),
    ],
)
async def test_anthropics_stop_reasons(gate: Gate, theirs: str, ours: str) -> None:
    payer, model = await gate.payer(), fresh_model()
    content = [{"type": "text", "text": "x"}]
    answer = CLAUDE_ANSWER | {"stop_reason": theirs, "content": content}
    gate.sim.script[model] = Script.json(answer)
    async with openai_at(gate, CLAUDE, payer.token()) as client:
        made = await client.chat.completions.create(model=model, messages=HELLO)
    assert made.choices[0].finish_reason == ours


# Anthropic's SDK at OpenAI.

CLAUDE_TOOLS: Any = [
    {
        "name": "weather",
        "description": "w",
        "input_schema": SCHEMA,
        "cache_control": {"type": "ephemeral"},
    }
]
CLAUDE_HISTORY: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "weather?", "cache_control": {"type": "ephemeral"}},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
            },
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "t0", "name": "weather", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t0", "content": "sunny"},
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "is_error": True,
                "content": [
                    {"type": "text", "text": "cold"},
                    {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
                ],
            },
            {"type": "text", "text": "so?"},
        ],
    },
]
GPT_USAGE = {
    "prompt_tokens": 60,
    "completion_tokens": 9,
    "total_tokens": 69,
    "prompt_tokens_details": {"cached_tokens": 30},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
CALLS = [
    {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": '{"city":"R"}'}},
    {"id": "c1", "type": "function", "function": {"name": "now", "arguments": ""}},
]
GPT_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Let me look.", "tool_calls": CALLS},
            "finish_reason": "tool_calls",
        }
    ],
    "usage": GPT_USAGE,
}


def _gpt_chunks() -> list[dict[str, Any]]:
    first = {"index": 0, **CALLS[0], "function": {"name": "weather", "arguments": ""}}
    fragments = ['{"ci', 'ty":"', 'R"}']
    parts = [{"tool_calls": [{"index": 0, "function": {"arguments": f}}]} for f in fragments]
    return [
        choice({"role": "assistant", "content": ""}),
        choice({"content": "Let me"}),
        choice({"content": " look."}),
        choice({"tool_calls": [first]}),
        *(choice(part) for part in parts),
        choice({"tool_calls": [{"index": 1, **CALLS[1]}]}),
        choice({}, "tool_calls"),
        {"id": "chatcmpl-1", "model": "m", "choices": [], "usage": GPT_USAGE},
    ]


async def test_anthropics_request_at_openai(gate: Gate) -> None:
    payer, model = await gate.payer("10.00"), fresh_model()
    gate.sim.script[model] = Script.json(GPT_ANSWER)
    async with anthropic_at(gate, GPT, payer.token()) as client:
        await client.messages.create(
            model=model,
            max_tokens=200,
            system=[{"type": "text", "text": "be brief"}],
            messages=CLAUDE_HISTORY,
            tools=CLAUDE_TOOLS,
            tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
            stop_sequences=["END"],
            metadata={"user_id": "u1"},
            extra_body={"temperature": 0.5},
        )
    seen = gate.seen(model)[-1]
    assert "x-api-key" not in seen.headers
    assert not [name for name in seen.headers if name.startswith(("x-stainless", "anthropic-"))]
    assert json.loads(seen.body) == {
        "model": model,
        "max_completion_tokens": 200,
        "temperature": 0.5,
        "stop": ["END"],
        "user": "u1",
        "tools": GPT_TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "weather?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                ],
            },
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {
                        "id": f"t{i}",
                        "type": "function",
                        "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'},
                    }
                    for i, city in enumerate(("Rome", "Oslo"))
                ],
            },
            {"role": "tool", "tool_call_id": "t0", "content": "sunny"},
            {"role": "tool", "tool_call_id": "t1", "content": "cold"},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
                    {"type": "text", "text": "so?"},
                ],
            },
        ],
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_openais_answer_for_anthropic(gate: Gate, stream: bool) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = gpt_stream(_gpt_chunks()) if stream else Script.json(GPT_ANSWER)
    asked: Any = {"model": model, "messages": HELLO, "max_tokens": 90}
    async with anthropic_at(gate, GPT, payer.token()) as client:
        if stream:
            async with client.messages.stream(**asked) as events:
                made: Any = await events.get_final_message()
        else:
            made = await client.messages.create(**asked)
    text, *calls = made.content
    assert (made.id, made.model, text.text) == ("chatcmpl-1", "m", "Let me look.")
    assert [(c.id, c.name, c.input) for c in calls] == [
        ("c0", "weather", {"city": "R"}),
        ("c1", "now", {}),
    ]
    usage = made.usage
    assert (made.stop_reason, usage.input_tokens, usage.output_tokens) == ("tool_use", 30, 9)
    assert usage.cache_read_input_tokens == 30
    row = await gate.row(payer)
    assert (row["input_tokens"], row["output_tokens"], row["reasoning_tokens"]) == (60, 9, 4)
    assert (row["usage_source"], row["charge_e10"]) == ("provider", 69 * TOKEN_E10)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")],
)
async def test_openais_finish_reasons(gate: Gate, theirs: str, ours: str) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = gpt_stream([choice({"content": "x"}), choice({}, theirs)])
    asked: Any = {"model": model, "messages": HELLO, "max_tokens": 90}
    async with anthropic_at(gate, GPT, payer.token()) as client:
        async with client.messages.stream(**asked) as events:
            made = await events.get_final_message()
    assert made.stop_reason == ours


# Errors, each as the SDK's own type.

STATUSES = [(400, "BadRequestError"), (404, "NotFoundError"), (429, "RateLimitError")]


@pytest.mark.parametrize(("status", "name"), [*STATUSES, (529, "InternalServerError")])
async def test_errors_are_the_sdks_own(gate: Gate, status: int, name: str) -> None:
    payer, model = await gate.payer(), fresh_model()
    wrong = {"type": "error", "error": {"type": "x_error", "message": "what happened"}}
    gate.sim.script[model] = Script.json(wrong, status=status)
    async with openai_at(gate, CLAUDE, payer.token(), max_retries=0) as client:
        with pytest.raises(getattr(openai, name)) as caught:
            await client.chat.completions.create(model=model, messages=HELLO)
    body: Any = caught.value.body
    assert (body["message"], body["code"]) == ("what happened", "x_error")
    gate.sim.script[model] = Script.json({"error": {"message": "it is so"}}, status=status)
    asked: Any = {"model": model, "messages": HELLO, "max_tokens": 9}
    async with anthropic_at(gate, GPT, payer.token(), max_retries=0) as other:
        with pytest.raises(anthropic.APIStatusError, match="it is so") as refused:
            await other.messages.create(**asked)
    assert refused.value.status_code == status
    answer: Any = refused.value.body
    assert answer["type"] == "error"
    rows = await gate.rows(payer)
    assert [(r["outcome"], r["charge_e10"]) for r in rows] == [("upstream_error", 0)] * 2


async def test_an_error_within_a_stream_is_the_sdks_own(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    wrong = {"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}
    gate.sim.script[model] = claude_stream([*_claude_events()[:4], wrong])
    async with openai_at(gate, CLAUDE, payer.token()) as client:
        with pytest.raises(openai.APIError, match="too busy"):
            await _gpt_message(client, model, stream=True)
    gate.sim.script[model] = gpt_stream([choice({"content": "x"}), {"error": {"message": "no!"}}])
    asked: Any = {"model": model, "messages": HELLO, "max_tokens": 90}
    async with anthropic_at(gate, GPT, payer.token()) as other:
        with pytest.raises(anthropic.APIStatusError, match="no!"):
            async with other.messages.stream(**asked) as events:
                await events.get_final_message()
    assert {r["outcome"] for r in await gate.rows(payer)} == {"upstream_error"}


async def test_a_refusal_for_money_is_the_sdks_own(gate: Gate) -> None:
    payer = await gate.payer("0.0000000001")
    async with anthropic_at(gate, GPT, payer.token()) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(model="sim-5-0", messages=HELLO, max_tokens=9)
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["type"]) == (402, "billing_error")
    assert gate.sim.requests == []


async def _ask_claude(client: anthropic.AsyncAnthropic, model: str, *, stream: bool) -> Any:
    asked: Any = {"model": model, "messages": HELLO, "max_tokens": 90}
    if not stream:
        return await client.messages.create(**asked)
    async with client.messages.stream(**asked) as events:
        return await events.get_final_message()


@pytest.mark.parametrize("way", ["page", "ends", "breaks off"])
async def test_what_is_no_answer_is_an_error(gate: Gate, way: str) -> None:
    """A stream that ends as if all were well, or breaks off; a page instead of JSON."""
    payer, model = await gate.payer(), fresh_model()
    piece = gpt_stream([choice({"content": "x"})], done=False).pieces
    gate.sim.script[model] = {
        "page": Script.plain(b"<html>not an answer"),
        "ends": Script(piece),
        "breaks off": Script(piece, ends=Ending.TRUNCATED),
    }[way]
    async with anthropic_at(gate, GPT, payer.token(), max_retries=0) as client:
        with pytest.raises(anthropic.APIError) as caught:
            await _ask_claude(client, model, stream=way != "page")
    if way != "page":
        assert "ended early" in str(caught.value)
    assert len(await gate.rows(payer)) == 1
