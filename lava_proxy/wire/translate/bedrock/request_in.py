"""Converse requests, read from a caller. What is dropped or mapped: docs/rewrite.md.

The model, and whether to stream, stand in the URL, for whoever has no such URL in the body.
"""

from __future__ import annotations

from typing import cast, get_args

from .. import neutral as n
from ..members import Members, dump, parse, refuse

HARMLESS = frozenset(
    {"performanceConfig", "requestMetadata", "additionalModelResponseFieldPaths", "serviceTier"}
)
"""Members that change nothing that is said."""


def read_request(body: bytes, *, model: str | None, stream: bool) -> n.Request:
    """A caller's request; `model` and `stream` are the URL's."""
    top = Members(parse(body))
    named, streams = top.text("modelId"), top.flag("stream")
    config = top.inner("inferenceConfig") or Members({}, "inferenceConfig")
    tools, choice = _read_tools(top.inner("toolConfig"))
    request = n.Request(
        model=model or named or refuse("modelId", "is named by neither the URL nor the body"),
        messages=_read_messages(top),
        system=_read_system(top),
        tools=tools,
        choice=choice,
        temperature=config.number("temperature"),
        top_p=config.number("topP"),
        output_cap=config.whole("maxTokens"),
        stop=_read_stop(config),
        stream=stream or bool(streams),
        wants_usage=True,
    )
    config.rest()
    if top.take("additionalModelRequestFields") not in (None, {}):
        refuse("additionalModelRequestFields", "cannot be translated to the provider's format")
    top.rest(HARMLESS)
    return request


def _read_messages(top: Members) -> tuple[n.Message, ...]:
    messages = []
    for message in top.within("messages"):
        role = message.word("role")
        if role not in get_args(n.Role):
            refuse(message.at("role"), "must be user or assistant")
        parts = [_read_block(block) for block in message.within("content")]
        kept = tuple(part for part in parts if part is not None)
        messages.append(n.Message(cast("n.Role", role), kept))
    found = n.merged(messages)
    if not found:
        refuse("messages", "needs a message that is not empty")
    return found


def _read_block(block: Members) -> n.Part | None:
    if block.has("text"):
        return n.Text(block.text("text") or "")
    if (image := block.inner("image")) is not None:
        return _read_image(image)
    if (document := block.inner("document")) is not None:
        source = document.inner("source") or Members({}, document.at("source"))
        if document.word("format") != "pdf":
            refuse(document.at("format"), "must be pdf")
        return n.File(source.word("bytes"), document.text("name") or "document")
    if (call := block.inner("toolUse")) is not None:
        arguments = dump(call.take("input") or {}).decode()
        return n.ToolCall(call.word("toolUseId"), call.word("name"), arguments)
    if (result := block.inner("toolResult")) is not None:
        return _read_result(result)
    if (thought := block.inner("reasoningContent")) is not None:
        said = thought.inner("reasoningText")
        if said is None:
            return None
        return n.Thinking(said.text("text") or "", said.text("signature") or "")
    block.rest(frozenset({"cachePoint", "text"}))
    return None


def _read_image(image: Members) -> n.Image:
    source = image.inner("source") or Members({}, image.at("source"))
    return n.Image(media_type=f"image/{image.word('format')}", data=source.word("bytes"))


def _read_result(result: Members) -> n.ToolResult:
    parts: list[n.Shown] = []
    for block in result.within("content"):
        if block.has("json"):
            parts.append(n.Text(dump(block.take("json")).decode()))
            continue
        part = _read_block(block)
        if not isinstance(part, n.Shown):
            refuse(block.path, "holds text, JSON, images and documents only")
        parts.append(part)
    failed = result.text("status") == "error"
    return n.ToolResult(result.word("toolUseId"), tuple(parts), failed)


def _read_system(top: Members) -> tuple[str, ...]:
    texts = [block.text("text") for block in top.within("system")]
    return tuple(text for text in texts if text)


def _read_stop(config: Members) -> tuple[str, ...]:
    found = []
    for index, value in enumerate(config.items("stopSequences")):
        if not isinstance(value, str):
            refuse(f"{config.at('stopSequences')}.{index}", "must be a string")
        found.append(value)
    return tuple(found)


def _read_tools(config: Members | None) -> tuple[tuple[n.Tool, ...], n.Choice | None]:
    if config is None:
        return (), None
    tools = []
    for tool in config.within("tools"):
        made = tool.inner("toolSpec")
        if made is None:
            tool.rest(frozenset({"cachePoint"}))
            continue
        schema = (made.inner("inputSchema") or Members({}, made.path)).take("json")
        schema = schema or {"type": "object", "properties": {}}
        tools.append(n.Tool(made.word("name"), made.text("description") or "", schema))
    choice = config.inner("toolChoice")
    if choice is None:
        return tuple(tools), None
    named = choice.inner("tool")
    if named is not None:
        return tuple(tools), n.Choice("tool", named.word("name"))
    return tuple(tools), n.Choice("required" if choice.take("any") is not None else "auto")
