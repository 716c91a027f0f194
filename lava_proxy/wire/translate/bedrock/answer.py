"""Converse answers, usage and errors, both ways. Streams: stream.py."""

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
    "filter": "content_filtered",
}
_READ_STOPS: dict[str, n.Stop] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool",
    "content_filtered": "filter",
    "guardrail_intervened": "filter",
}
_KINDS = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
STATUSES = {
    "validationException": 400,
    "throttlingException": 429,
    "serviceUnavailableException": 503,
    "modelStreamErrorException": 424,
    "internalServerException": 500,
}
"""What exceptions within a stream mean."""


def read_answer(data: bytes) -> n.Answer:
    """A provider's whole answer; it has neither id nor model."""
    value = answered(data)
    message = object_in(object_in(value, "output"), "message")
    if "content" not in message:
        raise Unreadable("the provider's answer has no content")
    parts: list[n.Text | n.ToolCall | n.Thinking] = []
    for block in objects_in(message, "content"):
        if text_in(block, "text"):
            parts.append(n.Text(text_in(block, "text")))
        thought = object_in(object_in(block, "reasoningContent"), "reasoningText")
        if thought:
            parts.append(n.Thinking(text_in(thought, "text"), text_in(thought, "signature")))
        call = object_in(block, "toolUse")
        if call:
            arguments = dump(object_in(call, "input")).decode()
            parts.append(n.ToolCall(text_in(call, "toolUseId"), text_in(call, "name"), arguments))
    stop = read_stop(text_in(value, "stopReason"))
    return n.Answer("", "", tuple(parts), stop, read_counts(object_in(value, "usage")))


def write_answer(answer: n.Answer) -> bytes:
    """A whole answer for the client."""
    content = [write_made(part) for part in answer.parts]
    return dump(
        {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": STOPS[answer.stop],
            "usage": write_counts(answer.counts),
            "metrics": {"latencyMs": 0},
        }
    )


def write_made(part: n.Text | n.ToolCall | n.Thinking) -> dict[str, object]:
    """A block of an answer, or of an assistant's turn."""
    if isinstance(part, n.Text):
        return {"text": part.text}
    if isinstance(part, n.Thinking):
        thought = {"text": part.text} | ({"signature": part.signature} if part.signature else {})
        return {"reasoningContent": {"reasoningText": thought}}
    made = made_arguments(part.arguments)
    return {"toolUse": {"toolUseId": part.call_id, "name": part.name, "input": made}}


def read_error(status: int, data: bytes) -> n.Failed:
    """A provider's error body, whatever it is."""
    try:
        value = answered(data)
    except Unreadable:
        return n.Failed(status, "", told(data) or f"status {status}")
    message = text_in(value, "message") or text_in(value, "Message") or told(data)
    return n.Failed(status, text_in(value, "__type"), message or f"status {status}")


def write_error(failed: n.Failed) -> bytes:
    """An error body for the client."""
    kind = _KINDS.get(failed.status)
    if kind is None:
        kind = "ValidationException" if 400 < failed.status < 500 else "InternalServerException"
    return dump({"message": failed.message, "__type": kind})


def read_stop(reason: str) -> n.Stop:
    """Why it stopped; an unknown reason is an ordinary end."""
    return _READ_STOPS.get(reason, "end")


def read_counts(usage: dict[str, object]) -> n.Counts:
    """Usage as Bedrock says it: cached input lies beside `inputTokens`."""
    fresh, made = count_in(usage, "inputTokens"), count_in(usage, "outputTokens")
    read = count_in(usage, "cacheReadInputTokens")
    written = count_in(usage, "cacheWriteInputTokens")
    whole = None if fresh is None else fresh + (read or 0) + (written or 0)
    return n.Counts(whole, made, read, written)


def write_counts(counts: n.Counts) -> dict[str, object]:
    """Usage as Bedrock says it."""
    inputs, outputs = counts.input_tokens or 0, counts.output_tokens or 0
    read = min(counts.cache_read or 0, inputs)
    written = min(counts.cache_write or 0, inputs - read)
    return {
        "inputTokens": inputs - read - written,
        "outputTokens": outputs,
        "totalTokens": inputs + outputs,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
    }
