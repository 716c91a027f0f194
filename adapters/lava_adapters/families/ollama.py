"""Ollama's native paths: chat and generate in lines of JSON, embed.

The prompt's count is missing when the whole prompt was cached: then nothing was evaluated.
Streaming is what happens unless `stream` says false.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Ask, Framing, Reader, Usage
from ..counts import member, objects, take
from ..fold import Fold, Unread
from ..jsonedit import set_nested
from ..quirks import Quirks
from ..replies import cut_message, dump, with_facts
from ..strict import flag, limit, mapping, parse, text
from ..weigh import weigh
from .plain import Plain

_PRICED = frozenset(("model", "stream", "messages", "prompt", "options", "input"))
_COUNTS = {"prompt_eval_count": "input", "eval_count": "output"}


class Ollama(Plain):
    """kind "chat", "generate", "embed" or "free"."""

    family = "ollama"

    def __init__(self, quirks: Quirks, kind: str = "chat") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        if self._kind == "free" or method in ("GET", "HEAD", "DELETE"):
            return Ask(free=True, makes_output=False)
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        talks = self._kind != "embed"
        stream = flag(request, "stream") if request.get("stream") is not None else True
        options = mapping(request, "options")
        cap = options.get("num_predict")
        return Ask(
            model=text(request, "model"),
            stream=talks and stream,
            # -1 and -2 mean "no limit" here.
            output_cap=limit(options, "num_predict") if type(cap) is int and cap > 0 else None,
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden or request.get("context") is not None,
            capable_of_cap=talks,
            makes_output=talks,
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is None or (ask.output_cap is not None and ask.output_cap <= output_cap):
            return body
        return set_nested(body, "options", "num_predict", b"%d" % output_cap)

    def framing(self, ask: Ask, content_type: str) -> Framing:
        return Framing.NDJSON if ask.stream else Framing.JSON

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask) if ask.free else OllamaReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        if framing is not Framing.NDJSON:
            return b""
        return dump(with_facts({"error": cut_message(message)}, facts)) + b"\n"

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return dump(with_facts({"error": message, "code": code}, facts))


class OllamaReader(Fold):
    """One object per line, the last with the counts."""

    __slots__ = ()

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        self._name(body)
        if body.get("error") is not None:
            self.failed = True
        message, seen = body.get("message"), ""
        for value in (
            body.get("response"),
            body.get("thinking"),
            member(message, "content"),
            member(message, "thinking"),
        ):
            if type(value) is str:
                seen += value
        calls = objects(member(message, "tool_calls"))
        for call in calls:
            self.tool_calls += 1
            seen += dump(call.get("function")).decode()
        if seen:
            self.more(seen)
            if body.get("done") is False and not calls:
                self._framed(data)
        take(body, _COUNTS, self._counts)
        self._usage = None
        if body.get("done") is True or (not self._ask.stream and self._counts):
            self.ended = True
            self.final = bool(self._counts)

    def _settle(self) -> Usage:
        made = self._counts.get("output") if self._ask.makes_output else 0
        entered = self._counts.get("input")
        return Usage(
            input_tokens=0 if entered is None and self.final else entered,
            output_tokens=made,
            model=self.model,
        )
