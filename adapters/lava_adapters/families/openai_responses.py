"""OpenAI responses (also DeepSeek, xAI, OpenRouter, LM Studio, and Perplexity's agent): stored,
chained, in the background; and decisions, which answer questions with a few tokens each.

A background response states no usage at first; a later GET does, so answers to GET, cancel and
compact are read too. Free: deleting, listing input items, counting input tokens, conversations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Ask, Framing, Reader
from ..fold import Unread
from ..framings import json_or_sse
from ..jsonedit import find_member, set_member
from ..paths import ids_behind
from ..quirks import Quirks
from ..replies import CUT_CODE, cut_message, dump, openai_error, openai_refusal, with_facts
from ..strict import flag, limit, parse, text, tier
from ..tool_fees import of_responses
from ..weigh import weigh
from .openai_responses_reader import ResponsesReader

_CAP = "max_output_tokens"
_STORED = ("previous_response_id", "conversation", "prompt")
_PRICED = frozenset(
    (
        "model",
        "preset",
        "questions",
        "stream",
        "background",
        "input",
        "service_tier",
        "tools",
        "max_tool_calls",
    )
) | frozenset((_CAP, *_STORED))
DECISION_TOKENS = 100
"""No answer to one question is known to take more (Perplexity: 24)."""
_FREE = ("free", "conversations")
_PARENTS = ("responses", "conversations")
_VERBS = ("compact", "input_tokens")


class OpenAIResponses:
    """kind "responses", "retrieve", "cancel", "compact", "decisions", "conversations" or "free"."""

    family = "openai_responses"

    def __init__(self, quirks: Quirks, kind: str = "responses") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        named = _ids_in_path(path)
        if self._kind in ("retrieve", "cancel") or method in ("GET", "HEAD", "DELETE"):
            stream = "stream=true" in query.split("&")
            free = self._kind in _FREE or method == "DELETE"
            return Ask(stream=stream, makes_output=False, free=free, object_ids=named)
        free = self._kind in _FREE
        request = parse(body or b"{}" if free else body, _PRICED)
        weight = weigh(body, request)
        stored = _stored(request)
        fees, rounds = of_responses(request)
        if request.get("preset") is not None:
            fees, rounds = (("web_search", None),), None
        return Ask(
            # Perplexity's preset stands for a model, and for tools of its own.
            model=text(request, "model") or text(request, "preset"),
            stream=flag(request, "stream"),
            output_cap=_decided(request) if self._kind == "decisions" else limit(request, _CAP),
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden or bool(stored) or _brings_more(request),
            capable_of_cap=self._kind == "responses",
            background=flag(request, "background"),
            free=free,
            makes_output=not free,
            object_ids=tuple(dict.fromkeys((*named, *stored, *weight.object_ids))),
            service_tier=tier(request, "service_tier"),
            tool_fees=fees,
            rounds=rounds,
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is None or not ask.capable_of_cap:
            return body
        member = find_member(body, _CAP)
        if member is not None and ask.output_cap is not None and ask.output_cap <= output_cap:
            return body
        return set_member(body, _CAP, b"%d" % output_cap)

    def framing(self, ask: Ask, content_type: str) -> Framing:
        return json_or_sse(ask, content_type)

    def reader(self, ask: Ask) -> Reader:
        # A new conversation costs nothing, but its id is read: it has an owner.
        read = not ask.free or self._kind == "conversations"
        return ResponsesReader(ask) if read else Unread(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        if framing is not Framing.SSE:
            return b""
        message = cut_message(message)
        # The documented event, which typed clients expect, with the error object that makes the
        # SDKs raise.
        error = openai_error(CUT_CODE, "insufficient_quota", message, {})
        del error["param"]
        event: dict[str, object] = {"type": "error", "code": CUT_CODE, "message": message}
        event |= {"param": None, "sequence_number": events, "error": with_facts(error, facts)}
        return b"event: error\ndata: " + dump(event) + b"\n\n"

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return openai_refusal(status, code, message, facts)


def _ids_in_path(path: str) -> tuple[str, ...]:
    """The object after ``/responses/`` or ``/conversations/``; verbs there are no ids."""
    return tuple(name for name in ids_behind(path, *_PARENTS) if name not in _VERBS)


def _stored(request: Mapping[str, Any]) -> list[str]:
    """The stored objects that the request continues."""
    found = []
    for name in _STORED:
        value = request.get(name)
        if type(value) is dict:
            value = value.get("id")
        if type(value) is str and value:
            found.append(value)
    return found


def _decided(request: Mapping[str, Any]) -> int:
    questions = request.get("questions")
    asked = len(questions) if type(questions) in (list, dict) and questions else 1
    return asked * DECISION_TOKENS


def _brings_more(request: Mapping[str, Any]) -> bool:
    """Tools of the provider's own, and presets, add to the prompt what the body does not show."""
    tools = request.get("tools")
    return request.get("preset") is not None or (
        type(tools) is list
        and any(
            type(tool) is dict and tool.get("type") not in ("function", "custom") for tool in tools
        )
    )
