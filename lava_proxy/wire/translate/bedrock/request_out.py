"""Converse requests, written for Bedrock. The model and the wish to stream go in the URL."""

from __future__ import annotations

import re

from .. import neutral as n
from ..anthropic.request_out import THINKING_BUDGETS
from ..members import arguments_of, dump, refuse
from .answer import write_made

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9()\[\]-]+")
_FORMATS = frozenset({"png", "jpeg", "gif", "webp"})


def write_request(request: n.Request) -> bytes:
    """The request for a provider that speaks Bedrock's dialect."""
    if request.format is not None:
        refuse("response_format", "has no equivalent in the provider's format")
    if request.parallel is False:
        refuse("parallel_tool_calls", "has no equivalent in the provider's format")
    messages = [
        {"role": m.role, "content": [_block(part) for part in parts]}
        for m in request.messages
        if (parts := _sendable(m.parts))
    ]
    body: dict[str, object] = {"messages": messages}
    if request.system:
        body["system"] = [{"text": text} for text in request.system]
    tools = _tools(request)
    if tools is not None:
        body["toolConfig"] = tools
    said: tuple[tuple[str, object], ...] = (
        ("maxTokens", request.output_cap),
        ("temperature", request.temperature),
        ("topP", request.top_p),
        ("stopSequences", list(request.stop) or None),
    )
    config = {name: value for name, value in said if value is not None}
    if config:
        body["inferenceConfig"] = config
    more = _of_the_models_own(request)
    if more:
        body["additionalModelRequestFields"] = more
    return dump(body)


def _of_the_models_own(request: n.Request) -> dict[str, object]:
    """What only some models know, in words of their own: Anthropic's here."""
    more: dict[str, object] = {}
    if request.top_k is not None:
        more["top_k"] = request.top_k
    if request.effort is not None:
        budget = THINKING_BUDGETS[request.effort]
        more["thinking"] = {"type": "enabled", "budget_tokens": budget}
    if more and "anthropic." not in request.model:
        name = "top_k" if "top_k" in more else "reasoning_effort"
        refuse(name, "has no equivalent in the provider's format")
    return more


def _sendable(parts: tuple[n.Part, ...]) -> list[n.Part]:
    """Without the reasoning that nobody signed; tool results stand first."""
    kept = [p for p in parts if not isinstance(p, n.Thinking) or p.signature]
    results: list[n.Part] = [p for p in kept if isinstance(p, n.ToolResult)]
    return results + [p for p in kept if not isinstance(p, n.ToolResult)]


def _block(part: n.Part) -> dict[str, object]:
    if isinstance(part, n.Image):
        kind = part.media_type.removeprefix("image/")
        if part.url or kind not in _FORMATS:
            refuse("messages", "an image must be base64, of the type png, jpeg, gif or webp")
        return {"image": {"format": kind, "source": {"bytes": part.data}}}
    if isinstance(part, n.File):
        name = _NOT_IN_NAMES.sub(" ", part.name).strip() or "document"
        return {"document": {"format": "pdf", "name": name, "source": {"bytes": part.data}}}
    if isinstance(part, n.ToolResult):
        content = [_block(inner) for inner in part.parts]
        result: dict[str, object] = {"toolUseId": part.call_id, "content": content}
        if part.failed:
            result["status"] = "error"
        return {"toolResult": result}
    if isinstance(part, n.ToolCall):
        arguments_of(part.arguments, "messages.tool_calls.function.arguments")
    return write_made(part)


def _tools(request: n.Request) -> dict[str, object] | None:
    if not request.tools:
        return None
    choice = request.choice
    if choice is not None and choice.mode == "none":
        refuse("tool_choice", "'none' has no equivalent in the provider's format")
    specs = [
        {
            "toolSpec": {
                "name": tool.name,
                "description": tool.description or tool.name,
                "inputSchema": {"json": tool.schema},
            }
        }
        for tool in request.tools
    ]
    config: dict[str, object] = {"tools": specs}
    if choice is not None and choice.mode == "tool":
        config["toolChoice"] = {"tool": {"name": choice.name}}
    elif choice is not None:
        config["toolChoice"] = {"any": {}} if choice.mode == "required" else {"auto": {}}
    return config
