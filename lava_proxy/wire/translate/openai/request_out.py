"""OpenAI chat requests, written for a provider."""

from __future__ import annotations

from collections.abc import Sequence

from .. import neutral as n
from ..members import dump, refuse
from .answer import write_call


def write_request(
    request: n.Request, *, cap_member: str = "max_completion_tokens", usage_opt_in: bool = True
) -> bytes:
    """The request for a provider that speaks OpenAI's dialect."""
    if request.top_k is not None:
        refuse("top_k", "has no equivalent in the provider's format")
    body: dict[str, object] = {"model": request.model, "messages": _write_messages(request)}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": t.schema},
            }
            for t in request.tools
        ]
        if request.choice is not None:
            body["tool_choice"] = _write_choice(request.choice)
        if request.parallel is not None:
            body["parallel_tool_calls"] = request.parallel
    said: tuple[tuple[str, object], ...] = (
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        (cap_member, request.output_cap),
        ("reasoning_effort", request.effort),
        ("user", request.user),
        ("stop", list(request.stop) or None),
    )
    body |= {name: value for name, value in said if value is not None}
    if request.format is not None:
        schema = {"name": request.format.name, "schema": request.format.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.stream:
        body["stream"] = True
        if usage_opt_in:
            body["stream_options"] = {"include_usage": True}
    return dump(body)


def _write_messages(request: n.Request) -> list[dict[str, object]]:
    out: list[dict[str, object]] = [{"role": "system", "content": t} for t in request.system]
    for message in request.messages:
        if message.role == "assistant":
            out += _write_assistant(message)
            continue
        results = [p for p in message.parts if isinstance(p, n.ToolResult)]
        out += [_write_result(result) for result in results]
        # A tool message holds text only: pictures and files of results follow as the user's.
        rest: list[n.Shown] = [
            p for result in results for p in result.parts if not isinstance(p, n.Text)
        ]
        rest += [p for p in message.parts if isinstance(p, n.Shown)]
        if rest:
            out.append({"role": "user", "content": _write_parts(rest)})
    return out


def _write_assistant(message: n.Message) -> list[dict[str, object]]:
    """No message where there was nothing but reasoning."""
    texts = [p for p in message.parts if isinstance(p, n.Shown)]
    calls = [p for p in message.parts if isinstance(p, n.ToolCall)]
    if not texts and not calls:
        return []
    out: dict[str, object] = {"role": "assistant", "content": _write_parts(texts) or None}
    if calls:
        out["tool_calls"] = [write_call(call) for call in calls]
    return [out]


def _write_result(result: n.ToolResult) -> dict[str, object]:
    text = "\n".join(part.text for part in result.parts if isinstance(part, n.Text))
    return {"role": "tool", "tool_call_id": result.call_id, "content": text}


def _write_parts(parts: Sequence[n.Shown]) -> object:
    if len(parts) == 1 and isinstance(parts[0], n.Text):
        return parts[0].text
    return [_write_part(part) for part in parts]


def _write_part(part: n.Shown) -> dict[str, object]:
    if isinstance(part, n.Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, n.File):
        url = f"data:{n.PDF};base64,{part.data}"
        return {"type": "file", "file": {"filename": part.name, "file_data": url}}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _write_choice(choice: n.Choice) -> object:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode
