"""The fold over interaction events and whole interactions.

``total_input`` holds the cached tokens; thinking lies beside ``total_output`` and the prompts of
tools beside ``total_input``. The usage stands in the interaction that ``interaction.completed``
carries (older servers: ``interaction.complete``); until then there may be running figures, also in
the ``metadata`` of any event, of which the largest count. Steps are called ``outputs``, and their
events ``content.*``, by older servers.
"""

from __future__ import annotations

from typing import Any

from ..contract import Ask, Usage
from ..counts import clamp, count, member, objects, take
from ..fold import Fold
from ..replies import dump
from .gemini_reader import billed_searches, made_of

_TOP = {
    "total_input_tokens": "prompt",
    "total_output_tokens": "candidates",
    "total_thought_tokens": "thoughts",
    "total_tool_use_tokens": "tool",
    "total_cached_tokens": "cached",
    "total_tokens": "total",
}
_MODALITIES = {
    "input_tokens_by_modality": "input",
    "tool_use_tokens_by_modality": "input",
    "output_tokens_by_modality": "output",
    "cached_tokens_by_modality": "cached",
}
_RUNNING = ("in_progress", "queued")
_ENDS = ("interaction.completed", "interaction.complete", "interaction.cancelled")


class InteractionsReader(Fold):
    """`contract.Reader` of the family."""

    __slots__ = ("_calls",)

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._calls: dict[int, int] = {}
        """Place of a call among the steps -> how many searches it made."""

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        kind = body.get("event_type")
        if type(kind) is not str:
            kind = name
        elif "metadata" in body:  # an event's own, not the caller's
            self._state(member(body["metadata"], "total_usage"), ends=False)
        if kind in ("step.delta", "content.delta"):
            self._delta(count(body.get("index")) or 0, body.get("delta"))
            if self.text:
                self._framed(data)
        elif kind in ("step.start", "content.start"):
            self._step(count(body.get("index")) or 0, body.get("step", body.get("content")))
        elif kind == "step.stop":
            self._state(body.get("usage"), ends=False)
        elif kind.startswith("interaction."):
            inner = body.get("interaction")
            self._interaction(inner if type(inner) is dict else body, ends=kind in _ENDS)
        elif body.get("object") == "interaction" or "usage" in body:
            ends = body.get("status") not in _RUNNING
            self._interaction(body, ends=ends)
        elif kind == "error" or body.get("error") is not None:
            self.failed = True

    def _interaction(self, body: dict[str, Any], *, ends: bool) -> None:
        self._name(body)
        self._tier(body.get("service_tier"))
        if body.get("error") is not None or body.get("status") == "failed":
            self.failed = True
        for place, step in enumerate((*objects(body.get("steps")), *objects(body.get("outputs")))):
            self._step(place, step)
        self._state(body.get("usage"), ends=ends)
        if ends:
            self.ended = True
            self.final = bool(self._counts)

    def _state(self, usage: object, *, ends: bool) -> None:
        if type(usage) is not dict:
            return
        found = _counts(usage)
        if not ends:
            found = {k: max(v, self._counts.get(k, 0)) for k, v in found.items()}
        self._counts = found if ends and found else self._counts | found
        self._usage = None

    def _step(self, place: int, step: object) -> None:
        """One step as a whole, or its beginning."""
        if type(step) is not dict:
            return
        seen = _text(step) + "".join(map(_text, objects(step.get("content"))))
        seen += "".join(map(_text, objects(step.get("summary"))))
        seen += self._call(place, step)
        if seen:
            self.more(seen)

    def _delta(self, place: int, delta: object) -> None:
        if type(delta) is not dict:
            return
        seen = _text(delta) or _text(delta.get("content")) or self._call(place, delta)
        if seen:
            self.more(seen)

    def _call(self, place: int, call: dict[str, Any]) -> str:
        """Name and arguments of a call, whole or a piece of it; searches are billed."""
        kind, given = call.get("type"), call.get("arguments")
        if type(kind) is str and kind.endswith("_call"):
            queries = given.get("queries") if type(given) is dict else None
            made = len(queries) if kind == "google_search_call" and type(queries) is list else 0
            self._calls[place] = max(made, self._calls.get(place, 0))
            self.tool_calls = len(self._calls)
            self._usage = None
        name = call.get("name")
        if type(given) is dict:
            given = dump(given).decode() if given else ""
        return (name if type(name) is str else "") + (given if type(given) is str else "")

    def usage(self) -> Usage:
        if self._usage is None and any(self._calls.values()):
            self._usage = self._settle()
        return super().usage()

    def _settle(self) -> Usage:
        counts = self._counts
        prompt, total = counts.get("prompt"), counts.get("total")
        entered = None if prompt is None else prompt + counts.get("tool", 0)
        made = made_of(counts, entered, total)
        model = self.model or self._ask.model
        searches = counts.get("searches", sum(self._calls.values()))
        return Usage(
            input_tokens=entered,
            output_tokens=made,
            cache_read_tokens=clamp(counts.get("cached"), entered),
            tool_prompt_tokens=counts.get("tool"),
            input_audio_tokens=clamp(counts.get("input_audio"), entered),
            input_image_tokens=clamp(counts.get("input_image"), entered),
            cached_audio_tokens=counts.get("cached_audio"),
            cached_image_tokens=counts.get("cached_image"),
            reasoning_tokens=clamp(counts.get("thoughts"), made),
            output_audio_tokens=clamp(counts.get("output_audio"), made),
            output_image_tokens=clamp(counts.get("output_image"), made),
            total_reported=total,
            web_searches=billed_searches(searches, model),
            model=model,
        )


def _text(part: object) -> str:
    text = part.get("text") if type(part) is dict else None
    return text if type(text) is str else ""


def _counts(usage: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    take(usage, _TOP, found)
    for name, side in _MODALITIES.items():
        for detail in objects(usage.get(name)):
            value, modality = count(detail.get("tokens")), detail.get("modality")
            if value is not None and modality in ("audio", "image"):
                key = f"{side}_{modality}"
                found[key] = found.get(key, 0) + value
    for each in objects(usage.get("grounding_tool_count")):
        value = count(each.get("count"))
        if value is not None and each.get("type") == "google_search":
            found["searches"] = found.get("searches", 0) + value
    return found
