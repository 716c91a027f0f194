"""OpenAI Responses: one message item, JSON or numbered events, usage in the last one."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from lava_proxy.net.simulated.openai import answer_headers
from lava_proxy.net.simulated.plan import JsonObject, Plan
from lava_proxy.net.simulated.script import Ending, Piece, Script
from lava_proxy.net.simulated.text import fresh_id, word_json, words

_TEMPLATE: JsonObject = {
    "background": False,
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "model": "",
    "output": [],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "usage": None,
    "user": None,
    "metadata": {},
}
_ECHOED = ("instructions", "max_output_tokens", "previous_response_id", "store", "metadata")


def responses(plan: Plan, created: int) -> Script:
    """POST /v1/responses."""
    answer = _Answer(plan, created)
    if plan.asked.get("stream") is True:
        headers = answer_headers("text/event-stream; charset=utf-8")
        return Script(answer.events(), headers=headers, ends=plan.ends, paced_s=plan.pace_s)
    return Script.plain(
        orjson.dumps(answer.finished()),
        delay_s=plan.whole_s,
        tokens=plan.output_tokens,
        headers=answer_headers("application/json"),
        ends=plan.ends,
    )


class _Answer:
    """One response object and the events that build it."""

    def __init__(self, plan: Plan, created: int) -> None:
        self._plan = plan
        self._item_id = fresh_id("msg_")
        self._head = {
            "id": fresh_id("resp_"),
            "object": "response",
            "created_at": created,
            "status": "in_progress",
        }
        self._base = {**self._head, **_TEMPLATE, "model": plan.model}
        self._base.update((name, plan.asked[name]) for name in _ECHOED if name in plan.asked)
        self._number = 0

    def finished(self) -> JsonObject:
        """The whole response with its usage."""
        plan = self._plan
        usage = {
            "input_tokens": plan.input_tokens,
            "input_tokens_details": {"cached_tokens": plan.cached},
            "output_tokens": plan.think + plan.tokens,
            "output_tokens_details": {"reasoning_tokens": plan.think},
            "total_tokens": plan.input_tokens + plan.think + plan.tokens,
        }
        return {
            **self._base,
            "status": self._status(),
            "incomplete_details": {"reason": "max_output_tokens"} if plan.capped else None,
            "output": [self._item(self._status(), words(plan.tokens))],
            "service_tier": "default",
            "usage": usage,
        }

    def events(self) -> Iterator[Piece]:
        """The stream, from ``response.created`` to ``response.completed``."""
        plan = self._plan
        yield self._event("response.created", {"response": self._base})
        yield self._event("response.in_progress", {"response": self._base})
        item = {**self._item("in_progress", ""), "content": []}
        yield self._event("response.output_item.added", {"output_index": 0, "item": item})
        part = self._part("")
        yield self._event("response.content_part.added", {**self._place(), "part": part})
        yield from self._deltas()
        if plan.ends is not Ending.CLEAN:
            return
        text = words(plan.tokens)
        done = {**self._place(), "text": text, "logprobs": []}
        yield self._event("response.output_text.done", done)
        yield self._event("response.content_part.done", {**self._place(), "part": self._part(text)})
        item = self._item(self._status(), text)
        yield self._event("response.output_item.done", {"output_index": 0, "item": item})
        yield self._event(f"response.{self._status()}", {"response": self.finished()})

    def _deltas(self) -> Iterator[Piece]:
        plan = self._plan
        name = b"response.output_text.delta"
        event = (
            b'event: %b\ndata: {"type":"%b","sequence_number":%%d,"item_id":"%b",'
            b'"output_index":0,"content_index":0,"delta":%%b,"logprobs":[]}\n\n'
        ) % (name, name, self._item_id.encode())
        wait_s = (plan.think + 1) * plan.pace_s
        for number in range(plan.shown()):
            yield Piece(event % (self._number, word_json(number, stamp=plan.stamp)), wait_s, 1)
            self._number += 1
            wait_s = plan.pace_s

    def _event(self, name: str, members: JsonObject) -> Piece:
        data = orjson.dumps({"type": name, "sequence_number": self._number, **members})
        self._number += 1
        return Piece(b"event: %b\ndata: %b\n\n" % (name.encode(), data))

    def _status(self) -> str:
        return "incomplete" if self._plan.capped else "completed"

    def _place(self) -> dict[str, object]:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def _part(self, text: str) -> JsonObject:
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    def _item(self, status: str, text: str) -> dict[str, object]:
        return {
            "id": self._item_id,
            "type": "message",
            "status": status,
            "content": [self._part(text)],
            "role": "assistant",
        }
