"""OpenAI chat answers, usage and errors, both ways. Streams: stream.py."""

from __future__ import annotations

from .. import neutral as n
from ..members import Unreadable, answered, count_in, dump, object_in, objects_in, text_in, told

STOPS: dict[n.Stop, str] = {
    "end": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool": "tool_calls",
    "filter": "content_filter",
}
_READ_STOPS: dict[str, n.Stop] = {
    "stop": "end",
    "length": "length",
    "tool_calls": "tool",
    "function_call": "tool",
    "content_filter": "filter",
}
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def read_answer(data: bytes) -> n.Answer:
    """A provider's whole answer."""
    value = answered(data)
    choices = objects_in(value, "choices")
    if not choices:
        raise Unreadable("the provider's answer has no choices")
    message = object_in(choices[0], "message")
    parts: list[n.Text | n.ToolCall | n.Thinking] = []
    thinking = text_in(message, "reasoning_content") or text_in(message, "reasoning")
    if thinking:
        parts.append(n.Thinking(thinking))
    text = text_in(message, "content") or text_in(message, "refusal")
    if text:
        parts.append(n.Text(text))
    for call in objects_in(message, "tool_calls"):
        made = object_in(call, "function")
        parts.append(
            n.ToolCall(text_in(call, "id"), text_in(made, "name"), text_in(made, "arguments"))
        )
    stop = read_stop(text_in(choices[0], "finish_reason"))
    if message.get("refusal"):
        stop = "filter"
    counts = read_counts(object_in(value, "usage"))
    return n.Answer(text_in(value, "id"), text_in(value, "model"), tuple(parts), stop, counts)


def write_answer(answer: n.Answer, *, created: int) -> bytes:
    """A whole answer for the client."""
    text = "".join(p.text for p in answer.parts if isinstance(p, n.Text))
    thinking = "".join(p.text for p in answer.parts if isinstance(p, n.Thinking))
    calls = [p for p in answer.parts if isinstance(p, n.ToolCall)]
    message: dict[str, object] = {"role": "assistant", "content": text or None, "refusal": None}
    if thinking:
        message["reasoning_content"] = thinking
    if calls:
        message["tool_calls"] = [write_call(call) for call in calls]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": STOPS[answer.stop],
    }
    return dump(
        {
            "id": answer.answer_id,
            "object": "chat.completion",
            "created": created,
            "model": answer.model,
            "choices": [choice],
            "usage": write_counts(answer.counts),
        }
    )


def write_call(call: n.ToolCall) -> dict[str, object]:
    made = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.call_id, "type": "function", "function": made}


def read_error(status: int, data: bytes) -> n.Failed:
    """A provider's error body, whatever it is."""
    try:
        return error_in(answered(data), status)
    except Unreadable:
        return n.Failed(status, "", told(data) or f"status {status}")


def error_in(value: dict[str, object], status: int = 0) -> n.Failed:
    """The error that an object tells of."""
    error = value.get("error")
    if isinstance(error, dict):
        message = text_in(error, "message") or dump(error).decode()
        kind = text_in(error, "code") or text_in(error, "type")
        return n.Failed(status or count_in(error, "status_code") or 0, kind, message)
    message = error if isinstance(error, str) else text_in(value, "message")
    return n.Failed(status, "", message or told(dump(value)))


def write_error(failed: n.Failed) -> bytes:
    """An error body for the client."""
    return dump({"error": error_object(failed)})


def error_object(failed: n.Failed) -> dict[str, object]:
    """OpenAI's error object."""
    kind = _KINDS.get(failed.status, "server_error" if failed.status >= 500 else "api_error")
    return {"message": failed.message, "type": kind, "param": None, "code": failed.kind or None}


def read_stop(reason: str) -> n.Stop:
    """Why it stopped; an unknown reason is an ordinary end."""
    return _READ_STOPS.get(reason, "end")


def read_counts(usage: dict[str, object]) -> n.Counts:
    """Usage as OpenAI says it."""
    prompt = object_in(usage, "prompt_tokens_details")
    made = object_in(usage, "completion_tokens_details")
    return n.Counts(
        count_in(usage, "prompt_tokens"),
        count_in(usage, "completion_tokens"),
        count_in(prompt, "cached_tokens"),
        count_in(prompt, "cache_write_tokens"),
        count_in(made, "reasoning_tokens"),
    )


def write_counts(counts: n.Counts) -> dict[str, object]:
    """Usage as OpenAI says it."""
    inputs, outputs = counts.input_tokens or 0, counts.output_tokens or 0
    usage: dict[str, object] = {
        "prompt_tokens": inputs,
        "completion_tokens": outputs,
        "total_tokens": inputs + outputs,
        "prompt_tokens_details": {"cached_tokens": counts.cache_read or 0},
    }
    if counts.cache_write:
        usage["prompt_tokens_details"] = {
            "cached_tokens": counts.cache_read or 0,
            "cache_write_tokens": counts.cache_write,
        }
    if counts.reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": counts.reasoning}
    return usage
