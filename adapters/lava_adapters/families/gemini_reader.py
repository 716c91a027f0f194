"""The fold over Gemini chunks: running usage, with thinking and tool prompts beside the rest.

total = prompt + toolUse + candidates + thoughts; cached tokens are inside prompt. The last chunk's
figures hold, as a set, because counts can go down on the way; as long as the answer is not finished
the largest seen of each counts, so that a cut never bills less than was reported.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from ..contract import Ask, Usage
from ..counts import clamp, count, member, objects, take
from ..fold import Fold

_TOP = {
    "promptTokenCount": "prompt",
    "candidatesTokenCount": "candidates",
    "thoughtsTokenCount": "thoughts",
    "toolUsePromptTokenCount": "tool",
    "cachedContentTokenCount": "cached",
    "totalTokenCount": "total",
}
BY_PROMPT = re.compile(r"gemini-[12]\b")
_QUERIES = ("webSearchQueries", "imageSearchQueries")
_DETAILS = (
    (("promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails"), "input"),
    (("candidatesTokensDetails",), "output"),
    (("cacheTokensDetails",), "cached"),
)


class GeminiReader(Fold):
    """`contract.Reader` of the family; `_counts` is the last chunk's, `_peaks` the largest seen."""

    __slots__ = ("_finished", "_peaks", "_searches")

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._peaks: dict[str, int] = {}
        self._finished = 0
        self._searches = 0

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        self._name(body, "modelVersion", "responseId")
        if body.get("error") is not None or name == "error":
            self.failed = True
        thought = self.thought_bytes
        seen = "".join(self._candidate(each) for each in objects(body.get("candidates")))
        if seen:
            size = self.delta_bytes
            self.more(seen)
            if self.thought_bytes - thought == self.delta_bytes - size:
                self.thoughts += 1
        if member(body, "promptFeedback", "blockReason") is not None:
            self.ended = True
        if "predictions" in body:
            self._predictions(body)
        self._state(body.get("usageMetadata"))

    def _predictions(self, body: dict[str, Any]) -> None:
        """Vertex AI's own shape: tokens beside each embedding, characters for all, pictures."""
        made = objects(body["predictions"])
        stated = [
            value
            for each in made
            if (value := count(member(each, "embeddings", "statistics", "token_count"))) is not None
        ]
        if stated:
            self._counts["prompt"] = sum(stated)
        pictures = sum("bytesBase64Encoded" in each for each in made)
        if pictures:
            self._counts["pictures"] = pictures
        take(body.get("metadata"), {"billableCharacterCount": "characters"}, self._counts)
        self._usage = None

    def _candidate(self, candidate: dict[str, Any]) -> str:
        if candidate.get("finishReason") is not None:
            self._finished += 1
            self.ended = self._finished >= self._ask.choices
        if "groundingMetadata" in candidate:
            searches = sum(_length(candidate["groundingMetadata"], name) for name in _QUERIES)
            if searches > self._searches:
                self._searches = searches
                self._usage = None
        return "".join(map(self._part, objects(member(candidate, "content", "parts"))))

    def _part(self, part: dict[str, Any]) -> str:
        """Text, thinking, code or a function call; base64 media is priced by its own counts."""
        if type(text := part.get("text")) is str:
            if part.get("thought") is True:
                self.thought_bytes += len(text.encode("utf-8", "replace"))
            return text
        if type(code := member(part, "executableCode", "code")) is str:
            return code
        call = part.get("functionCall")
        if type(call) is not dict:
            return ""
        self.tool_calls += 1
        name = call.get("name")
        arguments = orjson.dumps(call.get("args")).decode() if call.get("args") else ""
        return (name if type(name) is str else "") + arguments

    def _state(self, usage: object) -> None:
        if type(usage) is dict:
            found = _counts(usage)
            if "total" in found or "prompt" in found:
                self._counts = found
            else:
                self._counts = self._counts | found
            for name, value in found.items():
                if value > self._peaks.get(name, -1):
                    self._peaks[name] = value
            self._usage = None
            self._tier(usage.get("serviceTier") or usage.get("trafficType"))
        self.final = bool(self._counts) and (self.ended or not self._ask.stream)
        if self.final:
            self._usage = None
        if not self._ask.stream and self._counts:
            self.ended = True

    def _settle(self) -> Usage:
        counts = self._counts if self.final else self._peaks
        prompt, total = counts.get("prompt"), counts.get("total")
        entered = None if prompt is None else prompt + counts.get("tool", 0)
        made = made_of(counts, entered, total) if self._ask.makes_output else 0
        model = self.model or self._ask.model
        return Usage(
            input_tokens=entered,
            output_tokens=made,
            cache_read_tokens=clamp(counts.get("cached"), entered),
            tool_prompt_tokens=counts.get("tool"),
            input_audio_tokens=clamp(counts.get("input_AUDIO"), entered),
            input_image_tokens=clamp(counts.get("input_IMAGE"), entered),
            cached_audio_tokens=counts.get("cached_AUDIO"),
            cached_image_tokens=counts.get("cached_IMAGE"),
            reasoning_tokens=clamp(counts.get("thoughts"), made),
            output_audio_tokens=clamp(counts.get("output_AUDIO"), made),
            output_image_tokens=clamp(counts.get("output_IMAGE"), made),
            total_reported=total,
            web_searches=billed_searches(self._searches, model),
            images=counts.get("pictures"),
            input_characters=counts.get("characters"),
            model=model,
        )


class CacheReader(Fold):
    """A cache that was made: what it reads is charged once as input, apart from its keeping, which
    costs by the hour and which nobody states."""

    __slots__ = ()

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        self._name(body, "", "name")
        self.failed = self.failed or body.get("error") is not None
        take(body.get("usageMetadata"), {"totalTokenCount": "total"}, self._counts)
        self._usage = None
        self.final = self.ended = bool(self._counts)

    def _settle(self) -> Usage:
        return Usage(input_tokens=self._counts["total"], output_tokens=0, model=self._ask.model)


def _length(source: object, name: str) -> int:
    found = member(source, name)
    return len(found) if type(found) is list else 0


def billed_searches(queries: int, model: str | None) -> int | None:
    """Grounding is billed by the query; up to Gemini 2.5 by the prompt, however many it took."""
    if not queries:
        return None
    return 1 if model and BY_PROMPT.search(model) else queries


def made_of(counts: dict[str, int], entered: int | None, total: int | None) -> int | None:
    """Candidates and thoughts; a total that leaves more over for output wins."""
    if "candidates" in counts or "thoughts" in counts:
        made = counts.get("candidates", 0) + counts.get("thoughts", 0)
        if total is None or entered is None:
            return made
        return max(made, total - entered)
    if total is None or entered is None:
        return None
    return max(0, total - entered)


def _counts(usage: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    take(usage, _TOP, found)
    for names, side in _DETAILS:
        for name in names:
            for detail in objects(usage.get(name)):
                value, modality = count(detail.get("tokenCount")), detail.get("modality")
                if value is not None and modality in ("AUDIO", "IMAGE"):
                    key = f"{side}_{modality}"
                    found[key] = found.get(key, 0) + value
    return found
