"""What an answer says, read from its bytes by nothing of ours: text, tool calls, stop, usage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from botocore.eventstream import EventStreamBuffer

STOPS = {
    "end_turn": "stop",
    "pause_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
BEDROCK_STOPS = STOPS | {"content_filtered": "content_filter"}
BEDROCK_STOPS |= {"guardrail_intervened": "content_filter"}
KNOWN = {"stop", "length", "tool_calls", "content_filter"}


@dataclass
class Essence:
    """In OpenAI's words; counts are whole (cached included)."""

    text: str = ""
    thinking: str = ""
    calls: list[list[str]] = field(default_factory=list)
    """Id, name and arguments."""
    stop: str = ""
    inputs: int = 0
    outputs: int = 0
    cached: int = 0

    def said(self, *, ids: bool = True) -> tuple[Any, ...]:
        arguments = [(i * ids, name, json.loads(text or "{}")) for i, name, text in self.calls]
        stop = self.stop if self.stop in KNOWN else "stop"
        if stop == "stop" and self.calls:
            stop = "tool_calls"  # some providers say just that
        counts = (self.inputs, self.outputs, min(self.cached, self.inputs))
        return self.text, self.thinking, arguments, stop, counts


def events(wire: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of an event stream."""
    for line in wire.decode("utf-8", "replace").splitlines():
        if line.startswith("data:") and line[5:].strip() not in ("[DONE]", ""):
            yield json.loads(line[5:])


def openai_whole(body: dict[str, Any]) -> Essence:
    found = Essence()
    choice = (body.get("choices") or [{}])[0]
    _openai_message(found, choice.get("message") or {})
    _openai_rest(found, choice, body)
    return found


def openai_stream(chunks: Iterator[dict[str, Any]]) -> Essence:
    found = Essence()
    for chunk in chunks:
        choice = (chunk.get("choices") or [{}])[0]
        _openai_message(found, choice.get("delta") or {})
        _openai_rest(found, choice, chunk)
    return found


def _openai_message(found: Essence, message: dict[str, Any]) -> None:
    if isinstance(message.get("content"), str):
        found.text += message["content"]
    found.text += message.get("refusal") or ""
    found.thinking += message.get("reasoning_content") or message.get("reasoning") or ""
    for place, call in enumerate(message.get("tool_calls") or ()):
        index = call.get("index")
        index = len(found.calls) if index is None and "id" in call else index or place
        while len(found.calls) <= index:
            found.calls.append(["", "", ""])
        made = call.get("function") or {}
        for at, value in enumerate((call.get("id"), made.get("name"))):
            found.calls[index][at] = found.calls[index][at] or value or ""
        found.calls[index][2] += made.get("arguments") or ""


def _openai_rest(found: Essence, choice: dict[str, Any], body: dict[str, Any]) -> None:
    found.stop = choice.get("finish_reason") or found.stop
    usage = body.get("usage") or (body.get("x_groq") or {}).get("usage") or {}
    found.inputs = usage.get("prompt_tokens") or found.inputs
    found.outputs = usage.get("completion_tokens") or found.outputs
    details = usage.get("prompt_tokens_details") or {}
    found.cached = details.get("cached_tokens") or found.cached


def anthropic_whole(body: dict[str, Any]) -> Essence:
    found = Essence(stop=STOPS.get(body.get("stop_reason") or "", ""))
    for block in body["content"]:
        if block["type"] == "text":
            found.text += block["text"]
        elif block["type"] == "thinking":
            found.thinking += block["thinking"]
        elif block["type"] == "tool_use":
            found.calls.append([block["id"], block["name"], json.dumps(block["input"])])
    _anthropic_usage(found, body.get("usage") or {})
    return found


def anthropic_stream(chunks: Iterator[dict[str, Any]]) -> Essence:
    found = Essence()
    usage: dict[str, Any] = {}
    places: dict[int, int] = {}
    for chunk in chunks:
        kind, delta = chunk.get("type"), chunk.get("delta") or {}
        if kind == "message_start":
            usage |= _given(chunk["message"].get("usage") or {})
        elif kind == "content_block_start":
            block = chunk["content_block"]
            if block["type"] == "tool_use":
                places[chunk["index"]] = len(found.calls)
                whole = json.dumps(block["input"]) if block.get("input") else ""
                found.calls.append([block["id"], block["name"], whole])
            elif block["type"] == "text":
                found.text += block["text"]
        elif kind == "content_block_delta":
            found.text += delta.get("text") or ""
            found.thinking += delta.get("thinking") or ""
            if "partial_json" in delta and chunk["index"] in places:
                found.calls[places[chunk["index"]]][2] += delta["partial_json"]
        elif kind == "message_delta":
            found.stop = STOPS.get(delta.get("stop_reason") or "", found.stop)
            usage |= _given(chunk.get("usage") or {})
    _anthropic_usage(found, usage)
    return found


def _given(usage: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if value is not None}


def _anthropic_usage(found: Essence, usage: dict[str, Any]) -> None:
    found.cached = usage.get("cache_read_input_tokens") or 0
    fresh, written = usage.get("input_tokens"), usage.get("cache_creation_input_tokens")
    found.inputs = (fresh or 0) + (written or 0) + found.cached
    found.outputs = usage.get("output_tokens") or 0


def bedrock_whole(body: dict[str, Any]) -> Essence:
    found = Essence(stop=BEDROCK_STOPS.get(body["stopReason"], "stop"))
    for block in body["output"]["message"]["content"]:
        found.text += block.get("text") or ""
        thought = (block.get("reasoningContent") or {}).get("reasoningText") or {}
        found.thinking += thought.get("text") or ""
        call = block.get("toolUse")
        if call:
            found.calls.append([call["toolUseId"], call["name"], json.dumps(call["input"])])
    _bedrock_usage(found, body.get("usage") or {})
    return found


def bedrock_stream(wire: bytes) -> Essence:
    found = Essence()
    places: dict[int, int] = {}
    buffer = EventStreamBuffer()  # botocore's, which checks the checksums
    buffer.add_data(wire)
    for event in buffer:
        value = json.loads(event.payload)
        kind = event.headers[":event-type"]
        index = value.get("contentBlockIndex")
        if kind == "contentBlockStart":
            call = value["start"]["toolUse"]
            places[index] = len(found.calls)
            found.calls.append([call["toolUseId"], call["name"], ""])
        elif kind == "contentBlockDelta":
            delta = value["delta"]
            found.text += delta.get("text") or ""
            found.thinking += (delta.get("reasoningContent") or {}).get("text") or ""
            if "toolUse" in delta:
                found.calls[places[index]][2] += delta["toolUse"]["input"]
        elif kind == "messageStop":
            found.stop = BEDROCK_STOPS.get(value["stopReason"], "stop")
        elif kind == "metadata":
            _bedrock_usage(found, value["usage"])
    return found


def _bedrock_usage(found: Essence, usage: dict[str, Any]) -> None:
    found.cached = usage.get("cacheReadInputTokens") or 0
    written = usage.get("cacheWriteInputTokens") or 0
    found.inputs = (usage.get("inputTokens") or 0) + found.cached + written
    found.outputs = usage.get("outputTokens") or 0


def google_whole(body: dict[str, Any]) -> Essence:
    return google_stream(iter([body]))


def google_stream(chunks: Iterator[dict[str, Any]]) -> Essence:
    found = Essence()
    for chunk in chunks:
        candidate = (chunk.get("candidates") or [{}])[0]
        for part in (candidate.get("content") or {}).get("parts") or ():
            if part.get("thought"):
                found.thinking += part.get("text") or ""
            else:
                found.text += part.get("text") or ""
            call = part.get("functionCall")
            if call:
                arguments = json.dumps(call.get("args") or {})
                found.calls.append([call.get("id") or "", call["name"], arguments])
        reason = candidate.get("finishReason")
        found.stop = {None: found.stop, "MAX_TOKENS": "length"}.get(reason, reason) or ""
        _google_usage(found, chunk.get("usageMetadata") or {})
    if found.stop not in ("", "length", "STOP", "MALFORMED_FUNCTION_CALL", "OTHER"):
        found.stop = "content_filter"
    return found


def _google_usage(found: Essence, usage: dict[str, Any]) -> None:
    prompt, tools = usage.get("promptTokenCount"), usage.get("toolUsePromptTokenCount") or 0
    made = usage.get("candidatesTokenCount"), usage.get("thoughtsTokenCount")
    found.inputs = found.inputs if prompt is None else prompt + tools
    if made != (None, None):
        found.outputs = (made[0] or 0) + (made[1] or 0)
    found.cached = usage.get("cachedContentTokenCount") or found.cached
