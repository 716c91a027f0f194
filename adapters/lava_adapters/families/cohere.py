"""Cohere's own paths: chat v1 and v2, generate, embed and rerank.

What is billed is `billed_units`; `tokens` beside them are the raw counts, far larger, and cached
tokens are counted on that raw basis, so they are no part of the billed input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Ask, Framing, Reader, Usage
from ..counts import member, objects, take
from ..fold import Fold, Unread
from ..framings import json_or_sse, media_type
from ..jsonedit import find_member, set_member
from ..quirks import Quirks
from ..replies import cut_message, dump, with_facts
from ..strict import flag, limit, parse, text
from ..tool_fees import of_rerank
from ..weigh import weigh
from .plain import Plain

_CAP = "max_tokens"
_PRICED = frozenset(
    ("model", "stream", "message", "messages", "prompt", "texts", "query", "documents", _CAP)
)
_BILLED = {
    "input_tokens": "input",
    "output_tokens": "output",
    "text_tokens": "text",
    "image_tokens": "image",
    "search_units": "search_units",
}


class Cohere(Plain):
    """kind "chat", "generate", "embed", "rerank" or "free"."""

    family = "cohere"

    def __init__(self, quirks: Quirks, kind: str = "chat") -> None:
        self._kind = kind
        self._talks = kind in ("chat", "generate")

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        if self._kind == "free" or method in ("GET", "HEAD", "DELETE"):
            return Ask(free=True, makes_output=False)
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        connected = bool(request.get("connectors") or request.get("conversation_id"))
        return Ask(
            model=text(request, "model"),
            stream=self._talks and flag(request, "stream"),
            output_cap=limit(request, _CAP) if self._talks else None,
            choices=(limit(request, "num_generations") or 1) if self._kind == "generate" else 1,
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden or connected,
            capable_of_cap=self._talks,
            makes_output=self._talks,
            tool_fees=(
                of_rerank(request.get("documents"), weight.text_bytes)
                if self._kind == "rerank"
                else ()
            ),
            object_ids=tuple(weight.object_ids),
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is None or not ask.capable_of_cap:
            return body
        found = find_member(body, _CAP)
        if found is not None and ask.output_cap is not None and ask.output_cap <= output_cap:
            return body
        return set_member(body, _CAP, b"%d" % output_cap)

    def framing(self, ask: Ask, content_type: str) -> Framing:
        if media_type(content_type) == "application/stream+json":
            return Framing.NDJSON  # v1
        framing = json_or_sse(ask, content_type)
        return Framing.NDJSON if framing is Framing.JSON and ask.stream else framing

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask) if ask.free else CohereReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        message = cut_message(message)
        if framing is Framing.SSE:
            delta: dict[str, object] = {"finish_reason": "ERROR", "error": message}
            delta |= {"usage": {"billed_units": {}}}
            body = dump({"type": "message-end", "delta": with_facts(delta, facts)})
            return b"event: message-end\ndata: " + body + b"\n\n"
        if framing is Framing.NDJSON:
            end: dict[str, object] = {"is_finished": True, "event_type": "stream-end"}
            end |= {"finish_reason": "ERROR", "error": message, "response": {}}
            return dump(with_facts(end, facts)) + b"\n"
        return b""

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return dump(with_facts({"message": message, "code": code}, facts))


class CohereReader(Fold):
    """Typed events of v2 and v1, and whole answers of every path."""

    __slots__ = ()

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        self._name(body)
        kind = body.get("type") or body.get("event_type")
        if kind == "message-end":
            delta = body.get("delta")
            self._end(member(delta, "usage"), member(delta, "finish_reason"))
            self.failed = self.failed or member(delta, "error") is not None
        elif kind == "stream-end":
            self._end(member(body, "response", "meta"), body.get("finish_reason"))
        elif type(kind) is str and kind:
            self._delta(kind, body)
            if self.text and kind in ("content-delta", "text-generation"):
                self._framed(data)
        elif member(body, "delta", "message") is None and not self._ask.stream:
            self._whole(body)

    def _end(self, usage: object, reason: object) -> None:
        self.ended = True
        if type(reason) is str and reason.startswith("ERROR"):
            self.failed = True
        self._state(usage)
        self.final = bool(self._counts)

    def _whole(self, body: dict[str, Any]) -> None:
        usage = body.get("usage")
        self._state(usage if type(usage) is dict else body.get("meta"))
        self.final = self.ended = bool(self._counts)
        written = body.get("text")
        seen = written if type(written) is str else ""
        parts = [*objects(member(body, "message", "content")), *objects(body.get("generations"))]
        for part in parts:
            for key in ("text", "thinking"):
                if type(value := part.get(key)) is str:
                    seen += value
        for call in objects(member(body, "message", "tool_calls")):
            self.tool_calls += 1
            seen += _call_text(call)
        if seen:
            self.more(seen)

    def _delta(self, kind: str, body: dict[str, Any]) -> None:
        message = member(body, "delta", "message")
        seen = ""
        for key in ("text", "thinking"):
            if type(value := member(message, "content", key)) is str:
                seen += value
        if kind == "text-generation" and type(value := body.get("text")) is str:
            seen += value
        if type(plan := member(message, "tool_plan")) is str:
            seen += plan
        calls = member(message, "tool_calls")
        if type(calls) is dict:
            self.tool_calls += kind == "tool-call-start"
            seen += _call_text(calls)
        if seen:
            self.more(seen)

    def _state(self, usage: object) -> None:
        take(member(usage, "billed_units"), _BILLED, self._counts)
        self._usage = None

    def _settle(self) -> Usage:
        counts, talks = self._counts, self._ask.makes_output
        entered, images = counts.get("input", counts.get("text")), counts.get("image")
        if images and not talks:  # embed bills pictures as tokens beside the text's
            entered = (entered or 0) + images
        units = counts.get("search_units")
        return Usage(
            input_tokens=entered,
            output_tokens=counts.get("output") if talks or entered is None else 0,
            input_image_tokens=images or None,
            search_units=units,
            model=self.model or self._ask.model,
        )


def _call_text(call: dict[str, Any]) -> str:
    texts = (member(call, "function", "name"), member(call, "function", "arguments"))
    return "".join(value for value in texts if type(value) is str)
