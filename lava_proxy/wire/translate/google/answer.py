"""generateContent answers, usage and errors, both ways. Streams: stream.py."""

from __future__ import annotations

import re

from .. import neutral as n
from ..members import (
    Unreadable,
    answered,
    count_in,
    dump,
    made_arguments,
    object_in,
    objects_in,
    parse_any,
    text_in,
    told,
)

STOPS: dict[n.Stop, str] = {
    "end": "STOP",
    "stop_sequence": "STOP",
    "tool": "STOP",
    "length": "MAX_TOKENS",
    "filter": "SAFETY",
}
_FILTERS = frozenset(
    {
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
    }
)
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_BUDGETS: dict[n.Effort, int] = {"minimal": 512, "low": 1024, "medium": 4096, "high": 16384}
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_-]")


def thought_budget(effort: n.Effort) -> int:
    """Tokens of reasoning, for models that count them."""
    return _BUDGETS[effort]


def call_id(stated: str, answer_id: str, number: int) -> str:
    """A call's id; most of Google's have none, other dialects need one."""
    return stated or f"call_{_NOT_IN_IDS.sub('', answer_id)}_{number}"


def read_answer(data: bytes) -> n.Answer:
    """A provider's whole answer."""
    value = answered(data)
    if "candidates" not in value and "promptFeedback" not in value:
        raise Unreadable("the provider's answer has no candidates")
    answer_id = text_in(value, "responseId")
    parts: list[n.Text | n.ToolCall | n.Thinking] = []
    calls = 0
    for part in parts_of(value):
        if text_in(part, "text"):
            text = text_in(part, "text")
            parts.append(n.Thinking(text) if part.get("thought") is True else n.Text(text))
        call = object_in(part, "functionCall")
        if call:
            arguments = dump(object_in(call, "args")).decode()
            made = call_id(text_in(call, "id"), answer_id, calls)
            parts.append(n.ToolCall(made, text_in(call, "name"), arguments))
            calls += 1
    counts = read_counts(object_in(value, "usageMetadata"))
    stop = read_stop(value, called=calls > 0) or "end"
    model = text_in(value, "modelVersion")
    return n.Answer(answer_id, model, joined(parts), stop, counts)


def joined(
    parts: list[n.Text | n.ToolCall | n.Thinking],
) -> tuple[n.Text | n.ToolCall | n.Thinking, ...]:
    """Neighbouring texts are one: Google cuts them anywhere."""
    found: list[n.Text | n.ToolCall | n.Thinking] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, n.Text) and isinstance(last, n.Text):
            found[-1] = n.Text(last.text + part.text)
        elif isinstance(part, n.Thinking) and isinstance(last, n.Thinking):
            found[-1] = n.Thinking(last.text + part.text)
        else:
            found.append(part)
    return tuple(found)


def parts_of(value: dict[str, object]) -> list[dict[str, object]]:
    """The parts of the first candidate."""
    candidates = objects_in(value, "candidates")
    return objects_in(object_in(candidates[0], "content"), "parts") if candidates else []


def read_stop(value: dict[str, object], *, called: bool) -> n.Stop | None:
    """Why it stopped, where that is said."""
    if text_in(object_in(value, "promptFeedback"), "blockReason"):
        return "filter"
    candidates = objects_in(value, "candidates")
    reason = text_in(candidates[0], "finishReason") if candidates else ""
    if not reason:
        return None
    if reason in _FILTERS:
        return "filter"
    if reason == "MAX_TOKENS":
        return "length"
    return "tool" if called else "end"


def write_answer(answer: n.Answer) -> bytes:
    """A whole answer for the client."""
    parts = [write_part(part) for part in answer.parts]
    return dump(chunk(answer.answer_id, answer.model, parts, answer.stop, answer.counts))


def write_part(part: n.Text | n.ToolCall | n.Thinking) -> dict[str, object]:
    """A part of an answer."""
    if isinstance(part, n.Text):
        return {"text": part.text}
    if isinstance(part, n.Thinking):
        return {"text": part.text, "thought": True}
    arguments = made_arguments(part.arguments)
    return {"functionCall": {"id": part.call_id, "name": part.name, "args": arguments}}


def chunk(
    answer_id: str,
    model: str,
    parts: list[dict[str, object]],
    stop: n.Stop | None = None,
    counts: n.Counts | None = None,
) -> dict[str, object]:
    """An answer, or a piece of one."""
    candidate: dict[str, object] = {"content": {"role": "model", "parts": parts}}
    if stop is not None:
        candidate["finishReason"] = STOPS[stop]
    candidate["index"] = 0
    made: dict[str, object] = {"candidates": [candidate]}
    if counts is not None:
        made["usageMetadata"] = write_counts(counts)
    return made | {"modelVersion": model, "responseId": answer_id}


def read_error(status: int, data: bytes) -> n.Failed:
    """A provider's error body, whatever it is."""
    try:
        value = parse_any(data)
    except Unreadable:
        return n.Failed(status, "", told(data) or f"status {status}")
    if isinstance(value, list):
        value = value[0] if value else {}
    return error_in(value if isinstance(value, dict) else {}, status)


def error_in(value: dict[str, object], status: int = 0) -> n.Failed:
    """The error that an object tells of."""
    error = object_in(value, "error")
    message = text_in(error, "message") or told(dump(value)) or f"status {status}"
    return n.Failed(status or count_in(error, "code") or 0, text_in(error, "status"), message)


def write_error(failed: n.Failed) -> bytes:
    """An error body for the client: the SDK needs a number as its code."""
    return dump(error_object(failed))


def error_object(failed: n.Failed) -> dict[str, object]:
    """Google's error."""
    status = failed.status or 500
    name = _STATUSES.get(status) or ("INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    return {"error": {"code": status, "message": failed.message, "status": name}}


def read_counts(usage: dict[str, object]) -> n.Counts:
    """Usage as Google says it: thoughts lie beside the output, tools' prompts beside the input."""
    prompt, tools = count_in(usage, "promptTokenCount"), count_in(usage, "toolUsePromptTokenCount")
    made, thought = count_in(usage, "candidatesTokenCount"), count_in(usage, "thoughtsTokenCount")
    outputs = None if made is None and thought is None else (made or 0) + (thought or 0)
    inputs = None if prompt is None else prompt + (tools or 0)
    return n.Counts(inputs, outputs, count_in(usage, "cachedContentTokenCount"), None, thought)


def write_counts(counts: n.Counts) -> dict[str, object]:
    """Usage as Google says it."""
    inputs, outputs = counts.input_tokens or 0, counts.output_tokens or 0
    thought = min(counts.reasoning or 0, outputs)
    usage: dict[str, object] = {
        "promptTokenCount": inputs,
        "candidatesTokenCount": outputs - thought,
        "totalTokenCount": inputs + outputs,
    }
    if thought:
        usage["thoughtsTokenCount"] = thought
    if counts.cache_read:
        usage["cachedContentTokenCount"] = min(counts.cache_read, inputs)
    return usage
