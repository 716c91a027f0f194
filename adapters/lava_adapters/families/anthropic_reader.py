"""The fold over Anthropic messages: usage in `message_start`, then cumulative in `message_delta`.

`input_tokens` leaves cached tokens out; the whole input is the sum of the three. With server-side
compaction, an advisor model or a fallback the top level leaves out whole passes: `iterations` lists
them all, each with its own model, and they are what is billed.
"""

from __future__ import annotations

from typing import Any

from ..contract import Ask, Usage
from ..counts import clamp, member, objects, take
from ..fold import Fold

_TOP = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_input_tokens": "read",
    "cache_creation_input_tokens": "written",
}
_CREATION = {"ephemeral_5m_input_tokens": "written_5m", "ephemeral_1h_input_tokens": "written_1h"}


class MessagesReader(Fold):
    """`contract.Reader` of the family."""

    __slots__ = ("_container", "_passes")

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._container = ""
        self._passes: list[tuple[str | None, dict[str, int]]] = []

    @property
    def made(self) -> tuple[str, ...]:
        return (self._container,) if self._container else ()

    def _contain(self, source: object, *, ran: bool = False) -> None:
        """Note the container that is named. Where code `ran` in it, that is billed by its time,
        which nobody states."""
        if type(found := member(source, "container", "id")) is str:
            self._container = found
            if ran:
                self._counts["containers"] = 1

    def correct(self, counts: dict[str, int]) -> None:
        """Take counts ("input", "output", "read", "written") from somebody who knows better than
        the messages do: whoever serves them."""
        if counts:
            self._counts.update(counts)
            self._usage = None
            self.final = self.final or self.ended

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        kind = body.get("type")
        if kind == "content_block_delta":
            self._delta(body.get("delta"))
            if self.text:
                self._framed(data)
        elif kind == "content_block_start":
            self._block(body.get("content_block"))
        elif kind == "message_start":
            message = body.get("message")
            if type(message) is dict:
                self._name(message)
                self._contain(message)
                self._state(message.get("usage"))
        elif kind == "message_delta":
            self._state(body.get("usage"))
            self._contain(body.get("delta"), ran=True)
            if member(body, "delta", "stop_reason") is not None:
                self.final = bool(self._counts)
        elif kind == "message_stop":
            self.ended = True
            self.final = bool(self._counts)
        elif kind == "message":
            self._message(body)
        elif kind == "completion":
            self._completion(body)
        elif kind == "error" or name == "error" or body.get("error") is not None:
            self.failed = True

    def _message(self, body: dict[str, Any]) -> None:
        """An answer that was not streamed."""
        self._name(body)
        self._contain(body, ran=True)
        self._state(body.get("usage"))
        self.ended = True
        self.final = bool(self._counts)
        for block in objects(body.get("content")):
            self._block(block)

    def _completion(self, body: dict[str, Any]) -> None:
        """A text completion, whole or a piece of it; usage is never stated."""
        self._name(body)
        if type(seen := body.get("completion")) is str and seen:
            self.more(seen)
        self.ended = self.ended or body.get("stop_reason") is not None

    def _block(self, block: object) -> None:
        if type(block) is not dict:
            return
        kind = block.get("type")
        if type(kind) is str and kind.endswith("tool_use"):
            self.tool_calls += 1
            seen = block.get("name")
        else:
            seen = block.get("thinking") if kind == "thinking" else block.get("text")
        if type(seen) is str and seen:
            self.more(seen)

    def _delta(self, delta: object) -> None:
        if type(delta) is not dict:
            return
        for name in ("text", "partial_json", "thinking", "content"):
            if type(seen := delta.get(name)) is str and seen:
                self.more(seen)
                return

    def _state(self, usage: object) -> None:
        if type(usage) is not dict:
            return
        _take_pass(usage, self._counts)
        take(usage.get("server_tool_use"), {"web_search_requests": "searches"}, self._counts)
        self._tier(usage.get("service_tier"))
        if usage.get("speed") == "fast":  # a price of its own, whatever the tier
            self._tier("fast")
        passes = objects(usage.get("iterations"))
        if passes:
            self._passes = [_pass(each) for each in passes]
        self._usage = None

    def _settle(self) -> Usage:
        whole = _usage(self._counts, self.model)
        passes = [(model, counts) for model, counts in self._passes if counts]
        if not passes:
            return whole
        own = self._ask.model or self.model
        parts = tuple(_usage(counts, model or own) for model, counts in passes)
        entered, made = _sum(parts, "input_tokens"), _sum(parts, "output_tokens")
        if (entered or 0) < (whole.input_tokens or 0) or (made or 0) < (whole.output_tokens or 0):
            # A list that explains less than the top level states is not the whole truth.
            return whole
        return Usage(
            input_tokens=entered,
            output_tokens=made,
            cache_read_tokens=_sum(parts, "cache_read_tokens"),
            cache_write_tokens=_sum(parts, "cache_write_tokens"),
            cache_write_1h_tokens=_sum(parts, "cache_write_1h_tokens"),
            reasoning_tokens=whole.reasoning_tokens,
            web_searches=whole.web_searches,
            containers=whole.containers,
            model=self.model,
            parts=parts,
        )


def _take_pass(usage: dict[str, Any], into: dict[str, int]) -> None:
    take(usage, _TOP, into)
    take(usage.get("cache_creation"), _CREATION, into)
    take(usage.get("output_tokens_details"), {"thinking_tokens": "thinking"}, into)


def _pass(iteration: dict[str, Any]) -> tuple[str | None, dict[str, int]]:
    counts: dict[str, int] = {}
    _take_pass(iteration, counts)
    model = iteration.get("model")
    return (model if type(model) is str and model else None), counts


def _usage(counts: dict[str, int], model: str | None) -> Usage:
    fresh, made = counts.get("input"), counts.get("output")
    written, written_1h = counts.get("written"), counts.get("written_1h")
    if written is None and ("written_5m" in counts or written_1h is not None):
        written = counts.get("written_5m", 0) + (written_1h or 0)
    entered = None
    if fresh is not None:
        entered = fresh + counts.get("read", 0) + (written or 0)
    return Usage(
        input_tokens=entered,
        output_tokens=made,
        cache_read_tokens=clamp(counts.get("read"), entered),
        cache_write_tokens=clamp(written, entered),
        cache_write_1h_tokens=clamp(written_1h, written),
        reasoning_tokens=clamp(counts.get("thinking"), made),
        web_searches=counts.get("searches"),
        containers=counts.get("containers"),
        model=model,
    )


def _sum(parts: tuple[Usage, ...], name: str) -> int | None:
    stated = [value for part in parts if (value := getattr(part, name)) is not None]
    return sum(stated) if stated else None
