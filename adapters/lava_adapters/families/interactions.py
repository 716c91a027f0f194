"""Gemini interactions: stored, chained, in the background; by a model or by an agent.

The wish to stream stands in the body, the model too; an agent takes its place in the price. A
background interaction states no usage at first, a later GET does, so answers to GET and cancel are
read. Protobuf JSON knows every name in two spellings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Ask, AskError, Framing, Reader, ToolFee
from ..counts import objects
from ..fold import Unread
from ..framings import json_or_sse
from ..jsonedit import find_member, set_nested
from ..paths import ids_behind
from ..quirks import Quirks
from ..replies import CUT_CODE, cut_message, dump, with_facts
from ..strict import flag, parse, text
from ..weigh import weigh
from .gemini import CAPS, CONFIGS, google_config, google_error, one_of, spelling, tier_of
from .gemini_reader import BY_PROMPT
from .interactions_reader import InteractionsReader

_PREVIOUS = ("previous_interaction_id", "previousInteractionId")
_HIDING = ("continuation_token", "continuationToken", "environment", "agent")
_PRICED = frozenset(
    ("model", "stream", "background", "input", "tools", "service_tier", "serviceTier",
     *CONFIGS, *_PREVIOUS, *_HIDING)
)  # fmt: skip


class Interactions:
    """kind "interactions", "retrieve", "cancel" or "free"."""

    family = "interactions"

    def __init__(self, quirks: Quirks, kind: str = "interactions") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        named = ids_behind(path, "interactions")
        if self._kind != "interactions" or method != "POST":
            stream = "stream=true" in query.split("&")
            free = self._kind == "free" or method == "DELETE"
            return Ask(stream=stream, makes_output=False, free=free, object_ids=named)
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        stored = _stored(request)
        model = text(request, "model")
        tools = _server_tools(request)
        hidden = bool(stored) or bool(tools) or any(request.get(n) for n in _HIDING)
        return Ask(
            model=model or text(request, "agent"),
            stream=flag(request, "stream"),
            output_cap=one_of(google_config(body, request), CAPS),
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden or hidden,
            capable_of_cap=model is not None,
            background=flag(request, "background"),
            service_tier=tier_of(request),
            tool_fees=_fees(model, tools),
            rounds=1 if model is not None and not tools else None,
            object_ids=tuple(dict.fromkeys((*stored, *weight.object_ids))),
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is None or not ask.capable_of_cap:
            return body
        if ask.output_cap is not None and ask.output_cap <= output_cap:
            return body
        outer = spelling(body, CONFIGS[::-1], 0)
        config = find_member(body, outer)
        inner = CAPS[1]
        if config is not None and body.startswith(b"{", config.start):
            inner = spelling(body, CAPS[::-1], config.start)
        return set_nested(body, outer, inner, b"%d" % output_cap)

    def framing(self, ask: Ask, content_type: str) -> Framing:
        return json_or_sse(ask, content_type)

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask) if ask.free else InteractionsReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        if framing is not Framing.SSE:
            return b""
        error = with_facts({"code": CUT_CODE, "message": cut_message(message)}, facts)
        return b"event: error\ndata: " + dump({"error": error, "event_type": "error"}) + b"\n\n"

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return google_error(status, code, message, facts)


def _stored(request: Mapping[str, Any]) -> list[str]:
    """What exists at the provider already and is gone on with."""
    found = [value for name in _PREVIOUS if (value := request.get(name)) is not None]
    if len(found) > 1:
        raise AskError(f"{_PREVIOUS[0]} is given in two spellings; send it once", _PREVIOUS[0])
    if any(type(value) is not str for value in found):
        raise AskError(f"{_PREVIOUS[0]} must be a string", _PREVIOUS[0])
    if type(environment := request.get("environment")) is str:
        found.append(environment)  # named by a string, it is there already
    return [value for value in found if value]


def _server_tools(request: Mapping[str, Any]) -> list[Any]:
    """The kinds of tools that the provider runs itself: it reads the prompt again after each use.
    A list that is none is left for the provider to refuse."""
    tools = request.get("tools")
    kinds = [tool.get("type", "function") for tool in objects(tools)]
    return [kind for kind in kinds if kind != "function"]


def _fees(model: str | None, tools: list[Any]) -> tuple[tuple[ToolFee, int | None], ...]:
    """An agent has tools of its own, and uses them as it likes."""
    if model is not None and "google_search" not in tools:
        return ()
    return (("web_search", 1 if model is not None and BY_PROMPT.search(model) else None),)
