"""Recorded traffic looks the same to an SDK with and without the gateway; the synchronous clients.

What every SDK makes of a cut, a refusal and an error: `test_sdk_matrix.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest
import recorded
from gateway_kit import Gate, Payer
from google import genai
from google.genai import errors as genai_errors
from sdk_clients import HELLO, Ask, chat, completions, embeddings, gemini, messages, responses

from lava_proxy.net.simulated import Piece, Script

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # google-genai's own client inherits from aiohttp's.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]

DIALECTS: dict[tuple[str, str], tuple[Ask, str]] = {
    ("openai", "chat"): (chat, "openai/v1"),
    ("openai", "completions"): (completions, "openai/v1"),
    ("openai", "responses"): (responses, "openai/v1"),
    ("openai", "embeddings"): (embeddings, "openai/v1"),
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
    _, _, version = provider.partition("/")
    direct = await _outcome(ask(f"{gate.sim.url}/{version}", "k", model, row["stream"]))
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


def _check_cut(error: Exception) -> None:
    assert "budget_exhausted" in str(error)
    if isinstance(error, genai_errors.ClientError):
        assert error.code == 402
    if isinstance(error, openai.APIError):
        assert error.code == "budget_exhausted"


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
