"""Every recording through the whole gateway: bytes out = bytes in, and the row says what the
provider said. All calls run at the same time, on one server, whole and split at random.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import recorded
from gateway_kit import Gate, forward_url
from plain_client import Answer

from lava_adapters.registry import Registry
from lava_proxy.net.simulated import Piece, Script, SimRequest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

KINDS = {
    "chat": "chat",
    "completions": "completions",
    "responses": "responses",
    "embeddings": "embeddings",
    "messages": "messages",
    "generateContent": "gemini",
}
PROVIDERS = {"google-gemini": "google", "google-vertex": "google", "hf-inference": "huggingface"}
PREDICT = "/v1/projects/p/locations/l/publishers/google/models/m-1:predict"
OTHERS = {
    # (provider, api): the provider's row, path, path of a stream
    ("google-gemini", "interactions"): ("google", "/v1beta/interactions", ""),
    ("google-gemini", "count-tokens"): ("google", "/v1beta/models/m-1:countTokens", ""),
    ("google-vertex", "count-tokens"): ("google", "/v1beta/models/m-1:countTokens", ""),
    ("google-vertex", "embeddings"): ("vertex", PREDICT, ""),
    ("anthropic", "count-tokens"): ("anthropic", "/v1/messages/count_tokens", ""),
    ("openai", "count-tokens"): ("openai", "/v1/responses/input_tokens", ""),
    ("openai", "responses-compact"): ("openai", "/v1/responses/compact", ""),
    ("openai", "moderations"): ("openai", "/v1/moderations", ""),
    ("openai", "images"): ("openai", "/v1/images/generations", ""),
    ("openai", "transcriptions"): ("openai", "/v1/audio/transcriptions", ""),
    ("aws-bedrock", "converse"): ("bedrock", "/model/m-1/converse", "/model/m-1/converse-stream"),
    ("aws-bedrock", "invoke"): (
        "bedrock", "/model/m-1/invoke", "/model/m-1/invoke-with-response-stream"),
    ("aws-bedrock", "count-tokens"): ("bedrock", "/model/m-1/count-tokens", ""),
    ("cohere", "chat-v1"): ("cohere", "/v1/chat", ""),
    ("cohere", "chat-v2"): ("cohere", "/v2/chat", ""),
    ("cohere", "generate-v1"): ("cohere", "/v1/generate", ""),
    ("cohere", "embed"): ("cohere", "/v2/embed", ""),
    ("cohere", "rerank"): ("cohere", "/v1/rerank", ""),
    ("writer", "chat-v1"): ("writer", "/v1/chat", ""),
    ("ollama", "ollama-chat"): ("ollama", "/api/chat", ""),
    ("ollama", "ollama-generate"): ("ollama", "/api/generate", ""),
    ("deepgram", "listen"): ("deepgram", "/v1/listen?model=m-1", ""),
    ("deepgram", "speak"): ("deepgram", "/v1/speak?model=m-1", ""),
    ("elevenlabs", "transcriptions"): ("elevenlabs", "/v1/speech-to-text", ""),
    ("mistral", "speech"): ("mistral", "/v1/audio/speech", ""),
    ("hyperbolic", "images"): ("hyperbolic", "/v1/image/generation", ""),
    ("replicate", "predictions"): ("replicate", "/v1/predictions", ""),
}  # fmt: skip
NOT_FORWARDED = {
    ("openai", "realtime"),  # frames of a WebSocket: an upgrade is answered 426
    ("aws-bedrock", "rerank"),  # of bedrock-agent-runtime, a host that is in no provider's row
}
TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "aws-eventstream": "application/vnd.amazon.eventstream",
    "binary": "audio/mpeg",
}
AT_ONCE = 32
TRIES = 10
SETTINGS = {"extension_wait_s": 20.0, "database_wait_s": 20.0, "database_timeout_s": 20.0}
"""What is compared here is bytes and counts: a machine with other work must not cut a stream."""
PAYERS = 8


@dataclass(frozen=True)
class Recorded:
    """One row of the index, and how to ask the gateway for it."""

    row: dict[str, Any]
    url: str
    request: bytes
    body: bytes


def _recorded() -> list[Recorded]:
    found = [
        _one(row) for row in recorded.rows() if (row["provider"], row["api"]) not in NOT_FORWARDED
    ]
    if not found:
        pytest.skip(recorded.ABSENT)
    return found


def _other(row: dict[str, Any]) -> Recorded:
    """One of the formats that only one provider speaks."""
    provider_id, path, stream_path = OTHERS[row["provider"], row["api"]]
    model = row["request"].get("request_model") or row["model"] or "m-1"
    asked: dict[str, Any] = {"model": model, "input": "hi", "prompt": "hi", "text": "hi"}
    asked |= {"messages": [{"role": "user", "content": "hi"}]} if "chat" in row["api"] else {}
    if row["stream"]:
        path = stream_path or path
        asked |= {"stream": True}
    url = _url(provider_id, path)
    return Recorded(row, url, json.dumps(asked).encode(), recorded.wire(row))


def _one(row: dict[str, Any]) -> Recorded:
    if (row["provider"], row["api"]) in OTHERS:
        return _other(row)
    provider_id = PROVIDERS.get(row["provider"], row["provider"])
    kind = KINDS[row["api"]]
    model = row["request"].get("request_model") or row["model"] or "m"
    if row["provider"] == "google-gemini" and kind == "embeddings":
        kind = "gemini"
    if kind == "gemini":
        verb = "streamGenerateContent" if row["stream"] else "generateContent"
        if row["api"] == "embeddings":
            verb = "batchEmbedContents"
        path = f"/v1beta/models/{model.rpartition('/')[2]}:{verb}"
        path += "?alt=sse" if row["stream"] else ""
        return Recorded(
            row,
            _url("google", path),
            b'{"contents":[{"parts":[{"text":"hi"}]}]}',
            recorded.wire(row),
        )
    asked: dict[str, Any] = {"model": model, "stream": True} if row["stream"] else {"model": model}
    asked |= {"input": "hi"} if kind in ("embeddings", "responses") else {}
    asked |= {"prompt": "hi"} if kind == "completions" else {}
    asked |= (
        {"messages": [{"role": "user", "content": "hi"}]} if kind in ("chat", "messages") else {}
    )
    asked |= {"max_tokens": 900} if kind == "messages" else {}
    path = _path(provider_id, kind)
    if path is None:
        provider_id = "anthropic" if kind == "messages" else "openai"
        path = _path(provider_id, kind)
    assert path is not None
    return Recorded(row, _url(provider_id, path), json.dumps(asked).encode(), recorded.wire(row))


def _path(provider_id: str, kind: str) -> str | None:
    provider = Registry.builtin().by_id(provider_id)
    routes = provider.routes if provider else ()
    return next((r.path for r in routes if r.kind == kind and "{" not in r.path), None)


def _url(provider_id: str, path: str) -> str:
    provider = Registry.builtin().by_id(provider_id)
    assert provider is not None
    return forward_url(f"https://{provider.hosts[0]}{path}")


def _pieces(body: bytes, seed: int | None) -> list[Piece]:
    if seed is None:
        return [Piece(body)]
    chance, pieces, at = random.Random(seed), [], 0
    while at < len(body):
        size = chance.choice((1, 2, 3, 17, 300, 5_000, 20_000))
        pieces.append(Piece(body[at : at + size], 0.001 if len(pieces) % 7 == 3 else 0.0))
        at += size
    return pieces


def _script(case: Recorded, seed: int | None) -> Script:
    row = case.row
    framed = row["provider"] == "aws-bedrock" and row["framing"] == "jsonl-chunks"
    framing = "aws-eventstream" if framed else row["framing"]
    kind = TYPES.get(framing, "text/event-stream; charset=utf-8")
    stated = row["request"].get("headers") or {}
    headers = (("content-type", kind), *stated.items())
    if framing in ("json", "binary"):
        headers += (("content-length", str(len(case.body))),)
    return Script(_pieces(case.body, seed), row["status"], headers)


def _without_surplus(case: Recorded, request: SimRequest) -> bytes:
    """What the client must get: all, but the usage chunk that only we asked for."""
    if b'"include_usage":true' not in request.body or not case.row["stream"]:
        return case.body
    kept = []
    for event in case.body.split(b"\n\n"):
        data = event.partition(b"data:")[2].strip()
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = {}
        surplus = isinstance(chunk, dict) and chunk.get("choices") == [] and chunk.get("usage")
        if not surplus or chunk.get("error"):
            kept.append(event)
    return b"\n\n".join(kept)


COLUMNS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "reasoning_tokens": "reasoning_tokens",
}


def _complaints(case: Recorded, answer: Answer, request: SimRequest, row: Any) -> list[str]:
    wrong = []
    if answer.status != case.row["status"]:
        wrong.append(f"status {answer.status}: {answer.body[:200]!r}")
    elif not answer.whole:
        wrong.append("the answer is not whole")
    elif answer.body != _without_surplus(case, request):
        wrong.append(f"bytes differ: {len(case.body)} in, {len(answer.body)} out")
    if row is None:
        return [*wrong, "no row"]
    if case.row["status"] >= 400:
        if (row["outcome"], row["charge_e10"]) != ("upstream_error", 0):
            wrong.append(f"an error was booked as {row['outcome']}")
        return wrong
    expected = dict(case.row["expected"] or {})
    if not expected:
        return wrong
    passes = expected.get("iterations") or ()
    for name, column in COLUMNS.items():
        wanted = expected.get(name) or 0
        if passes and name != "reasoning_tokens":
            wanted = sum(each.get(name) or 0 for each in passes)
        total = expected.get("output_tokens" if "reasoning" in name else "input_tokens")
        if total is not None and name not in ("input_tokens", "output_tokens") and not passes:
            wanted = min(wanted, total)  # some providers state a part above its whole
        if row[column] != wanted:
            wrong.append(f"{name} is {row[column]}, expected {wanted}")
    if row["usage_source"] not in ("provider", "partial"):
        wrong.append(f"usage from {row['usage_source']}")
    return wrong


async def test_every_recording_whole_and_split(gate: Gate) -> None:
    found = _recorded()
    payers = [await gate.payer("1000.00") for _ in range(PAYERS)]
    cases = list(enumerate(itertools.product(found, (None, 1))))
    scripts = {str(n): _script(one, seed) for n, (one, seed) in cases}
    for path in _paths_of(found):
        gate.sim.script[path] = lambda request: scripts[request.headers["x-case"]]
    room = asyncio.Semaphore(AT_ONCE)
    failed: list[str] = []
    answers: dict[int, Answer] = {}

    async def run(number: int, one: Recorded) -> None:
        async with room:
            payer = payers[number % PAYERS]
            token = payer.token(provider_key="own-key")  # 401 and 403 pass as they are
            headers = {"x-case": str(number), "authorization": f"Bearer {token}"}
            for _ in range(TRIES):
                answers[number] = await gate.call(one.url, one.request, payer, headers)
                if b'"code":"unavailable"' not in answers[number].body:
                    break  # else the database is slow, and nothing was sent
                await asyncio.sleep(1)

    await asyncio.gather(*(run(number, one) for number, (one, _) in cases))
    rows = {row["request_id"]: row for payer in payers for row in await gate.rows(payer)}
    requests = {request.headers["x-case"]: request for request in gate.sim.requests}
    for number, (one, seed) in cases:
        answer = answers[number]
        row = rows.get(answer.header("x-lava-request-id"))
        request = requests.get(str(number))
        if request is None:
            failed.append(f"{one.row['file']}: never sent: {answer.body[:300]!r}")
            continue
        how = "whole" if seed is None else "split"
        wrong = _complaints(one, answer, request, row)
        failed += [f"{one.row['file']} ({how}): {what}" for what in wrong]
    assert not failed, "\n".join(failed)
    assert len(rows) == len(cases)


def _paths_of(found: list[Recorded]) -> set[str]:
    return {urlsplit(unquote(one.url.partition("u=")[2])).path for one in found}
