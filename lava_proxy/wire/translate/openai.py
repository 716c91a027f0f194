"""OpenAI chat completions: requests, whole answers and errors, both ways. Streams: openai_stream.

What is refused, dropped or mapped is listed in docs/rewrite.md.
"""

from __future__ import annotations

import re
from typing import cast, get_args

from . import neutral as n
from .members import (
    Members,
    Unreadable,
    answered,
    count_in,
    dump,
    object_in,
    objects_in,
    parse,
    refuse,
    text_in,
)

HARMLESS = frozenset(
    {
        "metadata",
        "store",
        "seed",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "logprobs",
        "logit_bias",
    }
)
"""Members that change nothing that is said; the last two are looked at first."""
_NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "functions": ([],),
}
"""Members that may be there if they say what would be done anyway."""
_EFFORTS = {"none": None, "xhigh": "high", "max": "high"}
_DATA_URL = re.compile(r"data:([\w.+/-]+);base64,(.*)", re.DOTALL)
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


def read_request(body: bytes) -> n.Request:
    """A caller's request."""
    top = Members(parse(body))
    for name, allowed in _NEUTRAL_VALUES.items():
        value = top.take(name)
        if value is not None and value not in allowed:
            refuse(name, "cannot be translated to the provider's format")
    messages, system = _read_messages(top)
    options = top.inner("stream_options")
    cap = top.whole("max_completion_tokens")
    old_cap = top.whole("max_tokens")
    request = n.Request(
        model=top.word("model"),
        messages=messages,
        system=system,
        tools=tuple(_read_tool(t, f"tools.{i}") for i, t in enumerate(top.items("tools"))),
        choice=_read_choice(top.take("tool_choice")),
        parallel=top.flag("parallel_tool_calls"),
        temperature=top.number("temperature"),
        top_p=top.number("top_p"),
        output_cap=cap if cap is not None else old_cap,
        stop=_read_stop(top),
        stream=bool(top.flag("stream")),
        wants_usage=bool(options and options.flag("include_usage")),
        format=_read_format(top.inner("response_format")),
        effort=_read_effort(top.text("reasoning_effort")),
        user=top.text("user"),
    )
    top.rest(HARMLESS)
    return request


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
        message["tool_calls"] = [_write_call(call) for call in calls]
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


def read_error(status: int, data: bytes) -> n.Failed:
    """A provider's error body, whatever it is."""
    try:
        return error_in(answered(data), status)
    except Unreadable:
        return n.Failed(status, "", data[:500].decode("utf-8", "replace") or f"status {status}")


def error_in(value: dict[str, object], status: int = 0) -> n.Failed:
    """The error that an object tells of."""
    error = value.get("error")
    if isinstance(error, dict):
        message = text_in(error, "message") or dump(error).decode()
        kind = text_in(error, "code") or text_in(error, "type")
        return n.Failed(status or count_in(error, "status_code") or 0, kind, message)
    message = error if isinstance(error, str) else text_in(value, "message")
    return n.Failed(status, "", message or dump(value)[:500].decode("utf-8", "replace"))


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


def _read_messages(top: Members) -> tuple[tuple[n.Message, ...], tuple[str, ...]]:
    """The turns, and what the system says wherever it stands."""
    messages: list[n.Message] = []
    system: list[str] = []
    for index, item in enumerate(top.items("messages")):
        message = Members(item, f"messages.{index}")
        role = message.word("role")
        content = _read_content(message)
        if role in ("system", "developer"):
            for part in content:
                if not isinstance(part, n.Text):
                    refuse(message.at("content"), "a system message holds text only")
                if part.text:
                    system.append(part.text)
        elif role == "user":
            messages.append(n.Message("user", content))
        elif role == "tool":
            result = n.ToolResult(message.word("tool_call_id"), content)
            messages.append(n.Message("user", (result,)))
        elif role == "assistant":
            messages.append(n.Message("assistant", content + _read_calls(message)))
        else:
            refuse(message.at("role"), f"{role!r} cannot be translated")
        message.rest(
            frozenset({"name", "refusal", "reasoning_content", "reasoning", "annotations"})
        )
    found = n.merged(messages)
    if not found:
        refuse("messages", "needs a message that is not empty")
    return found, tuple(system)


def _read_content(message: Members) -> tuple[n.Text | n.Image, ...]:
    value = message.take("content")
    if value is None:
        return ()
    if isinstance(value, str):
        return (n.Text(value),)
    if not isinstance(value, list):
        refuse(message.at("content"), "must be a string or an array")
    return tuple(
        _read_part(Members(item, f"{message.at('content')}.{index}"))
        for index, item in enumerate(value)
    )


def _read_part(part: Members) -> n.Text | n.Image:
    kind = part.word("type")
    if kind == "text":
        return n.Text(part.text("text") or "")
    if kind == "refusal":
        return n.Text(part.text("refusal") or "")
    if kind != "image_url":
        refuse(part.at("type"), f"{kind!r} cannot be translated")
    image = part.inner("image_url") or Members({}, part.at("image_url"))
    url = image.word("url")
    data = _DATA_URL.fullmatch(url)
    if data is not None:
        return n.Image(media_type=data.group(1), data=data.group(2))
    if not url.startswith(("https://", "http://")):
        refuse(image.at("url"), "must be an http URL or a base64 data URL")
    return n.Image(url=url)


def _read_calls(message: Members) -> tuple[n.ToolCall, ...]:
    calls = []
    for index, item in enumerate(message.items("tool_calls")):
        call = Members(item, f"{message.at('tool_calls')}.{index}")
        if call.text("type") not in (None, "function"):
            refuse(call.at("type"), "only functions can be translated")
        made = call.inner("function") or Members({}, call.at("function"))
        calls.append(n.ToolCall(call.word("id"), made.word("name"), made.text("arguments") or ""))
    return tuple(calls)


def _read_tool(item: object, path: str) -> n.Tool:
    tool = Members(item, path)
    if tool.word("type") != "function":
        refuse(tool.at("type"), "only functions can be translated")
    made = tool.inner("function") or Members({}, tool.at("function"))
    schema = made.take("parameters") or {"type": "object", "properties": {}}
    return n.Tool(made.word("name"), made.text("description") or "", schema)


def _read_choice(value: object) -> n.Choice | None:
    if value is None:
        return None
    if value == "auto":
        return n.Choice("auto")
    if value == "none":
        return n.Choice("none")
    if value == "required":
        return n.Choice("required")
    choice = Members(value, "tool_choice") if isinstance(value, dict) else None
    if choice is None or choice.text("type") != "function":
        refuse("tool_choice", "must be auto, none, required or a function")
    made = choice.inner("function") or Members({}, "tool_choice.function")
    return n.Choice("tool", made.word("name"))


def _read_stop(top: Members) -> tuple[str, ...]:
    value = top.take("stop")
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if value is not None and ((not values and value != []) or not _texts(values)):
        refuse("stop", "must be a string or an array of strings")
    return tuple(cast("list[str]", values))


def _texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _read_format(wanted: Members | None) -> n.Format | None:
    if wanted is None:
        return None
    kind = wanted.word("type")
    if kind == "text":
        return None
    if kind != "json_schema":
        refuse("response_format.type", f"{kind!r} has no equivalent; use json_schema")
    held = wanted.inner("json_schema") or Members({}, "response_format.json_schema")
    schema = held.take("schema")
    if not isinstance(schema, dict):
        refuse(held.at("schema"), "is required")
    return n.Format(schema, held.text("name") or "answer")


def _read_effort(word: str | None) -> n.Effort | None:
    effort = _EFFORTS.get(word, word) if word is not None else None
    if effort is not None and effort not in get_args(n.Effort):
        refuse("reasoning_effort", f"{word!r} is not known")
    return cast("n.Effort | None", effort)


def _write_messages(request: n.Request) -> list[dict[str, object]]:
    out: list[dict[str, object]] = [{"role": "system", "content": t} for t in request.system]
    for message in request.messages:
        if message.role == "assistant":
            out.append(_write_assistant(message))
            continue
        out += [_write_result(p) for p in message.parts if isinstance(p, n.ToolResult)]
        rest = [p for p in message.parts if isinstance(p, n.Text | n.Image)]
        if rest:
            out.append({"role": "user", "content": _write_parts(rest)})
    return out


def _write_assistant(message: n.Message) -> dict[str, object]:
    texts = [p for p in message.parts if isinstance(p, n.Text | n.Image)]
    calls = [p for p in message.parts if isinstance(p, n.ToolCall)]
    out: dict[str, object] = {"role": "assistant", "content": _write_parts(texts) or None}
    if calls:
        out["tool_calls"] = [_write_call(call) for call in calls]
    return out


def _write_result(result: n.ToolResult) -> dict[str, object]:
    if any(isinstance(part, n.Image) for part in result.parts):
        refuse("messages", "an image in a tool's result has no equivalent in the provider's format")
    text = "\n".join(part.text for part in result.parts if isinstance(part, n.Text))
    return {"role": "tool", "tool_call_id": result.call_id, "content": text}


def _write_parts(parts: list[n.Text | n.Image]) -> object:
    if len(parts) == 1 and isinstance(parts[0], n.Text):
        return parts[0].text
    return [_write_part(part) for part in parts]


def _write_part(part: n.Text | n.Image) -> dict[str, object]:
    if isinstance(part, n.Text):
        return {"type": "text", "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _write_call(call: n.ToolCall) -> dict[str, object]:
    made = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.call_id, "type": "function", "function": made}


def _write_choice(choice: n.Choice) -> object:
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode
