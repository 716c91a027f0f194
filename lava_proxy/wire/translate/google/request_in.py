"""generateContent requests, read from a caller. What is dropped or mapped: docs/rewrite.md.

The model, and whether to stream, stand in the URL, for whoever has no such URL in the body. Every
name may be spelt in two ways, as protobuf's JSON has it.
"""

from __future__ import annotations

import re

from .. import neutral as n
from ..members import Members, dump, parse, refuse
from .schema import lowered

HARMLESS = frozenset({"safetySettings", "labels"})
"""Members that change nothing that is said elsewhere."""
_HARMLESS_IN_CONFIG = frozenset({"seed", "responseModalities", "mediaResolution", "audioTimestamp"})
_MODES = {"AUTO": "auto", "NONE": "none", "ANY": "required", "VALIDATED": "auto"}
_LEVELS: dict[str, n.Effort] = {
    "MINIMAL": "minimal",
    "LOW": "low",
    "MEDIUM": "medium",
    "HIGH": "high",
}
_CAPITAL = re.compile(r"[A-Z]")


class Both(Members):
    """Members in either spelling: ``inlineData`` or ``inline_data``."""

    __slots__ = ()

    def __init__(self, value: object, path: str = "") -> None:
        if isinstance(value, dict):
            value = {_camel(name): member for name, member in value.items()}
        super().__init__(value, path)


def read_request(body: bytes, *, model: str | None, stream: bool) -> n.Request:
    """A caller's request; `model` and `stream` are the URL's."""
    top = Both(parse(body))
    named, streams = top.text("model"), top.flag("stream")
    config = top.inner("generationConfig") or Both({}, "generationConfig")
    request = n.Request(
        model=model or named or refuse("model", "is named by neither the URL nor the body"),
        messages=_read_contents(top),
        system=_read_system(top),
        tools=_read_tools(top),
        choice=_read_choice(top.inner("toolConfig")),
        temperature=config.number("temperature"),
        top_p=config.number("topP"),
        top_k=config.whole("topK"),
        output_cap=config.whole("maxOutputTokens"),
        stop=_read_stop(config),
        stream=stream or bool(streams),
        wants_usage=True,
        format=_read_format(config),
        effort=_read_thinking(config.inner("thinkingConfig")),
    )
    if config.whole("candidateCount") not in (None, 1):
        refuse("generationConfig.candidateCount", "cannot be translated to the provider's format")
    config.rest(_HARMLESS_IN_CONFIG)
    top.rest(HARMLESS)
    return request


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest) if head and rest else name


class _Calls:
    """Ids for the calls of a conversation, and which of them a result answers: by its id, else the
    first call of its name that has no result yet."""

    def __init__(self) -> None:
        self._made = 0
        self._open: list[tuple[str, str]] = []

    def call(self, call_id: str | None, name: str) -> str:
        self._made += 1
        call_id = call_id or f"call_{self._made}"
        self._open.append((call_id, name))
        return call_id

    def result(self, call_id: str | None, name: str) -> str:
        for place, (open_id, open_name) in enumerate(self._open):
            if open_id == call_id or (call_id is None and open_name == name):
                del self._open[place]
                return open_id
        return self.call(call_id, name)


def _read_contents(top: Both) -> tuple[n.Message, ...]:
    calls = _Calls()
    messages = []
    for content in top.within("contents"):
        role = content.text("role") or "user"
        if role not in ("user", "model", "function"):
            refuse(content.at("role"), f"{role!r} cannot be translated")
        parts = [_read_part(part, calls) for part in content.within("parts")]
        kept = tuple(part for part in parts if part is not None)
        messages.append(n.Message("assistant" if role == "model" else "user", kept))
    found = n.merged(messages)
    if not found:
        refuse("contents", "needs a turn that is not empty")
    return found


def _read_part(part: Both, calls: _Calls) -> n.Part | None:
    if part.flag("thought"):
        return None  # only Google can check it
    if part.has("text"):
        return n.Text(part.text("text") or "")
    if (blob := part.inner("inlineData")) is not None:
        kind = blob.word("mimeType")
        if kind == n.PDF:
            return n.File(blob.word("data"), blob.text("displayName") or "document")
        if not kind.startswith("image/"):
            refuse(blob.at("mimeType"), f"{kind!r} cannot be translated")
        return n.Image(media_type=kind, data=blob.word("data"))
    if (file := part.inner("fileData")) is not None:
        url = file.word("fileUri")
        if not url.startswith(("https://", "http://")) or "generativelanguage" in url:
            refuse(file.at("fileUri"), "must be a URL that any provider can read")
        return n.Image(url=url)
    if (call := part.inner("functionCall")) is not None:
        name = call.word("name")
        arguments = dump(call.take("args") or {}).decode()
        return n.ToolCall(calls.call(call.text("id"), name), name, arguments)
    if (result := part.inner("functionResponse")) is not None:
        return _read_result(result, calls)
    part.rest(frozenset({"thoughtSignature", "text"}))
    return None


def _read_result(result: Both, calls: _Calls) -> n.ToolResult:
    call_id = calls.result(result.text("id"), result.word("name"))
    response = result.take("response")
    failed = isinstance(response, dict) and set(response) == {"error"}
    text = response
    if isinstance(response, dict) and len(response) == 1:
        text = next((response[k] for k in ("result", "output", "error") if k in response), response)
    said = text if isinstance(text, str) else dump(text).decode()
    return n.ToolResult(call_id, (n.Text(said),) if said else (), failed)


def _read_system(top: Both) -> tuple[str, ...]:
    held = top.inner("systemInstruction")
    if held is None:
        return ()
    texts = [part.text("text") for part in held.within("parts")]
    return tuple(text for text in texts if text)


def _read_tools(top: Both) -> tuple[n.Tool, ...]:
    found = []
    for tool in top.within("tools"):
        for made in tool.within("functionDeclarations"):
            schema = made.take("parametersJsonSchema")
            if schema is None:
                schema = lowered(made.take("parameters") or {"type": "object", "properties": {}})
            found.append(n.Tool(made.word("name"), made.text("description") or "", schema))
        tool.rest()
    return tuple(found)


def _read_choice(config: Both | None) -> n.Choice | None:
    calling = config.inner("functionCallingConfig") if config else None
    if calling is None:
        return None
    names = calling.items("allowedFunctionNames")
    mode = (calling.text("mode") or "AUTO").upper()
    if len(names) == 1 and mode == "ANY":
        return n.Choice("tool", str(names[0]))
    if names:
        refuse(calling.at("allowedFunctionNames"), "one name at most, and with the mode ANY")
    found = _MODES.get(mode) or refuse(calling.at("mode"), f"{mode!r} is not known")
    return n.Choice("none" if found == "none" else "required" if found == "required" else "auto")


def _read_stop(config: Both) -> tuple[str, ...]:
    found = []
    for index, value in enumerate(config.items("stopSequences")):
        if not isinstance(value, str):
            refuse(f"{config.at('stopSequences')}.{index}", "must be a string")
        found.append(value)
    return tuple(found)


def _read_format(config: Both) -> n.Format | None:
    kind = config.text("responseMimeType")
    schema = config.take("responseJsonSchema")
    theirs = config.take("responseSchema")
    if schema is None and theirs is not None:
        schema = lowered(theirs)
    if schema is None:
        if kind not in (None, "text/plain"):
            refuse(config.at("responseMimeType"), "needs a response schema")
        return None
    return n.Format(schema)


def _read_thinking(config: Both | None) -> n.Effort | None:
    if config is None:
        return None
    level = config.text("thinkingLevel")
    if level is not None:
        return _LEVELS.get(level.upper()) or refuse(config.at("thinkingLevel"), "is not known")
    value = config.number("thinkingBudget")  # -1: as the model likes
    if value is None or value <= 0:
        return None
    return "low" if value <= 1024 else "medium" if value <= 4096 else "high"
