"""Anthropic messages: requests, whole answers and errors, both ways. Streams: anthropic_stream.

What is refused, dropped or mapped is listed in docs/rewrite.md.
"""

from __future__ import annotations

from typing import cast, get_args

from . import neutral as n
from .members import (
    Members,
    Unreadable,
    answered,
    arguments_of,
    count_in,
    dump,
    object_in,
    objects_in,
    parse,
    refuse,
    text_in,
)

HARMLESS = frozenset({"cache_control", "diagnostics"})
"""Members that change nothing that is said."""
_TIERS = ("auto", "standard_only")
THINKING_BUDGETS: dict[n.Effort, int] = {
    "minimal": 1024,
    "low": 1024,
    "medium": 4096,
    "high": 16384,
}
_LEAST_BUDGET = 1024
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
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
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


def read_request(body: bytes) -> n.Request:
    """A caller's request."""
    top = Members(parse(body))
    if top.text("service_tier") not in (None, *_TIERS):
        refuse("service_tier", "cannot be translated to the provider's format")
    messages = []
    for index, item in enumerate(top.items("messages")):
        message = Members(item, f"messages.{index}")
        role = message.word("role")
        if role not in get_args(n.Role):
            refuse(message.at("role"), "must be user or assistant")
        messages.append(n.Message(cast("n.Role", role), _read_blocks(message, "content")))
    choice, parallel = _read_choice(top.inner("tool_choice"))
    wanted, effort = _read_output(top.inner("output_config"))
    about = top.inner("metadata")
    request = n.Request(
        model=top.word("model"),
        messages=n.merged(messages),
        system=_read_system(top),
        tools=tuple(_read_tool(t, f"tools.{i}") for i, t in enumerate(top.items("tools"))),
        choice=choice,
        parallel=parallel,
        temperature=top.number("temperature"),
        top_p=top.number("top_p"),
        top_k=top.whole("top_k"),
        output_cap=top.whole("max_tokens"),
        stop=_read_stop(top),
        stream=bool(top.flag("stream")),
        wants_usage=True,
        format=wanted,
        effort=_read_thinking(top.inner("thinking"), effort),
        user=about.text("user_id") if about else None,
    )
    if not request.messages:
        refuse("messages", "needs a message that is not empty")
    top.rest(HARMLESS)
    return request


def write_request(request: n.Request, *, default_cap: int) -> bytes:
    """The request for a provider that speaks Anthropic's dialect, which needs `max_tokens`."""
    if request.temperature is not None and request.temperature > 1:
        refuse("temperature", "goes from 0 to 1 in the provider's format")
    cap = request.output_cap if request.output_cap is not None else default_cap
    body: dict[str, object] = {
        "model": request.model,
        "max_tokens": cap,
        "messages": [
            {"role": m.role, "content": [_write_block(p) for p in _sendable(m.parts)]}
            for m in request.messages
            if _sendable(m.parts)
        ],
    }
    if request.system:
        body["system"] = [{"type": "text", "text": text} for text in request.system]
    if request.tools:
        body["tools"] = [
            {"name": t.name, "description": t.description, "input_schema": t.schema}
            for t in request.tools
        ]
        choice = _write_choice(request)
        if choice is not None:
            body["tool_choice"] = choice
    said: tuple[tuple[str, object], ...] = (
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("top_k", request.top_k),
        ("stop_sequences", list(request.stop) or None),
        ("metadata", {"user_id": request.user} if request.user else None),
        ("thinking", _write_thinking(request, cap)),
        ("stream", request.stream or None),
    )
    body |= {name: value for name, value in said if value is not None}
    if request.format is not None:
        made = {"type": "json_schema", "schema": request.format.schema}
        body["output_config"] = {"format": made}
    return dump(body)


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
    message["content"] = [_write_made(part) for part in answer.parts]
    message["stop_reason"] = STOPS[answer.stop]
    message["stop_sequence"] = answer.stop_text
    return dump(message)


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
        return n.Failed(status, "", data[:500].decode("utf-8", "replace") or f"status {status}")


def error_in(value: dict[str, object], status: int = 0) -> n.Failed:
    """The error that an object tells of."""
    error = object_in(value, "error")
    kind = text_in(error, "type")
    message = text_in(error, "message") or dump(value)[:500].decode("utf-8", "replace")
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
    """Usage as Anthropic says it."""
    read, written = counts.cache_read or 0, counts.cache_write or 0
    usage: dict[str, object] = {
        "input_tokens": max(0, (counts.input_tokens or 0) - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": counts.output_tokens or 0,
    }
    if counts.reasoning is not None:
        usage["output_tokens_details"] = {"thinking_tokens": counts.reasoning}
    return usage


def _read_blocks(holder: Members, name: str) -> tuple[n.Part, ...]:
    value = holder.take(name)
    if isinstance(value, str):
        return (n.Text(value),)
    if not isinstance(value, list):
        refuse(holder.at(name), "must be a string or an array")
    parts = [_read_block(Members(b, f"{holder.at(name)}.{i}")) for i, b in enumerate(value)]
    return tuple(part for part in parts if part is not None)


def _read_block(block: Members) -> n.Part | None:
    kind = block.word("type")
    if kind == "text":
        return n.Text(block.text("text") or "")
    if kind == "image":
        return _read_image(block.inner("source") or Members({}, block.at("source")))
    if kind == "thinking":
        return n.Thinking(block.text("thinking") or "", block.text("signature") or "")
    if kind == "redacted_thinking":
        return None
    if kind == "tool_use":
        arguments = dump(block.take("input") or {}).decode()
        return n.ToolCall(block.word("id"), block.word("name"), arguments)
    if kind == "tool_result":
        return _read_result(block)
    refuse(block.at("type"), f"{kind!r} cannot be translated")


def _read_result(block: Members) -> n.ToolResult:
    call_id, failed = block.word("tool_use_id"), bool(block.flag("is_error"))
    content = block.take("content")
    holder = Members({"content": content if content is not None else ""}, block.path)
    parts: list[n.Text | n.Image] = []
    for part in _read_blocks(holder, "content"):
        if not isinstance(part, n.Text | n.Image):
            refuse(block.at("content"), "holds text and images only")
        parts.append(part)
    return n.ToolResult(call_id, tuple(parts), failed)


def _read_image(source: Members) -> n.Image:
    kind = source.word("type")
    if kind == "base64":
        return n.Image(media_type=source.word("media_type"), data=source.word("data"))
    if kind == "url":
        return n.Image(url=source.word("url"))
    refuse(source.at("type"), f"{kind!r} cannot be translated")


def _read_system(top: Members) -> tuple[str, ...]:
    value = top.take("system")
    if value is None:
        return ()
    texts = []
    for part in _read_blocks(Members({"system": value}), "system"):
        if not isinstance(part, n.Text):
            refuse("system", "holds text only")
        texts.append(part.text)
    return tuple(text for text in texts if text)


def _read_stop(top: Members) -> tuple[str, ...]:
    found = []
    for index, value in enumerate(top.items("stop_sequences")):
        if not isinstance(value, str):
            refuse(f"stop_sequences.{index}", "must be a string")
        found.append(value)
    return tuple(found)


def _read_tool(item: object, path: str) -> n.Tool:
    tool = Members(item, path)
    kind = tool.text("type")
    if kind not in (None, "custom"):
        refuse(tool.at("type"), f"{kind!r} runs at Anthropic and cannot be translated")
    schema = tool.take("input_schema") or {"type": "object", "properties": {}}
    return n.Tool(tool.word("name"), tool.text("description") or "", schema)


def _read_choice(choice: Members | None) -> tuple[n.Choice | None, bool | None]:
    if choice is None:
        return None, None
    kind = choice.word("type")
    alone = choice.flag("disable_parallel_tool_use")
    parallel = None if alone is None else not alone
    if kind == "tool":
        return n.Choice("tool", choice.word("name")), parallel
    if kind == "any":
        return n.Choice("required"), parallel
    if kind == "auto":
        return n.Choice("auto"), parallel
    if kind == "none":
        return n.Choice("none"), parallel
    refuse("tool_choice.type", f"{kind!r} is not known")


def _read_output(config: Members | None) -> tuple[n.Format | None, n.Effort | None]:
    if config is None:
        return None, None
    word = config.text("effort")
    effort: n.Effort | None = None
    if word is not None:
        effort = "low" if word == "low" else "medium" if word == "medium" else "high"
    wanted = config.inner("format")
    config.rest()
    if wanted is None:
        return None, effort
    if wanted.word("type") != "json_schema":
        refuse("output_config.format.type", "must be json_schema")
    return n.Format(wanted.take("schema") or {}), effort


def _read_thinking(thinking: Members | None, effort: n.Effort | None) -> n.Effort | None:
    kind = thinking.word("type") if thinking else None
    if thinking is None or kind == "adaptive":
        return effort
    if kind == "disabled":
        return None
    if kind != "enabled":
        refuse("thinking.type", f"{kind!r} cannot be translated")
    budget = thinking.whole("budget_tokens") or 0
    return "low" if budget <= 1024 else "medium" if budget <= 4096 else "high"


def _sendable(parts: tuple[n.Part, ...]) -> list[n.Part]:
    """Without the reasoning that Anthropic did not sign; tool results stand first."""
    kept = [p for p in parts if not isinstance(p, n.Thinking) or p.signature]
    results: list[n.Part] = [p for p in kept if isinstance(p, n.ToolResult)]
    return results + [p for p in kept if not isinstance(p, n.ToolResult)]


def _write_block(part: n.Part) -> dict[str, object]:
    if isinstance(part, n.Image):
        if part.url:
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
        return {"type": "image", "source": source}
    if isinstance(part, n.ToolResult):
        block: dict[str, object] = {"type": "tool_result", "tool_use_id": part.call_id}
        block["content"] = [_write_block(inner) for inner in part.parts]
        if part.failed:
            block["is_error"] = True
        return block
    return _write_made(part)


def _write_made(part: n.Text | n.ToolCall | n.Thinking) -> dict[str, object]:
    if isinstance(part, n.Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, n.Thinking):
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    made = arguments_of(part.arguments, "messages.tool_calls.function.arguments")
    return {"type": "tool_use", "id": part.call_id, "name": part.name, "input": made}


def _write_choice(request: n.Request) -> dict[str, object] | None:
    choice, alone = request.choice, request.parallel is False
    if choice is None and not alone:
        return None
    mode = choice.mode if choice else "auto"
    made: dict[str, object] = {"type": _CHOICES.get(mode, "tool")}
    if choice is not None and mode == "tool":
        made["name"] = choice.name
    if request.parallel is not None and mode != "none":
        made["disable_parallel_tool_use"] = alone
    return made


def _write_thinking(request: n.Request, cap: int) -> dict[str, object] | None:
    """Reasoning as a budget below the cap; not where the last turn called tools without signed
    reasoning, which Anthropic refuses to go on from."""
    if request.effort is None or cap <= _LEAST_BUDGET:
        return None
    made = [m for m in request.messages if m.role == "assistant"]
    parts = made[-1].parts if made else ()
    signed = any(isinstance(p, n.Thinking) and p.signature for p in parts)
    if any(isinstance(p, n.ToolCall) for p in parts) and not signed:
        return None
    budget = min(THINKING_BUDGETS[request.effort], cap - 1)
    return {"type": "enabled", "budget_tokens": budget}
