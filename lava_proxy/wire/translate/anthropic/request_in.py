"""Anthropic messages requests, read from a caller. What is dropped or mapped: docs/rewrite.md."""

from __future__ import annotations

from typing import cast, get_args

from .. import neutral as n
from ..members import Members, dump, parse, refuse

HARMLESS = frozenset({"cache_control", "diagnostics"})
"""Members that change nothing that is said."""
_TIERS = ("auto", "standard_only")


def read_request(body: bytes) -> n.Request:
    """A caller's request."""
    top = Members(parse(body))
    if top.text("service_tier") not in (None, *_TIERS):
        refuse("service_tier", "cannot be translated to the provider's format")
    messages, system = _read_messages(top)
    choice, parallel = _read_choice(top.inner("tool_choice"))
    wanted, effort = _read_output(top.inner("output_config"))
    about = top.inner("metadata")
    request = n.Request(
        model=top.word("model"),
        messages=n.merged(messages),
        system=(*_read_system(top), *system),
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


def _read_messages(top: Members) -> tuple[list[n.Message], list[str]]:
    """The turns, and what the system says among them."""
    messages: list[n.Message] = []
    system: list[str] = []
    for index, item in enumerate(top.items("messages")):
        message = Members(item, f"messages.{index}")
        role = message.word("role")
        if role == "system":
            system += _read_system(message, "content")
        elif role in get_args(n.Role):
            messages.append(n.Message(cast("n.Role", role), _read_blocks(message, "content")))
        else:
            refuse(message.at("role"), f"{role!r} cannot be translated")
    return messages, system


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
    if kind == "document":
        source = block.inner("source") or Members({}, block.at("source"))
        return _read_document(source, block.text("title") or "document")
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
    parts: list[n.Shown] = []
    for part in _read_blocks(holder, "content"):
        if not isinstance(part, n.Shown):
            refuse(block.at("content"), "holds text, images and documents only")
        parts.append(part)
    return n.ToolResult(call_id, tuple(parts), failed)


def _read_image(source: Members) -> n.Image:
    kind = source.word("type")
    if kind == "base64":
        return n.Image(media_type=source.word("media_type"), data=source.word("data"))
    if kind == "url":
        return n.Image(url=source.word("url"))
    refuse(source.at("type"), f"{kind!r} cannot be translated")


def _read_document(source: Members, name: str) -> n.Text | n.File:
    """Only what is in the request itself, and no other kind than PDF and plain text."""
    kind = source.word("type")
    if kind == "text":
        return n.Text(source.word("data"))
    if kind != "base64" or source.word("media_type") != n.PDF:
        refuse(source.at("type"), "must be a base64 PDF, or text")
    return n.File(source.word("data"), name)


def _read_system(holder: Members, name: str = "system") -> tuple[str, ...]:
    value = holder.take(name)
    if value is None:
        return ()
    texts = []
    for part in _read_blocks(Members({name: value}, holder.path), name):
        if not isinstance(part, n.Text):
            refuse(holder.at(name), "holds text only")
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
    if thinking is None or kind in ("adaptive", "between_tools"):
        return effort
    if kind == "disabled":
        return None
    if kind != "enabled":
        refuse("thinking.type", f"{kind!r} cannot be translated")
    budget = thinking.whole("budget_tokens") or 0
    return "low" if budget <= 1024 else "medium" if budget <= 4096 else "high"
