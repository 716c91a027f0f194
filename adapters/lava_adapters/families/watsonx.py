"""IBM watsonx: text generation, chat and embeddings, whole or streamed.

The wish to stream stands in the path. Generation counts in its own words: a stream states the
prompt in its first event and zero after that, and the answer's tokens so far in each, so the
largest of both counts. Chat answers as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Ask, Framing, Reader, Usage
from ..counts import count, objects
from ..fold import Fold
from ..jsonedit import set_member, set_nested
from ..quirks import Quirks
from ..replies import CUT_CODE, cut_message, dump, with_facts
from ..strict import limit, mapping, parse, text
from ..weigh import weigh
from .openai_chat_reader import ChatReader
from .plain import Plain

_PRICED = frozenset(("model_id", "input", "inputs", "messages", "parameters", "max_tokens"))
_COUNTS = {"input_token_count": "input", "generated_token_count": "output"}
_GENERATED = ("parameters", "max_new_tokens")


class Watsonx(Plain):
    """kind "generation", "chat" or "embeddings"."""

    family = "watsonx"

    def __init__(self, quirks: Quirks, kind: str = "generation") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        writes = self._kind != "embeddings"
        if self._kind == "chat":
            cap = limit(request, "max_tokens")
        else:
            cap = limit(mapping(request, _GENERATED[0]), _GENERATED[1], ".".join(_GENERATED))
        return Ask(
            model=text(request, "model_id"),
            stream=path.endswith("_stream"),
            output_cap=cap if writes else None,
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden,
            capable_of_cap=writes,
            makes_output=writes,
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is None or not ask.capable_of_cap:
            return body
        if ask.output_cap is not None and ask.output_cap <= output_cap:
            return body
        value = b"%d" % output_cap
        if self._kind == "chat":
            return set_member(body, "max_tokens", value)
        return set_nested(body, *_GENERATED, value)

    def reader(self, ask: Ask) -> Reader:
        return ChatReader(ask) if self._kind == "chat" else GenerationReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        if framing is not Framing.SSE:
            return b""
        return (
            b"event: error\ndata: " + _errors(402, CUT_CODE, cut_message(message), facts) + b"\n\n"
        )

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return _errors(status, code, message, facts)


class GenerationReader(Fold):
    """Results with their counts; of embeddings the counts stand beside them."""

    __slots__ = ()

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        self._name(body, "model_id")
        if body.get("errors") is not None or name == "error":
            self.failed = True
        seen = ""
        for result in objects(body.get("results")):
            self._most(result)
            if type(made := result.get("generated_text")) is str:
                seen += made
            self.ended = self.ended or result.get("stop_reason") not in (None, "not_finished")
        self._most(body)
        if seen:
            self.more(seen)
        if not self._ask.stream and self._counts:
            self.ended = True
        self.final = self.ended and bool(self._counts)

    def _most(self, source: dict[str, Any]) -> None:
        for theirs, ours in _COUNTS.items():
            value = count(source.get(theirs))
            if value is not None and value >= self._counts.get(ours, 0):
                self._counts[ours] = value
                self._usage = None

    def _settle(self) -> Usage:
        return Usage(
            input_tokens=self._counts.get("input"),
            output_tokens=self._counts.get("output") if self._ask.makes_output else 0,
            model=self.model or self._ask.model,
        )


def _errors(status: int, code: str, message: str, facts: Mapping[str, object]) -> bytes:
    error = with_facts({"code": code, "message": message}, facts)
    return dump({"errors": [error], "status_code": status})
