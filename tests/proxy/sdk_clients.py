"""The official Python SDKs, each as one function: ask for a text, give everything that came.

Every function takes the base URL, the key, the model and whether to stream, and returns what the
SDK handed out as plain values. No setting of the SDKs is changed: retries and parsing are theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import boto3
import cohere
import fireworks
import groq
import openai
import perplexity
import together
from botocore import UNSIGNED
from botocore.config import Config
from cerebras.cloud.sdk import AsyncCerebras
from google import genai
from mistralai.client import Mistral

HELLO: Any = [{"role": "user", "content": "hello there"}]
Ask = Callable[[str, str, str, bool], Awaitable[list[Any]]]


@asynccontextmanager
async def openai_at(base: str, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base, api_key=key) as client:
        yield client


@asynccontextmanager
async def anthropic_at(base: str, key: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=base, api_key=key) as client:
        yield client


@asynccontextmanager
async def genai_at(base: str, key: str) -> AsyncIterator[Any]:
    client = genai.Client(api_key=key, http_options={"base_url": base})
    try:
        yield client.aio
    finally:
        await client.aio.aclose()
        client.close()


async def dumped(made: Any, stream: bool) -> list[Any]:
    """Everything the SDK handed out, as plain values. Where it raises on the way, the error's note
    is the last item: some hand out the error event itself before the connection breaks."""
    if not stream:
        return [made.model_dump(warnings=False)]
    items: list[Any] = []
    try:
        async for item in made:
            items.append(item.model_dump(warnings=False))
    except Exception as error:
        error.add_note(str(items[-1:]))
        raise
    return items


async def chat(base: str, key: str, model: str, stream: bool) -> list[Any]:
    more: Any = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with openai_at(base, key) as client:
        made = await client.chat.completions.create(model=model, messages=HELLO, **more)
        return await dumped(made, stream)


async def completions(base: str, key: str, model: str, stream: bool) -> list[Any]:
    more: Any = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with openai_at(base, key) as client:
        made = await client.completions.create(model=model, prompt="hello", **more)
        return await dumped(made, stream)


async def responses(base: str, key: str, model: str, stream: bool) -> list[Any]:
    async with openai_at(base, key) as client:
        made: Any = await client.responses.create(model=model, input="hello", stream=stream)
        return await dumped(made, stream)


async def embeddings(base: str, key: str, model: str, _stream: bool) -> list[Any]:
    async with openai_at(base, key) as client:
        made = await client.embeddings.create(model=model, input="hello", encoding_format="float")
        return [made.model_dump(warnings=False)]


async def messages(base: str, key: str, model: str, stream: bool) -> list[Any]:
    async with anthropic_at(base, key) as client:
        made = await client.messages.create(
            model=model, messages=HELLO, max_tokens=900, stream=stream
        )
        return await dumped(made, stream)


async def gemini(base: str, key: str, model: str, stream: bool) -> list[Any]:
    async with genai_at(base, key) as client:
        if stream:
            made = await client.models.generate_content_stream(model=model, contents="hello")
        else:
            made = await client.models.generate_content(model=model, contents="hello")
        answers = await dumped(made, stream)
    for answer in answers:
        answer.pop("sdk_http_response", None)  # the head: ours is shorter
    return answers


async def mistral(base: str, key: str, model: str, stream: bool) -> list[Any]:
    async with Mistral(api_key=key, server_url=base) as client:
        if stream:
            return await dumped(await client.chat.stream_async(model=model, messages=HELLO), True)
        return await dumped(await client.chat.complete_async(model=model, messages=HELLO), False)


async def cohere_v2(base: str, key: str, model: str, stream: bool) -> list[Any]:
    async with cohere.AsyncClientV2(key, base_url=base) as client:
        if stream:
            return await dumped(client.chat_stream(model=model, messages=HELLO), True)
        return await dumped(await client.chat(model=model, messages=HELLO), False)


def _like_openai(client_type: Any) -> Ask:
    """SDKs made by the generator that makes OpenAI's: the same call under another name."""

    async def ask(base: str, key: str, model: str, stream: bool) -> list[Any]:
        # Made in a thread: Cerebras' client warms its connection up, blocking, as it is made.
        client = await asyncio.to_thread(client_type, base_url=base, api_key=key)
        async with client:
            made = await client.chat.completions.create(model=model, messages=HELLO, stream=stream)
            return await dumped(made, stream)

    return ask


def _bedrock(
    base: str, key: str, model: str, stream: bool, call: Callable[[Any, str, bool], list[Any]]
) -> list[Any]:
    """boto3 sends a Bedrock API key (AWS_BEARER_TOKEN_BEDROCK) over https only, and this server has
    none: the header that it would make is put in by a hook."""
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=base,
        config=Config(signature_version=UNSIGNED),
    )

    def bear(request: Any, **_: object) -> None:
        request.headers["authorization"] = f"Bearer {key}"

    client.meta.events.register("before-send.bedrock-runtime.*", bear)
    try:
        return call(client, model, stream)
    finally:
        client.close()


async def converse(base: str, key: str, model: str, stream: bool) -> list[Any]:
    def call(client: Any, model: str, stream: bool) -> list[Any]:
        asked = {"modelId": model, "messages": [{"role": "user", "content": [{"text": "hello"}]}]}
        if stream:
            return list(client.converse_stream(**asked)["stream"])
        return [client.converse(**asked)["output"]]

    return await asyncio.to_thread(_bedrock, base, key, model, stream, call)


async def invoke(base: str, key: str, model: str, stream: bool) -> list[Any]:
    def call(client: Any, model: str, stream: bool) -> list[Any]:
        asked = {"modelId": model, "body": b'{"prompt":"hello"}'}
        if stream:
            body = client.invoke_model_with_response_stream(**asked)["body"]
            return [{"text": piece["chunk"]["bytes"].decode()} for piece in body]
        return [{"text": client.invoke_model(**asked)["body"].read().decode()}]

    return await asyncio.to_thread(_bedrock, base, key, model, stream, call)


CLIENTS: dict[str, Ask] = {
    "openai chat": chat,
    "openai completions": completions,
    "openai responses": responses,
    "anthropic messages": messages,
    "google-genai generateContent": gemini,
    "mistralai chat": mistral,
    "cohere chat": cohere_v2,
    "groq chat": _like_openai(groq.AsyncGroq),
    "together chat": _like_openai(together.AsyncTogether),
    "cerebras-cloud-sdk chat": _like_openai(AsyncCerebras),
    "perplexityai chat": _like_openai(perplexity.AsyncPerplexity),
    "fireworks-ai chat": _like_openai(fireworks.AsyncFireworks),
    "boto3 converse": converse,
    "boto3 invoke": invoke,
}
"""By name of package and API, as in `sdk_matrix.ROWS`."""
