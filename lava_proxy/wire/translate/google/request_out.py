"""generateContent requests, written for Google. The model and the wish to stream go in the URL."""

from __future__ import annotations

import mimetypes

from .. import neutral as n
from ..members import arguments_of, dump
from .answer import thought_budget

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}
_SIGNED_FROM = "gemini-3"
"""Models that refuse a call in the history without its signature, or this word in its place."""
_NO_SIGNATURE = "skip_thought_signature_validator"


def write_request(request: n.Request) -> bytes:
    """The request for a provider that speaks Google's dialect."""
    body: dict[str, object] = {"contents": _contents(request)}
    if request.system:
        body["systemInstruction"] = {"parts": [{"text": text} for text in request.system]}
    if request.tools:
        made = [
            {"name": t.name, "description": t.description, "parametersJsonSchema": t.schema}
            for t in request.tools
        ]
        body["tools"] = [{"functionDeclarations": made}]
    if request.choice is not None:
        calling: dict[str, object] = {"mode": _MODES[request.choice.mode]}
        if request.choice.mode == "tool":
            calling["allowedFunctionNames"] = [request.choice.name]
        body["toolConfig"] = {"functionCallingConfig": calling}
    config = _config(request)
    if config:
        body["generationConfig"] = config
    return dump(body)


def _config(request: n.Request) -> dict[str, object]:
    said: tuple[tuple[str, object], ...] = (
        ("temperature", request.temperature),
        ("topP", request.top_p),
        ("topK", request.top_k),
        ("maxOutputTokens", request.output_cap),
        ("stopSequences", list(request.stop) or None),
        ("thinkingConfig", _thinking(request)),
    )
    config = {name: value for name, value in said if value is not None}
    if request.format is not None:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = request.format.schema
    return config


def _thinking(request: n.Request) -> dict[str, object] | None:
    if request.effort is None:
        return None
    if request.model.startswith(_SIGNED_FROM):
        return {"thinkingLevel": request.effort.upper(), "includeThoughts": True}
    return {"thinkingBudget": thought_budget(request.effort), "includeThoughts": True}


def _contents(request: n.Request) -> list[dict[str, object]]:
    names = {
        part.call_id: part.name
        for message in request.messages
        for part in message.parts
        if isinstance(part, n.ToolCall)
    }
    signs = request.model.startswith(_SIGNED_FROM)
    found: list[dict[str, object]] = []
    for message in request.messages:
        parts = [piece for part in message.parts for piece in _parts(part, names)]
        if signs:
            for part in parts:
                if "functionCall" in part:  # the first of a step answers for all
                    part["thoughtSignature"] = _NO_SIGNATURE
                    break
        if parts:
            role = "model" if message.role == "assistant" else "user"
            found.append({"role": role, "parts": parts})
    return found


def _parts(part: n.Part, names: dict[str, str]) -> list[dict[str, object]]:
    if isinstance(part, n.Text):
        return [{"text": part.text}]
    if isinstance(part, n.Image | n.File):
        return [_blob(part)]
    if isinstance(part, n.ToolCall):
        arguments = arguments_of(part.arguments, "messages.tool_calls.function.arguments")
        called: dict[str, object] = {"name": part.name, "args": arguments}
        return [{"functionCall": called}]
    if isinstance(part, n.ToolResult):
        text = "\n".join(p.text for p in part.parts if isinstance(p, n.Text))
        name = names.get(part.call_id, part.call_id)
        response: dict[str, object] = {"error" if part.failed else "result": text}
        # Pictures and files stand beside it.
        shown = [_blob(p) for p in part.parts if not isinstance(p, n.Text)]
        said: dict[str, object] = {"functionResponse": {"name": name, "response": response}}
        return [said, *shown]
    return []


def _blob(image: n.Image | n.File) -> dict[str, object]:
    if isinstance(image, n.File):
        return {"inlineData": {"mimeType": n.PDF, "data": image.data}}
    if not image.url:
        return {"inlineData": {"mimeType": image.media_type, "data": image.data}}
    kind = mimetypes.guess_type(image.url.partition("?")[0])[0] or "image/jpeg"
    return {"fileData": {"mimeType": kind, "fileUri": image.url}}
