"""Anthropic messages answers, usage and errors, both ways. Streams: stream.py."""

from __future__ import annotations

from .. import neutral as n
from ..members import (
    Unreadable,
    answered,
    count_in,
    dump,
    made_arguments,
    object_in,
    objects_in,
    text_in,
    told,
)

STOPS: dict[n.Stop, str] = {
    "end": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool": "tool_use",
    "filter": "refusal",
}
_READ_STOPS: dict[str, n.Stop] = {
    "end_turn": "end",
    "pause_turn": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool",
    "refusal": "filter",
}
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUSES = {kind: status for status, kind in _KINDS.items()} | {"api_error": 500}


def read_answer(data: bytes) -> n.Answer:
    """A provider's whole answer."""
    value = answered(data)
    if "content" not in value:
        raise Unreadable("the provider's answer has no content")
    parts: list[n.Text | n.ToolCall | n.Thinking] = []
    for block in objects_in(value, "content"):
        kind = block.get("type")
        if kind == "text" and text_in(block, "text"):
            parts.append(n.Text(text_in(block, "text")))
        elif kind == "thinking":
            parts.append(n.Thinking(text_in(block, "thinking"), text_in(block, "signature")))
        elif kind == "tool_use":
            arguments = dump(object_in(block, "input")).decode()
            parts.append(n.ToolCall(text_in(block, "id"), text_in(block, "name"), arguments))
    return n.Answer(
        text_in(value, "id"),
        text_in(value, "model"),
        tuple(parts),
        read_stop(text_in(value, "stop_reason")),
        read_counts(object_in(value, "usage")),
        text_in(value, "stop_sequence") or None,
    )


def write_answer(answer: n.Answer) -> bytes:
    """A whole answer for the client."""
    message = message_object(answer.answer_id, answer.model, answer.counts)
    message["content"] = [write_made(part) for part in answer.parts]
    message["stop_reason"] = STOPS[answer.stop]
    message["stop_sequence"] = answer.stop_text
    return dump(message)


def write_made(part: n.Text | n.ToolCall | n.Thinking) -> dict[str, object]:
    """A block of an answer."""
    if isinstance(part, n.Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, n.Thinking):
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    made = made_arguments(part.arguments)
    return {"type": "tool_use", "id": part.call_id, "name": part.name, "input": made}


def message_object(answer_id: str, model: str, counts: n.Counts) -> dict[str, object]:
    """A message with nothing in it yet."""
    return {
        "id": answer_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": write_counts(counts),
    }


def read_error(status: int, data: bytes) -> n.Failed:
    """A provider's error body, whatever it is."""
    try:
        return error_in(answered(data), status)
    except Unreadable:
        return n.Failed(status, "", told(data) or f"status {status}")


def error_in(value: dict[str, object], status: int = 0) -> n.Failed:
    """The error that an object tells of."""
    error = object_in(value, "error")
    kind = text_in(error, "type")
    message = text_in(error, "message") or told(dump(value))
    return n.Failed(status or _STATUSES.get(kind, 0), kind, message)


def write_error(failed: n.Failed) -> bytes:
    """An error body for the client."""
    kind = _KINDS.get(failed.status)
    if kind is None:
        kind = "invalid_request_error" if 400 < failed.status < 500 else "api_error"
    return dump({"type": "error", "error": {"type": kind, "message": failed.message}})


def read_stop(reason: str) -> n.Stop:
    """Why it stopped; an unknown reason is an ordinary end."""
    return _READ_STOPS.get(reason, "end")


def read_counts(usage: dict[str, object]) -> n.Counts:
    """Usage as Anthropic says it: cached input lies beside `input_tokens`."""
    fresh = count_in(usage, "input_tokens")
    read = count_in(usage, "cache_read_input_tokens")
    written = count_in(usage, "cache_creation_input_tokens")
    whole = None if fresh is None else fresh + (read or 0) + (written or 0)
    thought = count_in(object_in(usage, "output_tokens_details"), "thinking_tokens")
    return n.Counts(whole, count_in(usage, "output_tokens"), read, written, thought)


def write_counts(counts: n.Counts) -> dict[str, object]:
    """Usage as Anthropic says it. Some providers state more cached tokens than tokens."""
    inputs = counts.input_tokens or 0
    read = min(counts.cache_read or 0, inputs)
    written = min(counts.cache_write or 0, inputs - read)
    usage: dict[str, object] = {
        "input_tokens": inputs - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": counts.output_tokens or 0,
    }
    if counts.reasoning is not None:
        usage["output_tokens_details"] = {"thinking_tokens": counts.reasoning}
    return usage
