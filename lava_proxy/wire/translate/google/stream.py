"""generateContent streams, both ways. There is no end marker: the last chunk has a finish reason.

Calls come and go whole, so the arguments of other dialects' calls are collected.
"""

from __future__ import annotations

from .. import neutral as n
from ..members import answered, dump, object_in, text_in
from .answer import (
    call_id,
    chunk,
    error_in,
    error_object,
    parts_of,
    read_counts,
    read_stop,
    write_part,
)


class GoogleReader:
    """A provider's chunks as deltas. A fold over whole events; raises `Unreadable`."""

    __slots__ = ("_answer_id", "_calls", "_started", "_stopped")

    def __init__(self) -> None:
        self._started = False
        self._stopped = False
        self._answer_id = ""
        self._calls = 0

    def event(self, name: str, data: bytes) -> list[n.Delta]:
        """The deltas in one chunk."""
        value = answered(data)
        if value.get("error"):
            return [error_in(value)]
        deltas: list[n.Delta] = []
        if not self._started:
            self._started = True
            self._answer_id = text_in(value, "responseId")
            deltas.append(n.Started(self._answer_id, text_in(value, "modelVersion")))
        for part in parts_of(value):
            deltas += self._part(part)
        usage = object_in(value, "usageMetadata")
        if usage:
            deltas.append(n.Used(read_counts(usage)))
        stop = read_stop(value, called=self._calls > 0)
        if stop is not None and not self._stopped:
            self._stopped = True
            deltas.append(n.Finished(stop))
        return deltas

    def _part(self, part: dict[str, object]) -> list[n.Delta]:
        text = text_in(part, "text")
        if text:
            return [n.ThinkingDelta(text) if part.get("thought") is True else n.TextDelta(text)]
        call = object_in(part, "functionCall")
        if not call:
            return []
        number, self._calls = self._calls, self._calls + 1
        made = call_id(text_in(call, "id"), self._answer_id, number)
        return [
            n.CallStarted(number, made, text_in(call, "name")),
            n.CallDelta(number, dump(object_in(call, "args")).decode()),
        ]


class GoogleWriter:
    """Deltas as chunks: events of a stream, or, with `array`, the elements of one JSON array."""

    __slots__ = ("_array", "_calls", "_counts", "_id", "_model", "_stop", "_written")

    def __init__(self, answer_id: str, model: str, *, array: bool) -> None:
        self._id = answer_id
        self._model = model
        self._array = array
        self._calls: dict[int, n.ToolCall] = {}
        self._counts = n.Counts()
        self._stop: n.Stop = "end"
        self._written = 0

    def write(self, delta: n.Delta) -> bytes:
        """The chunks that a delta makes."""
        if isinstance(delta, n.TextDelta):
            return self._chunk([{"text": delta.text}])
        if isinstance(delta, n.ThinkingDelta):
            return self._chunk([{"text": delta.text, "thought": True}]) if delta.text else b""
        if isinstance(delta, n.CallStarted):
            self._calls[delta.index] = n.ToolCall(delta.call_id, delta.name, "")
        elif isinstance(delta, n.CallDelta):
            call = self._calls[delta.index]
            arguments = call.arguments + delta.arguments
            self._calls[delta.index] = n.ToolCall(call.call_id, call.name, arguments)
        elif isinstance(delta, n.Started):
            self._id = delta.answer_id or self._id
            self._model = delta.model or self._model
            self._counts = delta.counts.over(self._counts)
        elif isinstance(delta, n.Used):
            self._counts = delta.counts.over(self._counts)
        elif isinstance(delta, n.Finished):
            self._stop = delta.stop
        elif isinstance(delta, n.Failed):
            return self._event(error_object(delta)) + (b"]" if self._array else b"")
        else:
            return self._end()
        return b""

    def _end(self) -> bytes:
        parts = [write_part(call) for call in self._calls.values()] or [{"text": ""}]
        last = self._event(chunk(self._id, self._model, parts, self._stop, self._counts))
        return last + (b"]" if self._array else b"")

    def _chunk(self, parts: list[dict[str, object]]) -> bytes:
        return self._event(chunk(self._id, self._model, parts))

    def _event(self, value: dict[str, object]) -> bytes:
        self._written += 1
        if self._array:
            return (b"[" if self._written == 1 else b",\r\n") + dump(value)
        return b"data: " + dump(value) + b"\r\n\r\n"
