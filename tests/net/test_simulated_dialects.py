"""The simulated provider's dialects, read by the providers' own SDKs and byte by byte."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest
from sim_wire import HI, answered, exchange, post

from lava_proxy.net.simulated import SimulatedProvider


@pytest.fixture
async def sim() -> AsyncIterator[SimulatedProvider]:
    async with SimulatedProvider() as provider:
        yield provider


@contextlib.asynccontextmanager
async def openai_client(sim: SimulatedProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="sk-test", base_url=f"{sim.url}/v1", max_retries=0
    ) as client:
        yield client


@contextlib.asynccontextmanager
async def anthropic_client(sim: SimulatedProvider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        api_key="sk-test", base_url=sim.url, max_retries=0
    ) as client:
        yield client


async def test_openai_chat_json(sim: SimulatedProvider) -> None:
    async with openai_client(sim) as client:
        answer = await client.chat.completions.create(model="sim-5-0", messages=HI)
    assert answer.choices[0].message.content == " one two three four five"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 5)
    assert sim.requests[0].tokens_sent == 5


async def test_openai_chat_stream_with_usage(sim: SimulatedProvider) -> None:
    async with openai_client(sim) as client:
        stream = await client.chat.completions.create(
            model="sim-4-1-think3-cache2",
            messages=HI,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 7
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 3
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 2
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == " one two three four"


async def test_usage_chunk_only_on_request(sim: SimulatedProvider) -> None:
    asked = {"model": "sim-2-0", "messages": HI, "stream": True}
    _, plain, complete = await answered(sim, "/v1/chat/completions", asked)
    assert complete
    assert b"usage" not in plain
    assert plain.endswith(b"data: [DONE]\n\n")
    asked["stream_options"] = {"include_usage": True}
    _, content, _ = await answered(sim, "/v1/chat/completions", asked)
    events = content.split(b"\n\n")
    assert [b'"usage":null' in event for event in events[:4]] == [True] * 4
    assert b'"choices":[],"usage":{' in events[4]


async def test_openai_choices_multiply(sim: SimulatedProvider) -> None:
    async with openai_client(sim) as client:
        answer = await client.chat.completions.create(model="sim-3-0", messages=HI, n=2)
    assert len(answer.choices) == 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6


async def test_openai_completions(sim: SimulatedProvider) -> None:
    async with openai_client(sim) as client:
        answer = await client.completions.create(model="sim-9-0", prompt="say", max_tokens=2)
        stream = await client.completions.create(model="sim-2-0", prompt=[1, 2, 3], stream=True)
        texts = [chunk.choices[0].text async for chunk in stream]
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text == " one two"
    assert texts == [" one", " two", ""]


async def test_openai_responses(sim: SimulatedProvider) -> None:
    async with openai_client(sim) as client:
        answer = await client.responses.create(model="sim-3-0-think4", input="hello there")
        stream = await client.responses.create(
            model="sim-9-0", input="hello", stream=True, max_output_tokens=2
        )
        events = [event async for event in stream]
    assert answer.output_text == " one two three"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 7
    assert answer.usage.output_tokens_details.reasoning_tokens == 4
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 2
    assert last.response.output_text == " one two"


async def test_openai_embeddings_and_models(sim: SimulatedProvider) -> None:
    async with openai_client(sim) as client:
        packed = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        plain = await client.embeddings.create(
            model="text-embedding-3-small", input="a", dimensions=4, encoding_format="float"
        )
        models = [model.id async for model in client.models.list()]
    assert [len(row.embedding) for row in packed.data] == [1536, 1536]
    assert plain.data[0].embedding == [0.5] * 4
    assert packed.usage.prompt_tokens == 1
    assert "sim-40-20" in models


async def test_openai_errors(sim: SimulatedProvider) -> None:
    async with openai_client(sim) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="sim-1-0-fail429", messages=HI)
        with pytest.raises(openai.NotFoundError):
            await client.files.list()
    raw = await exchange(sim, post("/v1/chat/completions", [1], "Connection: close"))
    assert raw.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    raw = await exchange(sim, b"GET /v1/responses HTTP/1.1\r\nconnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")


async def test_anthropic_messages(sim: SimulatedProvider) -> None:
    async with anthropic_client(sim) as client:
        answer = await client.messages.create(model="sim-3-0-in9-cache4", messages=HI, max_tokens=9)
        async with client.messages.stream(model="sim-9-1", messages=HI, max_tokens=2) as stream:
            final = await stream.get_final_message()
        counted = await client.messages.count_tokens(model="sim-1-0", messages=HI)
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(model="sim-1-0-fail529", messages=HI, max_tokens=1)
    assert answer.content[0].text == " one two three"
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (5, 4)
    assert answer.usage.output_tokens == 3
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 2)
    assert final.content[0].text == " one two"
    assert counted.input_tokens == 3
    assert caught.value.status_code == 529


async def test_anthropic_stream_bytes(sim: SimulatedProvider) -> None:
    asked = {"model": "sim-2-0", "messages": HI, "max_tokens": 9, "stream": True}
    _, content, _ = await answered(sim, "/v1/messages", asked)
    names = re.findall(rb"^event: (\w+)$", content, re.MULTILINE)
    assert names == [
        b"message_start",
        b"content_block_start",
        b"ping",
        *[b"content_block_delta"] * 2,
        b"content_block_stop",
        b"message_delta",
        b"message_stop",
    ]
    for line in re.findall(rb"^data: (.*)$", content, re.MULTILINE):
        assert json.loads(line)["type"].encode() in names


GEMINI_ASK = {
    "contents": [{"role": "user", "parts": [{"text": "hello there"}]}],
    "generationConfig": {"maxOutputTokens": 6},
}


async def test_gemini_events_are_crlf_and_end_with_a_reason(sim: SimulatedProvider) -> None:
    path = "/v1beta/models/sim-9-1-think4:streamGenerateContent?alt=sse"
    head, content, complete = await answered(sim, path, GEMINI_ASK)
    assert complete
    assert b"text/event-stream" in head
    events = content.split(b"\r\n\r\n")
    assert events.pop() == b""
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert [chunk["usageMetadata"]["candidatesTokenCount"] for chunk in chunks] == [1, 2, 2]
    last = chunks[-1]
    assert last["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert last["usageMetadata"]["thoughtsTokenCount"] == 4
    assert last["usageMetadata"]["totalTokenCount"] == 3 + 4 + 2
    assert last["modelVersion"] == "sim-9-1-think4"


async def test_gemini_array_and_document(sim: SimulatedProvider) -> None:
    path = "/v1beta/models/sim-2-0:streamGenerateContent"
    head, content, _ = await answered(sim, path, GEMINI_ASK)
    assert b"application/json" in head
    assert len(json.loads(content)) == 3
    assert b",\r\n{" in content
    raw = await exchange(
        sim, post("/v1beta/models/sim-2-0:generateContent", GEMINI_ASK, "Connection: close")
    )
    document = json.loads(raw.partition(b"\r\n\r\n")[2])
    assert document["candidates"][0]["content"]["parts"] == [{"text": " one two"}]
    assert document["candidates"][0]["finishReason"] == "STOP"
