"""AWS Bedrock: converse and invoke, whole or as binary frames.

Cached tokens lie beside the input. An invoked model answers in its own words, so the headers, which
Bedrock itself writes, win over the body (a guardrail may have rewritten that); a stream's last
chunk has the same figures as ``amazon-bedrock-invocationMetrics``. Claude's words are Anthropic's
messages, and its own reader reads them: cache writes for an hour, searches and passes included.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from .. import bedrock_caps
from ..awsframe import encode
from ..bedrock_caps import OUTER
from ..contract import Ask, Framing, Reader, Usage
from ..counts import clamp, count, member, objects, take
from ..fold import Fold, Unread
from ..framings import media_type
from ..jsonedit import set_nested
from ..lenient import load_object
from ..quirks import Quirks
from ..replies import cut_message, dump, with_facts
from ..strict import limit, parse
from ..weigh import weigh
from .anthropic_reader import MessagesReader
from .plain import Plain

_PRICED = frozenset(("messages", "system", "inferenceConfig", "prompt", "inputText")) | OUTER
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
}
_HEADERS = {
    "x-amzn-bedrock-input-token-count": "input",
    "x-amzn-bedrock-output-token-count": "output",
    "x-amzn-bedrock-cache-read-input-token-count": "read",
    "x-amzn-bedrock-cache-write-input-token-count": "written",
}
_METRICS = "amazon-bedrock-invocationMetrics"
_CLAUDE = (
    "message", "message_start", "content_block_start", "content_block_delta", "message_delta",
)  # fmt: skip
"""Types of Anthropic's events and of its whole answer."""
_STREAMS = ("converse-stream", "invoke-with-response-stream")


class Bedrock(Plain):
    """kind "converse", "invoke" or "free"."""

    family = "bedrock"

    def __init__(self, quirks: Quirks, kind: str = "converse") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        if self._kind == "free" or method in ("GET", "HEAD", "DELETE"):
            return Ask(free=True, makes_output=False)
        parts = path.split("/")
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        model = unquote(parts[-2]) if len(parts) > 2 else ""
        limits = bedrock_caps.read(model, request, body, converse=self._kind == "converse")
        return Ask(
            model=model or None,
            stream=parts[-1] in _STREAMS,
            output_cap=limits.cap,
            choices=limit(request, "num_generations") or 1,
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden or request.get("promptVariables") is not None,
            capable_of_cap=limits.capable,
            makes_output=limits.writes,
            object_ids=tuple(weight.object_ids),
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is None or not ask.capable_of_cap:
            return body
        if ask.output_cap is not None and ask.output_cap <= output_cap:
            return body
        if self._kind == "converse":
            return set_nested(body, "inferenceConfig", "maxTokens", b"%d" % output_cap)
        request = parse(body, _PRICED)
        return bedrock_caps.lowered(body, ask.model or "", request, output_cap)

    def framing(self, ask: Ask, content_type: str) -> Framing:
        kind = media_type(content_type)
        if kind == "application/vnd.amazon.eventstream":
            return Framing.EVENT_STREAM
        return Framing.JSON if kind == "application/json" else Framing.OPAQUE

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask) if ask.free else BedrockReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        if framing is not Framing.EVENT_STREAM:
            return b""
        # A name that botocore knows: of others it raises an error without name and message.
        headers = {":exception-type": "validationException"}
        headers |= {":content-type": "application/json", ":message-type": "exception"}
        return encode(headers, dump(with_facts({"message": cut_message(message)}, facts)))

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return dump(with_facts({"message": message, "__type": code}, facts))


class BedrockReader(Fold):
    """Events of both streams, and whole bodies of many models."""

    reads_headers = True

    __slots__ = ("_claude", "_stated")

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
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
        if _METRICS.encode() in data:
            take(member(load_object(data), _METRICS), _COUNTS, self._stated)
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
            self._usage = self._claude.usage().with_model(self._ask.model)
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
        for call in calls:
            seen += dump(call.get("input", "")).decode()
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
        if results:
            take(body, {"inputTextTokenCount": "input"}, self._counts)
            made = [count(result.get("tokenCount")) for result in results]
            self._counts["output"] = sum(value or 0 for value in made)
        self._counts.update(self._stated)
        self._usage = None
        stated = type(body.get("usage")) is dict or len(self._counts) > before
        if metrics is not None or not self._ask.stream or (stated and "metrics" in body):
            self.ended = True
            self.final = "input" in self._counts or "output" in self._counts

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
    pieces = [body.get("generation"), body.get("outputText"), body.get("completion")]
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
    pieces += [member(choice, "delta", "content") for choice in objects(body.get("choices"))]
    pieces += [member(choice, "message", "content") for choice in objects(body.get("choices"))]
    return "".join(piece for piece in pieces if type(piece) is str)


def _calls(body: dict[str, Any]) -> list[dict[str, Any]]:
    content = (*objects(member(body, "output", "message", "content")), body.get("start"))
    found = [member(part, "toolUse") for part in content]
    return [call for call in found if type(call) is dict]
