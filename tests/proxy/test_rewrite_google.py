"""Google's dialect through `/v1/rewrite`: its SDK elsewhere, and other SDKs at Google."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from gateway_kit import TOKEN_E10, Gate, fresh_model
from google import genai
from google.genai import errors as genai_errors
from rewrite_kit import CLAUDE, GPT, HELLO, anthropic_at, choice, gpt_stream, openai_at

from lava_proxy.net.simulated import Piece, Script

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # google-genai's own client inherits from aiohttp's.
    pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning"),
]

HOST = "https://generativelanguage.googleapis.com"
PIXEL = "iVBORw0KGgo="
SCHEMA = {"type": "OBJECT", "properties": {"city": {"type": "STRING", "nullable": True}}}


def gemini(model: str, verb: str = "generateContent") -> str:
    return f"{HOST}/v1beta/models/{model}:{verb}"


@asynccontextmanager
async def genai_at(gate: Gate, target: str, key: str) -> AsyncIterator[Any]:
    base = f"{gate.url}/v1/rewrite/google/{target}"
    client = genai.Client(api_key=key, http_options={"base_url": base})
    try:
        yield client.aio.models
    finally:
        await client.aio.aclose()


@pytest.mark.parametrize("target", [GPT, CLAUDE])
@pytest.mark.parametrize("stream", [False, True])
async def test_googles_sdk_elsewhere(gate: Gate, target: str, stream: bool) -> None:
    payer = await gate.payer()
    asked: Any = {"model": "sim-5-0-in7", "contents": "hello"}
    async with genai_at(gate, target, payer.token()) as models:
        if stream:
            parts = [part async for part in await models.generate_content_stream(**asked)]
        else:
            parts = [await models.generate_content(**asked)]
    assert "".join(part.text or "" for part in parts).split()[-1] == "five"
    last = parts[-1]
    assert last.candidates[0].finish_reason.value == "STOP"
    usage = last.usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count) == (7, 5)
    row = await gate.row(payer)
    assert (row["outcome"], row["charge_e10"]) == ("completed", 12 * TOKEN_E10)
    assert "x-goog-api-key" not in gate.sim.requests[-1].headers
    assert gate.sim.requests[-1].query == ""


@pytest.mark.parametrize("stream", [False, True])
async def test_openais_sdk_at_google(gate: Gate, stream: bool) -> None:
    payer, model = await gate.payer(), "sim-5-0-in7-cache3-think2"
    async with openai_at(gate, gemini(model), payer.token()) as client:
        made: Any
        if stream:
            events = client.chat.completions.stream(
                model="any", messages=HELLO, stream_options={"include_usage": True}
            )
            async with events as opened:
                made = await opened.get_final_completion()
        else:
            made = await client.chat.completions.create(model="any", messages=HELLO)
    assert made.choices[0].message.content.split()[-1] == "five"
    assert (made.choices[0].finish_reason, made.model) == ("stop", model)
    usage = made.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 7)
    assert usage.prompt_tokens_details.cached_tokens == 3
    assert usage.completion_tokens_details.reasoning_tokens == 2
    seen = gate.sim.requests[-1]
    verb = "streamGenerateContent" if stream else "generateContent"
    assert (seen.path, seen.query) == (
        f"/v1beta/models/{model}:{verb}",
        "alt=sse" if stream else "",
    )
    assert seen.headers["x-goog-api-key"].startswith("managed-key-of-google")
    row = await gate.row(payer)
    assert (row["model"], row["charge_e10"]) == (model, 14 * TOKEN_E10)


async def test_googles_request_at_openai(gate: Gate) -> None:
    payer, model = await gate.payer("10.00"), fresh_model()
    answer = [
        choice({"tool_calls": [{"index": 0, "id": "c9", "function": {"name": "weather"}}]}),
        choice({"tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}]}),
        choice({"tool_calls": [{"index": 0, "function": {"arguments": ':"Oslo"}'}}]}),
        choice({}, "tool_calls"),
    ]
    gate.sim.script[model] = gpt_stream(answer)
    call = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}
    result = {"functionResponse": {"name": "weather", "response": {"result": "sunny"}}}
    async with genai_at(gate, GPT, payer.token()) as models:
        parts = await models.generate_content_stream(
            model=model,
            contents=[
                {
                    "role": "user",
                    "parts": [
                        {"text": "weather?"},
                        {"inline_data": {"mime_type": "image/png", "data": PIXEL}},
                    ],
                },
                {"role": "model", "parts": [{"text": "Let me look."}, call, call]},
                {"role": "user", "parts": [result, result]},
            ],
            config={
                "system_instruction": "be brief",
                "temperature": 0.5,
                "max_output_tokens": 200,
                "stop_sequences": ["END"],
                "safety_settings": [
                    {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}
                ],
                "tools": [
                    {
                        "function_declarations": [
                            {"name": "weather", "description": "w", "parameters": SCHEMA}
                        ]
                    }
                ],
                "tool_config": {
                    "function_calling_config": {
                        "mode": "ANY",
                        "allowed_function_names": ["weather"],
                    }
                },
            },
        )
        found = [part async for part in parts]
    made = found[-1].candidates[0].content.parts[-1].function_call
    assert (made.name, made.args) == ("weather", {"city": "Oslo"})
    body = json.loads(gate.seen(model)[-1].body)
    city = {"type": ["string", "null"]}
    assert body["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {"city": city},
    }
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert (body["max_completion_tokens"], body["stop"]) == (200, ["END"])
    system, user, assistant, *results = body["messages"]
    assert system == {"role": "system", "content": "be brief"}
    assert user["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert len(set(ids)) == 2
    assert results == [
        {"role": "tool", "tool_call_id": call_id, "content": "sunny"} for call_id in ids
    ]


async def test_openais_tools_at_google(gate: Gate) -> None:
    payer, model = await gate.payer(), "gemini-3-test"
    parts = [
        {"text": "hm", "thought": True},
        {"text": "Let me look."},
        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
        {"functionCall": {"name": "now", "args": {}}},
    ]
    chunk = {"responseId": "r+1", "candidates": [{"content": {"parts": parts}}]}
    end = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3}}
    gate.sim.script[model] = Script(
        [Piece(b"data: %b\r\n\r\n" % json.dumps(each).encode()) for each in (chunk, end)]
    )
    calls: Any = [
        {"id": "x", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    ]
    async with openai_at(gate, gemini("m"), payer.token(), max_retries=0) as client:
        stream = client.chat.completions.stream(
            model="any",
            messages=[
                *HELLO,
                {"role": "assistant", "tool_calls": calls},
                {"role": "tool", "tool_call_id": "x", "content": "sunny"},
            ],
            tools=[{"type": "function", "function": {"name": "weather", "parameters": {}}}],
            extra_headers={"x-lava-fallbacks": json.dumps([{"url": gemini("m"), "model": model}])},
            reasoning_effort="low",
        )
        gate.sim.script["m"] = Script.json({"error": {"code": 503}}, status=503)
        async with stream as opened:
            made = await opened.get_final_completion()
    message = made.choices[0].message
    assert (message.content, made.choices[0].finish_reason) == ("Let me look.", "tool_calls")
    found: Any = message.tool_calls
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in found] == [
        ("call_r1_0", "weather", {"city": "Rome"}),
        ("call_r1_1", "now", {}),
    ]
    body = json.loads(gate.seen(model)[-1].body)
    _, asked, answered = body["contents"]
    assert asked["parts"][0]["thoughtSignature"] == "skip_thought_signature_validator"
    assert answered["parts"] == [
        {"functionResponse": {"name": "weather", "response": {"result": "sunny"}}}
    ]
    assert body["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "LOW"


async def test_errors_cuts_and_refusals_are_googles_own(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script.json({"error": {"message": "no such thing"}}, status=404)
    async with genai_at(gate, GPT, payer.token()) as models:
        with pytest.raises(genai_errors.ClientError, match="no such thing") as caught:
            await models.generate_content(model=model, contents="hi")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
    poor = await gate.payer("0.0010")
    async with genai_at(gate, CLAUDE, poor.token()) as models:
        parts = await models.generate_content_stream(model="sim-2000-0", contents="hi")
        with pytest.raises(genai_errors.ClientError, match="budget_exhausted") as cut:
            [part async for part in parts]
        assert cut.value.code == 402
    assert (await gate.row(poor))["outcome"] == "cut_off"
    broke = await gate.payer("0.0000000001")
    async with genai_at(gate, CLAUDE, broke.token()) as models:
        with pytest.raises(genai_errors.ClientError) as refused:
            await models.generate_content(model="sim-5-0", contents="hi")
    assert (refused.value.code, refused.value.status) == (402, "RESOURCE_EXHAUSTED")


async def test_googles_errors_for_others(gate: Gate) -> None:
    payer, model = await gate.payer(), "sim-5-0-fail429"
    async with openai_at(gate, gemini(model), payer.token(), max_retries=0) as client:
        with pytest.raises(openai.RateLimitError, match="simulated failure"):
            await client.chat.completions.create(model="any", messages=HELLO)
    wrong = b'data: {"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}\r\n\r\n'
    gate.sim.script["broken"] = Script([Piece(wrong)])
    async with openai_at(gate, gemini("broken"), payer.token(), max_retries=0) as client:
        stream = await client.chat.completions.create(model="any", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="overloaded"):
            [chunk async for chunk in stream]


async def test_a_cut_at_google_is_the_clients_own(gate: Gate) -> None:
    poor = await gate.payer("0.0010")
    async with openai_at(gate, gemini("sim-2000-0"), poor.token()) as client:
        stream = await client.chat.completions.create(model="any", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as caught:
            [chunk async for chunk in stream]
    assert caught.value.code == "budget_exhausted"


async def test_without_sse_the_stream_is_one_array(gate: Gate) -> None:
    payer = await gate.payer()
    body = {"contents": [{"parts": [{"text": "hi"}]}]}
    path = f"/v1/rewrite/google/{GPT}/v1beta/models/sim-3-0:streamGenerateContent"
    answer = await gate.call(path, body, payer)
    parts = answer.json()
    assert answer.header("content-type") == "application/json"
    assert parts[-1]["candidates"][0]["finishReason"] == "STOP"
    poor = await gate.payer("0.0010")
    cut = await gate.call(path.replace("sim-3-0", "sim-2000-0"), body, poor)
    assert json.loads(cut.body)[-1]["error"]["code"] == 402


async def test_the_model_may_stand_in_the_body(gate: Gate) -> None:
    payer = await gate.payer()
    body = {"model": "sim-3-0", "contents": [{"parts": [{"text": "hi"}]}]}
    answer = await gate.call(f"/v1/rewrite/google/{GPT}", body, payer)
    assert answer.json()["candidates"][0]["content"]["parts"][0]["text"].split()[0] == "one"


async def test_a_google_client_falls_back(gate: Gate) -> None:
    """From Google to another model there, and to another dialect; streamed and not."""
    payer, down = await gate.payer(), "sim-5-0-fail503"
    for step, verb in ((gemini("m"), "generateContent"), (CLAUDE, "streamGenerateContent")):
        chain = json.dumps([{"url": step, "model": "sim-4-0"}])
        path = f"/v1/rewrite/google/{gemini(down, verb)}?alt=sse"
        body = {"contents": [{"parts": [{"text": "hi"}]}]}
        answer = await gate.call(path, body, payer, {"x-lava-fallbacks": chain})
        assert (answer.status, b"four" in answer.body) == (200, True)
        assert answer.body.startswith(b"data:") == (verb != "generateContent")
    async with anthropic_at(gate, gemini("sim-4-0"), payer.token()) as client:
        made: Any = await client.messages.create(model="any", messages=HELLO, max_tokens=50)
    assert made.content[0].text.split()[-1] == "four"
