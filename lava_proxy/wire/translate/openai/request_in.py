"""OpenAI chat requests, read from a caller. What is dropped or mapped: docs/rewrite.md."""

from __future__ import annotations

import re
from typing import cast, get_args

from .. import neutral as n
from ..members import Members, parse, refuse

HARMLESS = frozenset(
    {
        "metadata",
        "store",
        "seed",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
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


def _read_content(message: Members) -> tuple[n.Shown, ...]:
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


def _read_part(part: Members) -> n.Shown:
    kind = part.word("type")
    if kind == "text":
        return n.Text(part.text("text") or "")
    if kind == "refusal":
        return n.Text(part.text("refusal") or "")
    if kind == "file":
        return _read_file(part.inner("file") or Members({}, part.at("file")))
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


def _read_file(file: Members) -> n.File:
    """Only what is in the request itself: ids are a provider's own."""
    data = _DATA_URL.fullmatch(file.word("file_data"))
    if data is None or data.group(1) != n.PDF:
        refuse(file.at("file_data"), "must be a base64 data URL of a PDF")
    return n.File(data.group(2), file.text("filename") or "document")


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
