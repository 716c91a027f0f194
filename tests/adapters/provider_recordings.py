"""Recorded provider payloads, used in place: which rows apply, their wire bytes, what to expect."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lava_adapters import Adapter, Ask, Framing, Quirks, Usage
from lava_adapters.families import BUILTIN

FOLDER = Path(
    os.environ.get("LAVA_RECORDINGS", Path(__file__).parents[2].parent / "shared" / "recordings")
)

# api -> family, kind
FAMILIES = {
    "chat": ("openai_chat", "chat"),
    "chat-v1": ("openai_chat", "chat"),
    "completions": ("openai_chat", "completions"),
    "responses": ("openai_responses", "responses"),
    "responses-compact": ("openai_responses", "compact"),
    "embeddings": ("openai_embeddings", "embeddings"),
    "messages": ("anthropic_messages", "messages"),
    "generateContent": ("gemini", "gemini"),
    "count-tokens": ("gemini", "free"),
    "interactions": ("interactions", "interactions"),
    # Events of a WebSocket, which is no forwarded call (426): the reader knows their shape, though.
    "realtime": ("openai_responses", "responses"),
}
# The same api name at a provider that means its own format by it.
_OWN = {
    ("google-gemini", "embeddings"): ("gemini", "embeddings"),
    ("google-vertex", "embeddings"): ("gemini", "predict"),
}
# Other formats under the same api name: see test_more_families.py.
_FOREIGN = {("cohere", "chat-v1")}
_FOREIGN_PROVIDERS = {"aws-bedrock"}
_VERBS = {"embeddings": "batchEmbedContents", "predict": "predict", "free": "countTokens"}

COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "tool_prompt_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "reasoning_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "total_reported",
    "web_searches",
)


_COUNTED = {
    "azure/responses/vercel-azure-web-search-preview-tool.1.json": {"web_searches": 2},
    "openai/responses/vercel-openai-web-search-tool.1.json": {"web_searches": 1},
}
"""Searches among the output items, counted by hand: the index holds what usage objects say."""


@dataclass(frozen=True)
class Recording:
    """One row of the index with its bytes."""

    row: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.row["file"])

    @property
    def expected(self) -> dict[str, Any] | None:
        """The index's figures, and the searches: OpenAI leaves those out of its usage object."""
        found: dict[str, Any] | None = self.row["expected"]
        if found is not None and self.row["api"] == "responses" and self.row["framing"] == "json":
            items = json.loads(self.wire()).get("output", [])
            calls = [item for item in items if item["type"] == "web_search_call"]
            searches = [item for item in calls if item["action"]["type"] == "search"]
            found = found | ({"web_searches": len(searches)} if searches else {})
        return found

    def wire(self) -> bytes:
        """The body as the provider sent it; bare chunks get their framing back."""
        raw = (FOLDER / self.row["file"]).read_bytes()
        if self.row["framing"] != "jsonl-chunks":
            return raw
        named = self.row["api"] in ("messages", "responses")
        end = b"\r\n" if self.row["api"] == "generateContent" else b"\n"
        return b"".join(_wrap(line, end, named) for line in raw.splitlines() if line.strip())

    def adapter(self) -> Adapter:
        family, kind = self.speaks()
        return BUILTIN[family](Quirks(), kind)

    def speaks(self) -> tuple[str, str]:
        """Family and kind."""
        return _OWN.get((self.row["provider"], self.row["api"])) or FAMILIES[self.row["api"]]

    def ask(self) -> Ask:
        stream, adapter = self.row["stream"], self.adapter()
        if adapter.family == "gemini":
            model = self.row["model"] or "m"
            verb = _VERBS.get(self.speaks()[1])
            verb = verb or ("streamGenerateContent" if stream else "generateContent")
            path = f"/v1beta/models/{model}:{verb}"
            return adapter.ask("POST", path, "alt=sse", "application/json", b"{}")
        body: dict[str, Any] = {"model": self.row["request"].get("request_model")}
        if stream:
            body["stream"] = True
        return adapter.ask("POST", "/v1/x", "", "application/json", json.dumps(body).encode())

    def framing(self, ask: Ask) -> Framing:
        streamed = self.row["framing"] in ("sse", "jsonl-chunks")
        kind = "text/event-stream" if streamed else "application/json"
        return self.adapter().framing(ask, kind)


def _wrap(line: bytes, end: bytes, named: bool) -> bytes:
    event = b""
    if named:
        try:
            kind = json.loads(line)["type"]
        except (ValueError, KeyError, TypeError):
            kind = None
        event = b"event: %b%b" % (kind.encode(), end) if kind else b""
    return event + b"data: " + line + end + end


@cache
def recordings() -> tuple[Recording, ...]:
    index = FOLDER / "index.jsonl"
    if not index.is_file():
        return ()
    rows = [json.loads(line) for line in index.read_text("utf-8").splitlines()]
    return tuple(
        Recording(_with_counted(row))
        for row in rows
        if row["api"] in FAMILIES
        and row["framing"] in ("json", "sse", "jsonl-chunks")
        and (row["provider"], row["api"]) not in _FOREIGN
        and row["provider"] not in _FOREIGN_PROVIDERS
    )


def _with_counted(row: dict[str, Any]) -> dict[str, Any]:
    counted = _COUNTED.get(row["file"])
    return row | {"expected": row["expected"] | counted} if counted else row


def each_recording(*, stream: bool | None = None) -> pytest.MarkDecorator:
    """Parametrize over the recordings; one skipped case with the reason where there are none."""
    found = [r for r in recordings() if stream is None or r.row["stream"] == stream]
    if not found:
        reason = f"no recordings at {FOLDER} (set LAVA_RECORDINGS)"
        return pytest.mark.parametrize(
            "recording", [pytest.param(None, marks=pytest.mark.skip(reason))]
        )
    return pytest.mark.parametrize("recording", found, ids=[r.id for r in found])


def check(usage: Usage, expected: dict[str, Any] | None) -> None:
    """`usage` says what the index says, and nothing more."""
    expected = dict(expected or {})
    passes = expected.get("iterations")
    if passes:
        # The top level leaves passes out; a Usage adds them up.
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
            expected[name] = sum(each.get(name, 0) for each in passes)
        assert [part.output_tokens for part in usage.parts] == [p["output_tokens"] for p in passes]
        assert [part.input_tokens for part in usage.parts] == [p["input_tokens"] for p in passes]
        for part, each in zip(usage.parts, passes, strict=True):
            assert each["model"] in (None, part.model)
    for name in COUNTS:
        value, wanted = getattr(usage, name), expected.get(name)
        if wanted is None:
            assert not value, name
            continue
        total = expected.get(
            "output_tokens" if "output" in name or "reas" in name else "input_tokens"
        )
        if name not in ("total_reported", "web_searches") and total is not None:
            wanted = min(wanted, total)
        assert value == wanted, name
    if "cost_usd" in expected:
        assert usage.cost_e10 == int(
            (Decimal(str(expected["cost_usd"])) * 10**10).to_integral_value()
        )
    else:
        assert usage.cost_e10 is None
