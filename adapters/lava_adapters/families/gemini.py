"""Gemini: generateContent, its stream as SSE or as a JSON array, countTokens, embedContent, caches;
and predict (Imagen, Vertex AI's embeddings).

The model and the wish to stream are in the path, not in the body, but for a cache's model. The SDK
takes an error only if ``{"error":`` comes first and its code is a number. Protobuf JSON knows every
name in two spellings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Ask, AskError, Framing, Reader
from ..fold import Unread
from ..framings import json_or_sse
from ..jsonedit import find_member, repeated, set_nested
from ..quirks import Quirks
from ..replies import CUT_CODE, cut_message, dump, with_facts
from ..strict import limit, mapping, parse, text, tier
from ..tool_fees import of_gemini
from ..weigh import weigh
from .gemini_reader import BY_PROMPT, CacheReader, GeminiReader

CONFIGS = ("generationConfig", "generation_config")
CAPS = ("maxOutputTokens", "max_output_tokens")
_CHOICES = ("candidateCount", "candidate_count")
_TIERS = ("serviceTier", "service_tier")
_PRICED = frozenset(
    ("contents", "instances", "parameters", "tools", "cachedContent", "cached_content", "model")
) | frozenset((*CONFIGS, *_TIERS))
_SILENT = ("predict", "caches")
_PRICED_IN_CONFIG = frozenset((*CAPS, *_CHOICES))
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Gemini:
    """kind "gemini", "embeddings", "predict", "caches" or "free"."""

    family = "gemini"

    def __init__(self, quirks: Quirks, kind: str = "gemini") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        model, verb = _target(path)
        if self._kind == "free" or verb == "countTokens" or method in ("GET", "HEAD", "DELETE"):
            return Ask(model=model, free=True, makes_output=False, object_ids=_cache_in(path))
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        stream = verb == "streamGenerateContent"
        makes_output = self._kind not in _SILENT and "embed" not in verb.lower()
        if self._kind == "caches":
            model = (text(request, "model") or "").rpartition("/")[2] or None
        config = google_config(body, request)
        return Ask(
            model=model,
            stream=stream,
            output_cap=one_of(config, CAPS),
            choices=one_of(config, _CHOICES) or 1,
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden or _server_tools(request),
            capable_of_cap=makes_output,
            makes_output=makes_output,
            object_ids=tuple(weight.object_ids),
            service_tier=tier_of(request),
            tool_fees=of_gemini(request, by_prompt=bool(model and BY_PROMPT.search(model))),
            images=_pictures(model, request) if self._kind == "predict" else 0,
            as_array=stream and "alt=sse" not in query.split("&"),
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is None or not ask.capable_of_cap:
            return body
        if ask.output_cap is not None and ask.output_cap <= output_cap:
            return body
        outer = spelling(body, CONFIGS, 0)
        config = find_member(body, outer)
        inner = CAPS[0]
        if config is not None and body.startswith(b"{", config.start):
            inner = spelling(body, CAPS, config.start)
        return set_nested(body, outer, inner, b"%d" % output_cap)

    def framing(self, ask: Ask, content_type: str) -> Framing:
        framing = json_or_sse(ask, content_type)
        return Framing.JSON_ARRAY if framing is Framing.JSON and ask.stream else framing

    def reader(self, ask: Ask) -> Reader:
        if ask.free:
            return Unread(ask)
        return CacheReader(ask) if self._kind == "caches" else GeminiReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        body = google_error(402, CUT_CODE, cut_message(message), facts)
        if framing is Framing.SSE:
            return b"data: " + body + b"\r\n\r\n"
        if framing is Framing.JSON_ARRAY:
            return (b",\r\n" if events else b"[") + body + b"\r\n]"
        return b""

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        body = google_error(status, code, message, facts)
        return b"[" + body + b"]" if ask is not None and ask.as_array else body


def google_error(status: int, code: str, message: str, facts: Mapping[str, object]) -> bytes:
    name = _STATUS.get(status) or ("INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
    error: dict[str, object] = {"code": status, "message": message, "status": name}
    error["details"] = [{"reason": code}]
    return dump({"error": with_facts(error, facts)})


def _target(path: str) -> tuple[str | None, str]:
    """``/v1beta/models/gemini-3-pro:generateContent`` -> its model and its verb."""
    name, _, verb = path.rpartition("/")[2].partition(":")
    return (name if verb and name else None), verb


def _cache_in(path: str) -> tuple[str, ...]:
    """``/v1/projects/p/locations/l/cachedContents/7`` names that cache, without the version."""
    return (path[1:].partition("/")[2],) if "/cachedContents/" in path else ()


def google_config(body: bytes, request: Mapping[str, Any]) -> dict[str, Any]:
    given = [name for name in CONFIGS if request.get(name) is not None]
    if len(given) > 1:
        raise AskError("generationConfig is given in two spellings; send it once", given[0])
    if not given:
        return {}
    config = mapping(request, given[0])
    member = find_member(body, given[0])
    twice = repeated(body[member.start : member.end], _PRICED_IN_CONFIG) if member else None
    if twice is not None:
        raise AskError(f"the member {twice!r} occurs twice; send it once", f"{given[0]}.{twice}")
    return config


def one_of(config: Mapping[str, Any], names: tuple[str, str]) -> int | None:
    given = [name for name in names if config.get(name) is not None]
    if len(given) > 1:
        raise AskError(f"{names[0]} is given in two spellings; send it once", names[0])
    return limit(config, given[0], f"generationConfig.{given[0]}") if given else None


def spelling(body: bytes, names: tuple[str, str], start: int) -> str:
    """The spelling that the object at `start` uses already."""
    return names[1] if find_member(body, names[1], start) is not None else names[0]


def tier_of(request: Mapping[str, Any]) -> str | None:
    given = [name for name in _TIERS if request.get(name) is not None]
    if len(given) > 1:
        raise AskError("serviceTier is given in two spellings; send it once", given[0])
    found = tier(request, given[0]) if given else None
    return None if found is None else found.removeprefix("service_tier_")


def _pictures(model: str | None, request: Mapping[str, Any]) -> int:
    """What Imagen makes: four, unless it is told."""
    if model is None or not model.startswith("imagen"):
        return 0
    return limit(mapping(request, "parameters"), "sampleCount", "parameters.sampleCount") or 4


def _server_tools(request: Mapping[str, Any]) -> bool:
    tools = request.get("tools")
    if type(tools) is dict:
        tools = [tools]
    functions = {"functionDeclarations", "function_declarations"}
    return type(tools) is list and any(
        type(tool) is dict and set(tool) - functions for tool in tools
    )
