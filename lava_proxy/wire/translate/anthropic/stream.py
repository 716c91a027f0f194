"""Anthropic message streams, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from .. import neutral as n
from ..members import answered, count_in, dump, is_whole, object_in, text_in
from .answer import (
    STOPS,
    error_in,
    message_object,
    read_counts,
    read_stop,
    write_counts,
    write_error,
)


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


class AnthropicWriter:
    """Deltas as the events of a message stream. The stop reason waits for the end, because usage
    stands in the same event and may come later. A tool call's block stays open until its arguments
    are whole and something else begins: another dialect's calls may come interleaved."""

    __slots__ = (
        "_arguments",
        "_blocks",
        "_calls",
        "_counts",
        "_id",
        "_model",
        "_open",
        "_started",
        "_stop",
    )

    def __init__(self, answer_id: str, model: str) -> None:
        self._id = answer_id
        self._model = model
        self._started = False
        self._blocks = 0
        self._open: tuple[str, int] | None = None
        """Kind and index of the text or thinking block under way."""
        self._calls: dict[int, int] = {}
        """Number of a tool call -> index of its block."""
        self._arguments: dict[int, str] = {}
        """Of the calls whose blocks are open."""
        self._counts = n.Counts()
        self._stop: n.Finished | None = None

    def write(self, delta: n.Delta) -> bytes:
        """The events that a delta makes."""
        if isinstance(delta, n.TextDelta):
            return self._more("text", {"type": "text_delta", "text": delta.text})
        if isinstance(delta, n.CallDelta):
            return self._more_of_call(delta)
        if isinstance(delta, n.CallStarted):
            return self._call(delta)
        if isinstance(delta, n.ThinkingDelta):
            return self._think(delta)
        if isinstance(delta, n.Started):
            self._id = delta.answer_id or self._id
            self._model = delta.model or self._model
            self._counts = delta.counts.over(self._counts)
            return self._begin()
        if isinstance(delta, n.Finished):
            self._stop = delta
            return b""
        if isinstance(delta, n.Used):
            self._counts = delta.counts.over(self._counts)
            return b""
        if isinstance(delta, n.Failed):
            return b"event: error\ndata: " + write_error(delta) + b"\n\n"
        return self._end()

    def _begin(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        message = message_object(self._id, self._model, self._counts)
        return _event({"type": "message_start", "message": message})

    def _more(self, kind: str, made: Mapping[str, object]) -> bytes:
        """A delta in the block under way, or in a new one of its kind."""
        out = b""
        if self._open is None or self._open[0] != kind:
            empty = {"text": ""} if kind == "text" else {"thinking": "", "signature": ""}
            out = self._begin() + self._close() + self._start({"type": kind, **empty})
            self._open = (kind, self._blocks - 1)
        return out + _delta(self._blocks - 1 if self._open is None else self._open[1], made)

    def _think(self, delta: n.ThinkingDelta) -> bytes:
        out = b""
        if delta.text:
            out += self._more("thinking", {"type": "thinking_delta", "thinking": delta.text})
        if delta.signature:
            made = {"type": "signature_delta", "signature": delta.signature}
            out += self._more("thinking", made)
        return out

    def _more_of_call(self, delta: n.CallDelta) -> bytes:
        if delta.index not in self._arguments:
            return b""  # whole, and closed
        self._arguments[delta.index] += delta.arguments
        made = {"type": "input_json_delta", "partial_json": delta.arguments}
        return _delta(self._calls[delta.index], made)

    def _call(self, delta: n.CallStarted) -> bytes:
        out = self._begin() + self._close()
        self._calls[delta.index] = self._blocks
        self._arguments[delta.index] = ""
        block: dict[str, object] = {
            "type": "tool_use",
            "id": delta.call_id,
            "name": delta.name,
            "input": {},
        }
        return out + self._start(block)

    def _start(self, block: Mapping[str, object]) -> bytes:
        out = self._close_calls()
        self._blocks += 1
        index = self._blocks - 1
        return out + _event({"type": "content_block_start", "index": index, "content_block": block})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        index, self._open = self._open[1], None
        return _event({"type": "content_block_stop", "index": index})

    def _close_calls(self, *, all_of_them: bool = False) -> bytes:
        done = [c for c, text in self._arguments.items() if all_of_them or is_whole(text)]
        out = b""
        for call in done:
            del self._arguments[call]
            out += _event({"type": "content_block_stop", "index": self._calls[call]})
        return out

    def _end(self) -> bytes:
        out = self._begin() + self._close() + self._close_calls(all_of_them=True)
        stop = self._stop or n.Finished("end")
        made = {"stop_reason": STOPS[stop.stop], "stop_sequence": stop.stop_text}
        usage = write_counts(self._counts)
        out += _event({"type": "message_delta", "delta": made, "usage": usage})
        return out + _event({"type": "message_stop"})


def _delta(index: int, made: Mapping[str, object]) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": made})


def _event(value: Mapping[str, object]) -> bytes:
    return b"event: " + str(value["type"]).encode() + b"\ndata: " + dump(value) + b"\n\n"
