"""The fold over responses events and whole response objects."""

from __future__ import annotations

from typing import Any

from ..contract import Ask, Usage
from ..counts import objects
from ..fold import Fold
from ..openai_tools import Tools
from ..openai_usage import settle_usage, take_cost, take_usage

_FINISHED = ("completed", "incomplete", "failed", "cancelled")
_AUDIO = ("response.audio.delta", "response.output_audio.delta")
_CALL_TEXT = ("name", "arguments", "input", "code")


class ResponsesReader(Fold):
    """`contract.Reader` of the family."""

    __slots__ = ("_summary", "_tools")

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._tools = Tools(ask.object_ids)
        self._summary = (0, 0)
        """Events and bytes where the last summary of reasoning began."""

    @property
    def made(self) -> tuple[str, ...]:
        return self._tools.made

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        kind = body.get("type")
        if type(kind) is not str:
            kind = name
        delta = body.get("delta")
        if type(delta) is str:
            if delta and kind not in _AUDIO:
                self.more(delta)
                self._framed(data)
            return
        if kind == "response.output_item.added":
            self._item(body.get("item"))
        elif kind == "response.output_item.done":
            self._tools.used(body.get("item"), self._counts)
            self._usage = None
        elif kind == "response.reasoning_summary_part.added":
            self._summary = (self.deltas, self.delta_bytes)
        elif kind == "response.reasoning_summary_part.done":
            self.thoughts += self.deltas - self._summary[0]
            self.thought_bytes += self.delta_bytes - self._summary[1]
            self._summary = (self.deltas, self.delta_bytes)
        elif kind.startswith("response.") and not self._stated_by(kind, body):
            return
        elif kind == "error" or body.get("error") is not None:
            self._refused(body, data)
        elif not kind.startswith("response."):
            self._response(body, data, whole=True)
        else:
            response = body.get("response")
            # A salvaged event has lost its wrapper.
            self._response(response if type(response) is dict else body, data, whole=False)

    def _stated_by(self, kind: str, body: dict[str, Any]) -> bool:
        """Events that carry the response object itself."""
        status = kind.removeprefix("response.")
        if status in _FINISHED:
            self.ended = True
            self.failed = self.failed or status == "failed"
            return True
        return type(body.get("response")) is dict or body.get("object") == "response"

    def _refused(self, body: dict[str, Any], data: bytes) -> None:
        self.failed = True
        if body.get("usage") is not None:
            self._response(body, data, whole=True)

    def _response(self, response: dict[str, Any], data: bytes, *, whole: bool) -> None:
        self._name(response)
        self._tier(response.get("service_tier"))
        status = response.get("status")
        if response.get("error") is not None or status == "failed":
            self.failed = True
        self._tools.told(response, self._counts)
        usage = response.get("usage")
        if take_usage(usage, self._counts):
            take_cost(usage, data, self._counts)
            self._usage = None
            self.final = self.ended or status in _FINISHED or status is None
        if whole:
            self.ended = self.ended or status in _FINISHED or (status is None and self.final)
            self._output(response)

    def _output(self, response: dict[str, Any]) -> None:
        """The text of an answer that was not streamed."""
        seen = ""
        for item in objects(response.get("output")):
            for part in (*objects(item.get("content")), *objects(item.get("summary"))):
                for name in ("text", "refusal"):
                    if type(part.get(name)) is str:
                        seen += part[name]
            if _is_call(item):
                self.tool_calls += 1
                seen += "".join(item[key] for key in _CALL_TEXT if type(item.get(key)) is str)
        if seen:
            self.more(seen)

    def _item(self, item: object) -> None:
        if type(item) is dict and _is_call(item):
            self.tool_calls += 1
            if type(name := item.get("name")) is str and name:
                self.more(name)

    def _settle(self) -> Usage:
        return self._tools.with_pictures(settle_usage(self._counts, self.model))


def _is_call(item: dict[str, Any]) -> bool:
    kind = item.get("type")
    return type(kind) is str and kind.endswith("_call")
