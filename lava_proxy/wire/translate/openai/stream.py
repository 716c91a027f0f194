"""OpenAI chat streams, both ways."""

from __future__ import annotations

from .. import neutral as n
from ..members import answered, count_in, dump, object_in, objects_in, text_in
from .answer import (
    STOPS,
    error_in,
    error_object,
    read_counts,
    read_stop,
    write_counts,
)


class OpenAIReader:
    """A provider's events as deltas. A fold over whole events; raises `Unreadable`."""

    __slots__ = ("_calls", "_started")

    def __init__(self) -> None:
        self._started = False
        self._calls: dict[int, int] = {}
        """The provider's index of a call -> ours."""

    def event(self, name: str, data: bytes) -> list[n.Delta]:
        """The deltas in one event."""
        if data.strip() == b"[DONE]":
            return [n.Done()]
        value = answered(data)
        if name == "error" or value.get("error"):
            return [error_in(value)]
        deltas: list[n.Delta] = []
        if not self._started:
            self._started = True
            deltas.append(n.Started(text_in(value, "id"), text_in(value, "model")))
        for choice in objects_in(value, "choices")[:1]:
            deltas += self._choice(choice)
        usage = object_in(value, "usage") or object_in(object_in(value, "x_groq"), "usage")
        if usage:
            deltas.append(n.Used(read_counts(usage)))
        return deltas

    def _choice(self, choice: dict[str, object]) -> list[n.Delta]:
        delta = object_in(choice, "delta")
        deltas: list[n.Delta] = []
        thinking = text_in(delta, "reasoning_content") or text_in(delta, "reasoning")
        if thinking:
            deltas.append(n.ThinkingDelta(thinking))
        text = text_in(delta, "content") or text_in(delta, "refusal")
        if text:
            deltas.append(n.TextDelta(text))
        for place, call in enumerate(objects_in(delta, "tool_calls")):
            deltas += self._call(place, call)
        reason = text_in(choice, "finish_reason")
        if reason:
            deltas.append(n.Finished(read_stop(reason)))
        return deltas

    def _call(self, place: int, call: dict[str, object]) -> list[n.Delta]:
        stated = count_in(call, "index")
        theirs = place if stated is None else stated
        made = object_in(call, "function")
        deltas: list[n.Delta] = []
        if theirs not in self._calls:
            self._calls[theirs] = len(self._calls)
            ours = self._calls[theirs]
            deltas.append(n.CallStarted(ours, text_in(call, "id"), text_in(made, "name")))
        arguments = text_in(made, "arguments")
        if arguments:
            deltas.append(n.CallDelta(self._calls[theirs], arguments))
        return deltas


class OpenAIWriter:
    """Deltas as the events of a chat stream. `created` is the time in seconds that it states."""

    __slots__ = ("_bare", "_counts", "_head", "_wants_usage")

    def __init__(self, answer_id: str, model: str, *, created: int, wants_usage: bool) -> None:
        self._head = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._wants_usage = wants_usage
        self._bare: set[int] = set()
        """Tool calls that have no arguments so far: clients want at least an empty object."""
        self._counts = n.Counts()

    def write(self, delta: n.Delta) -> bytes:
        """The events that a delta makes; none for what the client did not ask for."""
        if isinstance(delta, n.TextDelta):
            return self._chunk({"content": delta.text})
        if isinstance(delta, n.CallDelta):
            self._bare.discard(delta.index)
            return self._arguments(delta.index, delta.arguments)
        if isinstance(delta, n.CallStarted):
            self._bare.add(delta.index)
            function = {"name": delta.name, "arguments": ""}
            begun: dict[str, object] = {"index": delta.index, "id": delta.call_id}
            return self._chunk({"tool_calls": [begun | {"type": "function", "function": function}]})
        if isinstance(delta, n.ThinkingDelta):
            return self._chunk({"reasoning_content": delta.text}) if delta.text else b""
        if isinstance(delta, n.Started):
            self._counts = delta.counts.over(self._counts)
            self._head |= {"id": delta.answer_id or self._head["id"]}
            self._head |= {"model": delta.model or self._head["model"]}
            return self._chunk({"role": "assistant", "content": ""})
        if isinstance(delta, n.Finished):
            bare = b"".join(self._arguments(index, "{}") for index in sorted(self._bare))
            self._bare.clear()
            return bare + self._chunk({}, STOPS[delta.stop])
        if isinstance(delta, n.Used):
            self._counts = delta.counts.over(self._counts)
            return b""
        if isinstance(delta, n.Failed):
            return _event({"error": error_object(delta)})
        return self._end()

    def _arguments(self, index: int, text: str) -> bytes:
        made = {"index": index, "function": {"arguments": text}}
        return self._chunk({"tool_calls": [made]})

    def _end(self) -> bytes:
        usage = b""
        if self._wants_usage:
            usage = _event(self._head | {"choices": [], "usage": write_counts(self._counts)})
        return usage + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, object], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event(self._head | {"choices": [choice]})


def _event(value: dict[str, object]) -> bytes:
    return b"data: " + dump(value) + b"\n\n"
