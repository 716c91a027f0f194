"""Gemini generateContent: one indented document, CRLF events, or an array sent piecemeal."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from lava_proxy.net.simulated.plan import JsonObject, Plan
from lava_proxy.net.simulated.script import Ending, Piece, Script
from lava_proxy.net.simulated.text import fresh_id, word_json, words

_JSON = (("content-type", "application/json; charset=UTF-8"),)
_SSE = (("content-type", "text/event-stream"),)
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def error(status: int, message: str) -> Script:
    """Google's error body."""
    fault = {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}
    return Script.plain(_indented({"error": fault}), status=status, headers=_JSON)


def generate_content(plan: Plan) -> Script:
    """POST .../models/{model}:generateContent."""
    answer = _Answer(plan)
    return Script.plain(
        _indented(answer.chunk(words(plan.tokens), plan.tokens, last=True)),
        delay_s=plan.whole_s,
        tokens=plan.output_tokens,
        headers=_JSON,
        ends=plan.ends,
    )


def stream_generate_content(plan: Plan, *, sse: bool) -> Script:
    """POST .../models/{model}:streamGenerateContent, with or without ``alt=sse``."""
    answer = _Answer(plan)
    pieces = answer.events() if sse else answer.array()
    headers = _SSE if sse else _JSON
    return Script(pieces, headers=headers, ends=plan.ends, paced_s=plan.pace_s)


def count_tokens(plan: Plan) -> Script:
    """POST .../models/{model}:countTokens."""
    return Script.plain(_indented({"totalTokens": plan.input_tokens}), headers=_JSON)


class _Answer:
    """One answer's chunks; every chunk carries the counts so far, as the API does."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._id = fresh_id("")[:23]

    def chunk(self, text: str, tokens: int, *, last: bool) -> JsonObject:
        """The document that carries `text`, `tokens` being the count up to here."""
        plan = self._plan
        candidate: dict[str, object] = {"content": {"parts": [{"text": text}], "role": "model"}}
        if last:
            candidate["finishReason"] = "MAX_TOKENS" if plan.capped else "STOP"
        candidate["index"] = 0
        usage: dict[str, object] = {
            "promptTokenCount": plan.input_tokens,
            "candidatesTokenCount": tokens,
            "totalTokenCount": plan.input_tokens + plan.think + tokens,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": plan.input_tokens}],
        }
        if plan.cached:
            usage["cachedContentTokenCount"] = plan.cached
        if plan.think:
            usage["thoughtsTokenCount"] = plan.think
        document: dict[str, object] = {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": plan.model,
            "responseId": self._id,
        }
        return document

    def events(self) -> Iterator[Piece]:
        """Server-sent events with CRLF line ends; no end marker but the finish reason."""
        for document, wait_s, tokens in self._chunks():
            yield Piece(b"data: %b\r\n\r\n" % orjson.dumps(document), wait_s, tokens)

    def array(self) -> Iterator[Piece]:
        """One JSON array, element by element."""
        opening = b"["
        for document, wait_s, tokens in self._chunks():
            yield Piece(opening + _indented(document), wait_s, tokens)
            opening = b",\r\n"
        if self._plan.ends is Ending.CLEAN:
            yield Piece(b"]\n")

    def _word(self, number: int) -> str:
        word: str = orjson.loads(word_json(number, stamp=self._plan.stamp))
        return word

    def _chunks(self) -> Iterator[tuple[JsonObject, float, int]]:
        plan = self._plan
        wait_s = plan.think * plan.pace_s
        for number in range(plan.shown()):
            wait_s += plan.pace_s
            yield self.chunk(self._word(number), number + 1, last=False), wait_s, 1
            wait_s = 0.0
        if plan.ends is Ending.CLEAN:
            yield self.chunk("", plan.tokens, last=True), wait_s, 0


def _indented(document: object) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"
