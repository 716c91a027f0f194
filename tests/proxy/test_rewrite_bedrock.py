"""Bedrock's converse through `/v1/rewrite`: boto3 elsewhere, and other SDKs at Bedrock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import anthropic
import boto3
import openai
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from gateway_kit import MANAGED, TOKEN_E10, Gate, fresh_model
from rewrite_kit import CLAUDE, GPT, HELLO, anthropic_at, choice, gpt_stream, openai_at

from lava_adapters.awsframe import encode
from lava_proxy.net.simulated import Piece, Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = "https://bedrock-runtime.us-east-1.amazonaws.com"
NOVA = "us.amazon.nova-micro-v1:0"
FRAMES = (("content-type", "application/vnd.amazon.eventstream"),)
TURN: Any = [{"role": "user", "content": [{"text": "hello there"}]}]


def _path(verb: str, model: str = NOVA) -> str:
    return f"/model/{model.replace(':', '%3A')}/{verb}"


def _frames(*events: tuple[str, dict[str, Any]]) -> Script:
    pieces = []
    for name, value in events:
        kind = ":exception-type" if name.endswith("Exception") else ":event-type"
        headers = {kind: name, ":message-type": kind[1:].partition("-")[0]}
        pieces.append(Piece(encode(headers, json.dumps(value).encode())))
    return Script(pieces, headers=FRAMES)


@pytest.fixture
def ask(gate: Gate) -> Callable[..., Any]:
    """Call a method of boto3's client in a thread. It sends a bearer token over https only, so the
    header is put in by hand here."""

    async def call(key: str, target: str, method: str, **more: Any) -> Any:
        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=f"{gate.url}/v1/rewrite/bedrock/{target}",
            config=Config(signature_version=UNSIGNED),
        )

        def authorize(request: Any, **_: Any) -> None:
            request.headers["authorization"] = f"Bearer {key}"

        client.meta.events.register("before-sign", authorize)

        def work() -> Any:
            answer = getattr(client, method)(**more)
            if "stream" not in answer:
                return answer
            with closing(answer["stream"]) as events:
                return list(events)

        try:
            return await asyncio.to_thread(work)
        finally:
            client.close()

    return call


@pytest.mark.parametrize("target", [GPT, CLAUDE])
async def test_boto3_elsewhere(gate: Gate, ask: Callable[..., Any], target: str) -> None:
    payer, asked = await gate.payer(), {"modelId": "sim-5-0-in7", "messages": TURN}
    whole = await ask(payer.token(), target, "converse", **asked)
    assert whole["output"]["message"]["content"][0]["text"].split()[-1] == "five"
    assert (whole["stopReason"], whole["usage"]["totalTokens"]) == ("end_turn", 12)
    events = await ask(payer.token(), target, "converse_stream", **asked)
    deltas = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]
    assert "".join(delta["text"] for delta in deltas).split()[-1] == "five"
    assert events[-1]["metadata"]["usage"]["inputTokens"] == 7
    assert events[-2]["messageStop"]["stopReason"] == "end_turn"
    rows = await gate.rows(payer)
    assert [row["charge_e10"] for row in rows] == [12 * TOKEN_E10] * 2
    assert not [n for n in gate.sim.requests[-1].headers if n.startswith(("amz-sdk", "x-amz"))]


async def test_boto3s_tools_at_openai(gate: Gate, ask: Callable[..., Any]) -> None:
    payer, model = await gate.payer("10.00"), fresh_model()
    made = [
        choice({"tool_calls": [{"index": 0, "id": "c9", "function": {"name": "weather"}}]}),
        choice({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
        choice({"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]}),
        choice({}, "tool_calls"),
    ]
    gate.sim.script[model] = gpt_stream(made)
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    events = await ask(
        payer.token(),
        GPT,
        "converse_stream",
        modelId=model,
        system=[{"text": "be brief"}],
        messages=[
            *TURN,
            {
                "role": "assistant",
                "content": [
                    {"toolUse": {"toolUseId": "t0", "name": "weather", "input": {"city": "Rome"}}}
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "t0", "content": [{"json": {"sun": True}}]}},
                    {"image": {"format": "png", "source": {"bytes": b"pixels"}}},
                ],
            },
        ],
        inferenceConfig={"maxTokens": 200, "temperature": 0.5, "stopSequences": ["END"]},
        toolConfig={
            "tools": [
                {
                    "toolSpec": {
                        "name": "weather",
                        "description": "w",
                        "inputSchema": {"json": schema},
                    }
                }
            ],
            "toolChoice": {"any": {}},
        },
    )
    start = next(e["contentBlockStart"] for e in events if "contentBlockStart" in e)
    assert start["start"]["toolUse"] == {"toolUseId": "c9", "name": "weather"}
    deltas = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]
    assert "".join(d["toolUse"]["input"] for d in deltas) == '{"city":"Oslo"}'
    body = json.loads(gate.seen(model)[-1].body)
    assert (body["max_completion_tokens"], body["stop"]) == (200, ["END"])
    assert body["tool_choice"] == "required"
    assert body["tools"][0]["function"] == {
        "name": "weather",
        "description": "w",
        "parameters": schema,
    }
    system, _, assistant, result, image = body["messages"]
    assert system["content"] == "be brief"
    assert assistant["tool_calls"][0]["function"]["arguments"] == '{"city":"Rome"}'
    assert result == {"role": "tool", "tool_call_id": "t0", "content": '{"sun":true}'}
    assert image["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")


async def test_errors_cuts_and_refusals_are_awss_own(gate: Gate, ask: Callable[..., Any]) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script.json({"error": {"message": "no such thing"}}, status=404)
    with pytest.raises(ClientError, match="no such thing") as caught:
        await ask(payer.token(), GPT, "converse", modelId=model, messages=TURN)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    poor = await gate.payer("0.0010")
    with pytest.raises(EventStreamError, match="budget_exhausted"):
        await ask(poor.token(), CLAUDE, "converse_stream", modelId="sim-2000-0", messages=TURN)
    assert (await gate.row(poor))["outcome"] == "cut_off"
    broke = await gate.payer("0.0000000001")
    with pytest.raises(ClientError, match="credit") as refused:
        await ask(broke.token(), CLAUDE, "converse", modelId="sim-5-0", messages=TURN)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 402


USAGE = {
    "inputTokens": 7,
    "outputTokens": 5,
    "totalTokens": 15,
    "cacheReadInputTokens": 2,
    "cacheWriteInputTokens": 1,
}
BLOCKS: Any = [
    {"text": "Let me look."},
    {"toolUse": {"toolUseId": "t0", "name": "weather", "input": {"city": "Rome"}}},
]
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("messageStart", {"role": "assistant"}),
    ("contentBlockDelta", {"delta": {"text": "Let me"}, "contentBlockIndex": 0}),
    ("contentBlockDelta", {"delta": {"text": " look."}, "contentBlockIndex": 0}),
    ("contentBlockStop", {"contentBlockIndex": 0}),
    (
        "contentBlockStart",
        {"start": {"toolUse": {"toolUseId": "t0", "name": "weather"}}, "contentBlockIndex": 1},
    ),
    ("contentBlockDelta", {"delta": {"toolUse": {"input": '{"city"'}}, "contentBlockIndex": 1}),
    ("contentBlockDelta", {"delta": {"toolUse": {"input": ':"Rome"}'}}, "contentBlockIndex": 1}),
    ("contentBlockStop", {"contentBlockIndex": 1}),
    ("messageStop", {"stopReason": "tool_use"}),
    ("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_openais_sdk_at_bedrock(gate: Gate, stream: bool) -> None:
    payer = await gate.payer()
    gate.sim.script[_path("converse-stream")] = _frames(*EVENTS)
    message = {"role": "assistant", "content": BLOCKS}
    gate.sim.script[_path("converse")] = Script.json(
        {
            "output": {"message": message},
            "stopReason": "tool_use",
            "usage": USAGE,
            "metrics": {"latencyMs": 1},
        }
    )
    # The URL says one thing, the request another: the request says whether to stream.
    target = HOST + _path("converse" if stream else "converse-stream")
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    asked: Any = {"model": "any", "messages": HELLO, "tools": tools, "max_tokens": 50}
    async with openai_at(gate, target, payer.token()) as client:
        made: Any
        if stream:
            more: Any = {"stream_options": {"include_usage": True}}
            async with client.chat.completions.stream(**asked, **more) as events:
                made = await events.get_final_completion()
        else:
            made = await client.chat.completions.create(**asked)
    found = made.choices[0]
    assert (found.message.content, found.finish_reason) == ("Let me look.", "tool_calls")
    call = found.message.tool_calls[0]
    assert (call.id, json.loads(call.function.arguments)) == ("t0", {"city": "Rome"})
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (10, 5)
    assert made.model == NOVA
    seen = gate.sim.requests[-1]
    assert seen.path == _path("converse-stream" if stream else "converse")
    assert seen.headers["authorization"] == f"Bearer {MANAGED['bedrock']}"
    assert json.loads(seen.body)["toolConfig"]["tools"][0]["toolSpec"]["name"] == "weather"
    row = await gate.row(payer)
    assert (row["provider"], row["charge_e10"]) == ("bedrock", 15 * TOKEN_E10)


async def test_bedrocks_errors_for_others(gate: Gate) -> None:
    payer, key = await gate.payer(), MANAGED["bedrock"]
    async with openai_at(gate, HOST + _path("converse"), payer.token(), max_retries=0) as client:
        gate.sim.script[_path("converse")] = Script.json({"message": f"bad {key}"}, status=429)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="any", messages=HELLO, max_tokens=9)
        assert "bad ***" in str(caught.value)
        assert key not in str(caught.value)
        wrong = ("throttlingException", {"message": f"slow {key}"})
        gate.sim.script[_path("converse-stream")] = _frames(*EVENTS[:3], wrong)
        stream = await client.chat.completions.create(
            model="any", messages=HELLO, max_tokens=9, stream=True
        )
        with pytest.raises(openai.APIError) as within:
            [chunk async for chunk in stream]
        assert "slow ***" in str(within.value)
        assert key not in str(within.value)


async def test_a_key_in_anothers_error_does_not_break_a_frame(
    gate: Gate, ask: Callable[..., Any]
) -> None:
    payer, model = await gate.payer(), fresh_model()
    wrong = {"error": {"message": f"no such key: {MANAGED['openai']}"}}
    gate.sim.script[model] = gpt_stream([choice({"content": "x"}), wrong])
    with pytest.raises(EventStreamError, match=r"no such key: \*\*\*"):
        await ask(payer.token(), GPT, "converse_stream", modelId=model, messages=TURN)


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
        {"parallel_tool_calls": False},
        {"reasoning_effort": "low"},
        {
            "tools": [{"type": "function", "function": {"name": "weather"}}],
            "tool_choice": "none",
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b"}}],
                }
            ]
        },
    ],
)
async def test_what_bedrock_cannot_say_is_refused(gate: Gate, more: dict[str, Any]) -> None:
    payer = await gate.payer()
    body = {"model": "any", "messages": HELLO, "max_tokens": 9} | more
    path = f"/v1/rewrite/openai/{HOST}{_path('converse')}"
    answer = await gate.call(path, body, payer)
    assert answer.status == 422, answer.body
    assert gate.sim.requests == []


async def test_anthropics_sdk_at_bedrock(gate: Gate) -> None:
    """Claude's own words pass: thinking with its signature, top_k."""
    payer, model = await gate.payer(), "anthropic.claude-x-v1:0"
    thought = {"reasoningContent": {"text": "hm"}}
    signed = {"reasoningContent": {"signature": "s"}}
    deltas = [
        ("contentBlockDelta", {"delta": d, "contentBlockIndex": 0}) for d in (thought, signed)
    ]
    gate.sim.script[_path("converse-stream", model)] = _frames(EVENTS[0], *deltas, *EVENTS[4:])
    target = HOST + _path("converse", model)
    history: Any = [
        *HELLO,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "so", "signature": "old"},
                {"type": "text", "text": "yes"},
            ],
        },
        *HELLO,
    ]
    async with anthropic_at(gate, target, payer.token()) as client:
        async with client.messages.stream(
            model="any",
            messages=history,
            max_tokens=3000,
            thinking={"type": "enabled", "budget_tokens": 1024},
            extra_body={"top_k": 5},
        ) as events:
            made: anthropic.types.Message = await events.get_final_message()
    first: Any = made.content[0]
    assert (first.type, first.thinking, first.signature) == ("thinking", "hm", "s")
    body = json.loads(gate.sim.requests[-1].body)
    assert body["additionalModelRequestFields"] == {
        "top_k": 5,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    assert body["messages"][1]["content"][0] == {
        "reasoningContent": {"reasoningText": {"text": "so", "signature": "old"}}
    }
