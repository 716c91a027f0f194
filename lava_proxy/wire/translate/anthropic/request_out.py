"""Anthropic messages requests, written for a provider."""

from __future__ import annotations

from .. import neutral as n
from ..members import arguments_of, dump, refuse
from .answer import write_made

THINKING_BUDGETS: dict[n.Effort, int] = {
    "minimal": 1024,
    "low": 1024,
    "medium": 4096,
    "high": 16384,
}
_LEAST_BUDGET = 1024
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


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
    if isinstance(part, n.File):
        source = {"type": "base64", "media_type": n.PDF, "data": part.data}
        return {"type": "document", "source": source, "title": part.name}
    if isinstance(part, n.ToolResult):
        block: dict[str, object] = {"type": "tool_result", "tool_use_id": part.call_id}
        block["content"] = [_write_block(inner) for inner in part.parts]
        if part.failed:
            block["is_error"] = True
        return block
    if isinstance(part, n.ToolCall):  # in a history they must be an object
        arguments_of(part.arguments, "messages.tool_calls.function.arguments")
    return write_made(part)


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
