"""The fold over Bedrock's answers: converse's own events, and whole bodies of many models.

Cached tokens lie beside the input. An invoked model answers in its own words, so the headers, which
Bedrock itself writes, win over the body (a guardrail may have rewritten that); a stream's last
chunk has the same figures as ``amazon-bedrock-invocationMetrics``. Claude's words are Anthropic's
messages, and its own reader reads them: cache writes for an hour, searches and passes included.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..contract import Ask, Usage
from ..counts import clamp, count, member, objects, take
from ..fold import Fold
from ..guardrail import guardrail_units
from ..lenient import load_object
from ..replies import dump
from .anthropic_reader import MessagesReader

_COUNTS = {
    "inputTokens": "input",
    "outputTokens": "output",
    "totalTokens": "total",
    "cacheReadInputTokens": "read",
    "cacheReadInputTokenCount": "read",
    "cacheWriteInputTokens": "written",
    "cacheWriteInputTokenCount": "written",
    "inputTokenCount": "input",
    "outputTokenCount": "output",
    "input_tokens": "input",
    "output_tokens": "output",
    "prompt_tokens": "input",
    "completion_tokens": "output",
    "cache_read_input_tokens": "read",
    "cache_creation_input_tokens": "written",
    "prompt_token_count": "input",
    "generation_token_count": "output",
    "inputTextTokenCount": "input",
    "totalOutputTextTokenCount": "output",
}
_HEADERS = {
    "x-amzn-bedrock-input-token-count": "input",
    "x-amzn-bedrock-output-token-count": "output",
    "x-amzn-bedrock-cache-read-input-token-count": "read",
    "x-amzn-bedrock-cache-write-input-token-count": "written",
}
_ACTION = "amazon-bedrock-guardrailAction"
_METRICS = "amazon-bedrock-invocationMetrics"
_CLAUDE = (
    "message", "message_start", "content_block_start", "content_block_delta", "message_delta",
)  # fmt: skip
"""Types of Anthropic's events and of its whole answer."""


class BedrockReader(Fold):
    """Events of both streams, and whole bodies of many models."""

    reads_headers = True

    __slots__ = ("_claude", "_guarded", "_stated")

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._guarded = ask.guarded
        self._stated: dict[str, int] = {}
        self._claude: MessagesReader | None = None
        self.model = ask.model

    def headers(self, status: int, headers: Mapping[str, str]) -> None:
        for name, key in _HEADERS.items():
            text = headers.get(name, "")
            if text.isascii() and text.isdigit() and len(text) < 17:
                value = count(int(text))
                if value is not None:
                    self._stated[key] = self._counts[key] = value
        self._tier(headers.get("x-amzn-bedrock-service-tier"))

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        if name == "contentBlockDelta":  # most events of a converse stream
            self._block_delta(body.get("delta"))
        elif name.startswith(("exception:", "error:")):
            self.failed = True
        elif type(body.get("bytes")) is str:
            try:
                inner = base64.b64decode(body["bytes"])
            except (binascii.Error, ValueError):
                return
            self._invoked(inner, None)
        else:
            self._invoked(data, body)

    def _invoked(self, data: bytes, body: dict[str, Any] | None) -> None:
        """An answer, or an event, in the model's own words."""
        if self._claude is None:
            body = load_object(data) if body is None else body
            if body is None:
                return
            if body.get("type") not in _CLAUDE:
                self._inner(body)
                return
            self._claude = MessagesReader(self._ask)
        self._read_claude(self._claude, data)

    def _read_claude(self, claude: MessagesReader, data: bytes) -> None:
        claude.event("", data)
        if b'"amazon-bedrock-' in data:
            body = load_object(data) or {}
            take(body.get(_METRICS), _COUNTS, self._stated)
            self._guardrail(body)
        claude.correct(self._stated)
        self._usage = None
        self.deltas, self.delta_bytes = claude.deltas, claude.delta_bytes
        self.tool_calls, self.text = claude.tool_calls, claude.text
        self.ended, self.final = claude.ended, claude.final
        self.failed = self.failed or claude.failed
        self.response_id = claude.response_id
        self.service_tier = self.service_tier or claude.service_tier

    def usage(self) -> Usage:
        if self._claude is None:
            return super().usage()
        if self._usage is None:
            usage = self._claude.usage()
            self._usage = replace(usage, model=self._ask.model, **self._guarded_units())
        return self._usage

    def _block_delta(self, delta: object) -> None:
        if type(delta) is not dict:
            return
        seen = delta.get("text")
        if seen is None:
            seen = member(delta, "reasoningContent", "text") or member(delta, "toolUse", "input")
        if type(seen) is str and seen:
            self.more(seen)

    def _inner(self, body: dict[str, Any]) -> None:
        if len(body) == 1:  # an event of converse, named in its body
            named, value = next(iter(body.items()))
            if type(value) is dict and named in ("contentBlockDelta", "metadata"):
                body = value
        seen = _text(body)
        calls = _calls(body)
        self.tool_calls += len(calls)
        seen += "".join(map(_call_text, calls))
        if seen:
            self.more(seen)
        metrics = body.get(_METRICS)
        usages = (member(body, "message", "usage"), body.get("usage"), body, metrics)
        before = len(self._counts)
        for usage in usages:
            take(usage, _COUNTS, self._counts)
        if "usage" in body:
            _hour(member(body, "usage", "cacheDetails"), self._counts)
            self._tier(member(body, "serviceTier", "type"))
        results = objects(body.get("results"))
        made = [n for each in results if (n := count(each.get("tokenCount"))) is not None]
        if made:
            self._counts["output"] = sum(made)
        if "trace" in body or _ACTION in body:
            self._guardrail(body)
        self._counts.update(self._stated)
        self._usage = None
        stated = type(body.get("usage")) is dict or len(self._counts) > before
        if metrics is not None or not self._ask.stream or (stated and "metrics" in body):
            self.ended = True
            self.final = "input" in self._counts or "output" in self._counts

    def _guardrail(self, body: dict[str, Any]) -> None:
        """What a guardrail looked at: in its trace, which is there only on wish."""
        self._guarded = self._guarded or body.get(_ACTION) is not None
        trace = member(body, "trace", "guardrail")
        if trace is None:
            trace = member(body, "amazon-bedrock-trace", "guardrail")
        found = guardrail_units(trace) if trace is not None else {}
        if sum(found.values()) > sum(self._counts.get(name, 0) for name in found):
            self._counts.update(found)

    def _guarded_units(self) -> dict[str, Any]:
        counts = self._counts
        unseen = self._guarded and "filters" not in counts
        return {
            "guardrail_filters": counts.get("filters"),
            "guardrail_checks": counts.get("checks"),
            "guardrail_others": 1 if unseen else counts.get("others"),
        }

    def _settle(self) -> Usage:
        counts = self._counts
        fresh, read, written = counts.get("input"), counts.get("read"), counts.get("written")
        entered = None if fresh is None else fresh + (read or 0) + (written or 0)
        return Usage(
            input_tokens=entered,
            output_tokens=counts.get("output"),
            cache_read_tokens=clamp(read, entered),
            cache_write_tokens=clamp(written, entered),
            cache_write_1h_tokens=clamp(counts.get("written_1h"), written),
            total_reported=counts.get("total"),
            model=self._ask.model,
            **self._guarded_units(),
        )


def _hour(details: object, into: dict[str, int]) -> None:
    """Tokens that were written to the cache for an hour, which costs more."""
    stated = [
        count(each.get("inputTokens")) for each in objects(details) if each.get("ttl") == "1h"
    ]
    if stated:
        into["written_1h"] = sum(value or 0 for value in stated)


def _text(body: dict[str, Any]) -> str:
    """Text in the places where models put it."""
    content = member(body, "output", "message", "content")
    pieces = [body.get(name) for name in ("generation", "outputText", "completion", "text")]
    delta = body.get("delta")
    for part in (delta, *objects(content), *objects(body.get("content"))):
        pieces += [
            member(part, "text"),
            member(part, "partial_json"),
            member(part, "thinking"),
            member(part, "reasoningContent", "text"),
            member(part, "reasoningContent", "reasoningText", "text"),
            member(part, "toolUse", "input"),
        ]
    pieces += [result.get("outputText") for result in objects(body.get("results"))]
    for choice in objects(body.get("choices")):
        pieces.append(choice.get("text"))
        for said in (choice.get("delta"), choice.get("message")):
            pieces += [member(said, name) for name in ("content", "reasoning_content", "reasoning")]
    for name in ("outputs", "generations"):
        pieces += [each.get("text") for each in objects(body.get(name))]
    return "".join(piece for piece in pieces if type(piece) is str)


def _calls(body: dict[str, Any]) -> list[dict[str, Any]]:
    content = (*objects(member(body, "output", "message", "content")), body.get("start"))
    found = [member(part, "toolUse") for part in content]
    for choice in objects(body.get("choices")):
        for said in (choice.get("delta"), choice.get("message")):
            found += [member(call, "function") for call in objects(member(said, "tool_calls"))]
    return [call for call in found if type(call) is dict]


def _call_text(call: dict[str, Any]) -> str:
    """What a call says: an object in converse, pieces of text in chat completions' words."""
    if "input" in call:
        return dump(call["input"]).decode()
    texts = (call.get("name"), call.get("arguments"))
    return "".join(text for text in texts if type(text) is str)
