"""Anthropic message streams, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from .. import neutral as n
from ..blocks import BlockWriter, Kind
from ..members import answered, count_in, dump, object_in, text_in
from .answer import (
    STOPS,
    error_in,
    message_object,
    read_counts,
    read_stop,
    write_counts,
    write_error,
)

_DELTAS: Mapping[Kind, tuple[str, str]] = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "signature": ("signature_delta", "signature"),
    "arguments": ("input_json_delta", "partial_json"),
}
"""What a delta of a block is called, and the member that holds it."""


class AnthropicReader:
    """A provider's events as deltas. A fold over whole events; raises `Unreadable`."""

    __slots__ = ("_calls", "_counts", "_started")

    def __init__(self) -> None:
        self._started = False
        self._calls: dict[int, int] = {}
        """Index of a content block -> number of the tool call in it."""
        self._counts: dict[str, object] = {}
        """Usage members so far: a later value that is not null wins."""

    def event(self, name: str, data: bytes) -> list[n.Delta]:
        """The deltas in one event."""
        value = answered(data)
        kind = text_in(value, "type") or name
        if kind == "error":
            return [error_in(value)]
        if kind == "message_start":
            return self._start(object_in(value, "message"))
        if kind == "content_block_start":
            return self._block(count_in(value, "index") or 0, object_in(value, "content_block"))
        if kind == "content_block_delta":
            return self._delta(count_in(value, "index") or 0, object_in(value, "delta"))
        if kind == "message_delta":
            return self._end(object_in(value, "delta"), object_in(value, "usage"))
        return [n.Done()] if kind == "message_stop" else []

    def _start(self, message: dict[str, object]) -> list[n.Delta]:
        counts = self._count(object_in(message, "usage"))
        if self._started:
            return []
        self._started = True
        return [n.Started(text_in(message, "id"), text_in(message, "model"), counts)]

    def _block(self, index: int, block: dict[str, object]) -> list[n.Delta]:
        kind = block.get("type")
        if kind == "text" and text_in(block, "text"):
            return [n.TextDelta(text_in(block, "text"))]
        if kind != "tool_use":
            return []
        number = self._calls[index] = len(self._calls)
        deltas: list[n.Delta] = [
            n.CallStarted(number, text_in(block, "id"), text_in(block, "name"))
        ]
        if object_in(block, "input"):
            deltas.append(n.CallDelta(number, dump(block["input"]).decode()))
        return deltas

    def _delta(self, index: int, delta: dict[str, object]) -> list[n.Delta]:
        kind = delta.get("type")
        if kind == "text_delta":
            return [n.TextDelta(text_in(delta, "text"))]
        if kind == "input_json_delta" and index in self._calls and text_in(delta, "partial_json"):
            return [n.CallDelta(self._calls[index], text_in(delta, "partial_json"))]
        if kind == "thinking_delta":
            return [n.ThinkingDelta(text_in(delta, "thinking"))]
        if kind == "signature_delta":
            return [n.ThinkingDelta("", text_in(delta, "signature"))]
        return []

    def _end(self, delta: dict[str, object], usage: dict[str, object]) -> list[n.Delta]:
        deltas: list[n.Delta] = [n.Used(self._count(usage))]
        reason = text_in(delta, "stop_reason")
        if reason:
            text = text_in(delta, "stop_sequence") or None
            deltas.append(n.Finished(read_stop(reason), text))
        return deltas

    def _count(self, usage: dict[str, object]) -> n.Counts:
        self._counts |= {name: value for name, value in usage.items() if value is not None}
        return read_counts(self._counts)


class AnthropicWriter(BlockWriter):
    """Deltas as the events of a message stream."""

    __slots__ = ()

    def begin(self) -> bytes:
        message = message_object(self.answer_id, self.model, self.counts)
        return _event({"type": "message_start", "message": message})

    def start(self, index: int, kind: Kind, call: n.CallStarted | None) -> bytes:
        block: dict[str, object]
        if call is not None:
            block = {"type": "tool_use", "id": call.call_id, "name": call.name, "input": {}}
        elif kind == "text":
            block = {"type": "text", "text": ""}
        else:
            block = {"type": "thinking", "thinking": "", "signature": ""}
        return _event({"type": "content_block_start", "index": index, "content_block": block})

    def more(self, index: int, kind: Kind, text: str) -> bytes:
        delta = {"type": _DELTAS[kind][0], _DELTAS[kind][1]: text}
        return _event({"type": "content_block_delta", "index": index, "delta": delta})

    def stop(self, index: int) -> bytes:
        return _event({"type": "content_block_stop", "index": index})

    def end(self, stop: n.Finished) -> bytes:
        made = {"stop_reason": STOPS[stop.stop], "stop_sequence": stop.stop_text}
        usage = write_counts(self.counts)
        out = _event({"type": "message_delta", "delta": made, "usage": usage})
        return out + _event({"type": "message_stop"})

    def failed(self, failed: n.Failed) -> bytes:
        return b"event: error\ndata: " + write_error(failed) + b"\n\n"


def _event(value: Mapping[str, object]) -> bytes:
    return b"event: " + str(value["type"]).encode() + b"\ndata: " + dump(value) + b"\n\n"
