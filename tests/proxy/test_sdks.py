"""The official SDKs through the gateway: the same objects as without it, and their own errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest
import recorded
from gateway_kit import TOKEN_E10, Gate, Payer
from google import genai
from google.genai import errors as genai_errors

from lava_proxy.net.simulated import Piece, Script
from lava_proxy.proxy import forward

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # google-genai's own client inherits from aiohttp's.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]

HELLO: Any = [{"role": "user", "content": "hello there"}]


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


async def _dumped(made: Any, stream: bool) -> list[Any]:
    """Everything the SDK handed out, as plain values."""
    if not stream:
        return [made.model_dump(warnings=False)]
    return [item.model_dump(warnings=False) async for item in made]


async def chat(base: str, key: str, model: str, stream: bool) -> list[Any]:
    more: Any = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with openai_at(f"{base}/v1", key) as client:
        made = await client.chat.completions.create(model=model, messages=HELLO, **more)
        return await _dumped(made, stream)


async def completions(base: str, key: str, model: str, stream: bool) -> list[Any]:
    more: Any = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with openai_at(f"{base}/v1", key) as client:
        made = await client.completions.create(model=model, prompt="hello", **more)
        return await _dumped(made, stream)


async def responses(base: str, key: str, model: str, stream: bool) -> list[Any]:
    async with openai_at(f"{base}/v1", key) as client:
        made: Any = await client.responses.create(model=model, input="hello", stream=stream)
        return await _dumped(made, stream)


async def embeddings(base: str, key: str, model: str, _stream: bool) -> list[Any]:
    async with openai_at(f"{base}/v1", key) as client:
        made = await client.embeddings.create(model=model, input="hello", encoding_format="float")
        return [made.model_dump(warnings=False)]


async def messages(base: str, key: str, model: str, stream: bool) -> list[Any]:
    async with anthropic_at(base, key) as client:
        made = await client.messages.create(
            model=model, messages=HELLO, max_tokens=900, stream=stream
        )
        return await _dumped(made, stream)


async def gemini(base: str, key: str, model: str, stream: bool) -> list[Any]:
    async with genai_at(base, key) as client:
        if stream:
            made = await client.models.generate_content_stream(model=model, contents="hello")
        else:
            made = await client.models.generate_content(model=model, contents="hello")
        answers = await _dumped(made, stream)
    for answer in answers:
        answer.pop("sdk_http_response", None)  # the head: ours is shorter
    return answers


Ask = Callable[[str, str, str, bool], Awaitable[list[Any]]]
DIALECTS: dict[tuple[str, str], tuple[Ask, str]] = {
    ("openai", "chat"): (chat, "openai"),
    ("openai", "completions"): (completions, "openai"),
    ("openai", "responses"): (responses, "openai"),
    ("openai", "embeddings"): (embeddings, "openai"),
    ("anthropic", "messages"): (messages, "anthropic"),
    ("google-gemini", "generateContent"): (gemini, "google"),
}


def _rows() -> list[Any]:
    found = [
        pytest.param(row, id=row["file"])
        for row in recorded.rows()
        if (row["provider"], row["api"]) in DIALECTS and row["status"] == 200
    ]
    return found or [pytest.param(None, marks=pytest.mark.skip(recorded.ABSENT))]


def _served(row: dict[str, Any]) -> Script:
    raw = recorded.wire(row)
    if row["framing"] == "json":
        return Script.plain(raw)
    return Script([Piece(raw[at : at + 700]) for at in range(0, len(raw), 700)])


@pytest.mark.parametrize("row", _rows())
async def test_recordings_look_the_same(gate: Gate, row: dict[str, Any]) -> None:
    ask, provider = DIALECTS[row["provider"], row["api"]]
    payer, model = await gate.payer(), "recorded-model"
    gate.sim.script[model] = _served(row)
    direct = await _outcome(ask(gate.sim.url, "k", model, row["stream"]))
    ours = await _outcome(ask(f"{gate.url}/{provider}", payer.token(), model, row["stream"]))
    assert ours == direct
    booked = await gate.row(payer)
    expected = row["expected"]
    if expected and "iterations" not in expected:
        assert booked["input_tokens"] == expected.get("input_tokens", 0)
        assert booked["output_tokens"] == expected.get("output_tokens", 0)


async def _outcome(asked: Awaitable[list[Any]]) -> Any:
    """What came, or the error that the SDK raised for it."""
    try:
        return await asked
    except (openai.APIError, anthropic.APIError, genai_errors.APIError, ValueError) as error:
        return type(error), str(error)


SIMULATED = [
    (chat, "openai"),
    (completions, "openai"),
    (responses, "openai"),
    (messages, "anthropic"),
    (gemini, "google"),
]


@pytest.mark.parametrize(("ask", "provider"), SIMULATED)
@pytest.mark.parametrize("stream", [True, False])
async def test_simulated_answers_are_whole_and_billed(
    gate: Gate, ask: Ask, provider: str, stream: bool
) -> None:
    payer = await gate.payer()
    answers = await ask(f"{gate.url}/{provider}", payer.token(), "sim-12-0-in7", stream)
    assert " one two three four five six seven eight one two three four" in _text(answers)
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("completed", "provider")
    assert (row["input_tokens"], row["output_tokens"]) == (7, 12)
    assert row["charge_e10"] == 19 * TOKEN_E10


def _text(answers: list[Any]) -> str:
    """All text of an answer in any dialect, in order; the longest string wins where the end of a
    stream repeats the whole."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                if name in ("text", "content", "delta") and isinstance(item, str):
                    found.append(item)
                else:
                    walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(answers)
    return "".join(found)


CUT = [
    (chat, "openai", openai.APIError),
    (completions, "openai", openai.APIError),
    (responses, "openai", openai.APIError),
    (messages, "anthropic", anthropic.APIStatusError),
    (gemini, "google", genai_errors.ClientError),
]


def _check_cut(error: Exception) -> None:
    assert "budget_exhausted" in str(error)
    if isinstance(error, genai_errors.ClientError):
        assert error.code == 402
    if isinstance(error, openai.APIError):
        assert error.code == "budget_exhausted"


@pytest.mark.parametrize(("ask", "provider", "raised"), CUT)
async def test_a_cut_stream_raises_the_sdks_own_error(
    gate: Gate, ask: Ask, provider: str, raised: type[Exception]
) -> None:
    payer = await gate.payer("0.0010")
    with pytest.raises(raised) as caught:
        await ask(f"{gate.url}/{provider}", payer.token(), "sim-2000-0", True)
    _check_cut(caught.value)
    row = await gate.row(payer)
    assert row["outcome"] == "cut_off"
    assert 0 < row["charge_e10"] <= payer.credit_e10


@pytest.mark.parametrize(("ask", "provider", "raised"), CUT)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_raises_and_is_not_retried(
    gate: Gate,
    ask: Ask,
    provider: str,
    raised: type[Exception],
    stream: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    new_id = forward.new_id

    def counted(kind: str) -> str:
        made.append(kind)
        return new_id(kind)

    monkeypatch.setattr(forward, "new_id", counted)
    payer = await gate.payer("0.0000000001")
    with pytest.raises(raised) as caught:
        await ask(f"{gate.url}/{provider}", payer.token(), "sim-5-0", stream)
    status = getattr(caught.value, "status_code", None) or getattr(caught.value, "code", None)
    assert status == 402
    assert len(made) == 1
    assert await gate.rows(payer) == []
    assert gate.sim.requests == []


async def _threaded(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


async def test_the_synchronous_clients(gate: Gate) -> None:
    payer = await gate.payer("0.0040")
    text = await _threaded(lambda: _sync_openai(gate.url, payer, "sim-9-0"))
    assert len(text.split()) == 9
    text = await _threaded(lambda: _sync_anthropic(gate.url, payer, "sim-9-0"))
    assert len(text.split()) == 9
    text = await _threaded(lambda: _sync_gemini(gate.url, payer, "sim-9-0"))
    assert len(text.split()) == 9
    for call, raised in (
        (_sync_openai, openai.APIError),
        (_sync_anthropic, anthropic.APIStatusError),
        (_sync_gemini, genai_errors.ClientError),
    ):
        poor = await gate.payer("0.0010")
        with pytest.raises(raised) as caught:
            await _threaded(lambda call=call, poor=poor: call(gate.url, poor, "sim-2000-0"))
        _check_cut(caught.value)
        assert (await gate.row(poor))["outcome"] == "cut_off"


def _sync_openai(url: str, payer: Payer, model: str) -> str:
    with openai.OpenAI(base_url=f"{url}/openai/v1", api_key=payer.token()) as client:
        stream = client.chat.completions.create(model=model, messages=HELLO, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def _sync_anthropic(url: str, payer: Payer, model: str) -> str:
    with anthropic.Anthropic(base_url=f"{url}/anthropic", api_key=payer.token()) as client:
        with client.messages.stream(model=model, messages=HELLO, max_tokens=9000) as stream:
            return "".join(stream.text_stream)


def _sync_gemini(url: str, payer: Payer, model: str) -> str:
    client = genai.Client(api_key=payer.token(), http_options={"base_url": f"{url}/google"})
    try:
        stream = client.models.generate_content_stream(model=model, contents="hello")
        return "".join(chunk.text or "" for chunk in stream)
    finally:
        client.close()
