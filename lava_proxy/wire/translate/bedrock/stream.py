"""Converse streams, both ways: binary frames, an event's name in a header."""

from __future__ import annotations

from collections.abc import Mapping

from lava_adapters.awsframe import encode

from .. import neutral as n
from ..blocks import BlockWriter, Kind
from ..members import answered, count_in, dump, object_in, text_in
from .answer import STATUSES, STOPS, read_counts, read_stop, write_counts

_EXCEPTIONS = {status: name for name, status in STATUSES.items()}


class BedrockReader:
    """A provider's events as deltas. A fold over whole events; raises `Unreadable`."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}
        """Index of a content block -> number of the tool call in it."""

    def event(self, name: str, data: bytes) -> list[n.Delta]:
        """The deltas in one event."""
        value = answered(data)
        if name.startswith(("exception:", "error:")):
            kind = name.partition(":")[2]
            message = text_in(value, "message") or kind
            return [n.Failed(STATUSES.get(kind, 500), kind, message)]
        index = count_in(value, "contentBlockIndex") or 0
        if name == "messageStart":
            return [n.Started("", "")]
        if name == "contentBlockStart":
            return self._start(index, object_in(object_in(value, "start"), "toolUse"))
        if name == "contentBlockDelta":
            return self._delta(index, object_in(value, "delta"))
        if name == "messageStop":
            return [n.Finished(read_stop(text_in(value, "stopReason")))]
        if name == "metadata":
            return [n.Used(read_counts(object_in(value, "usage"))), n.Done()]
        return []

    def _start(self, index: int, call: dict[str, object]) -> list[n.Delta]:
        if not call:
            return []
        number = self._calls[index] = len(self._calls)
        return [n.CallStarted(number, text_in(call, "toolUseId"), text_in(call, "name"))]

    def _delta(self, index: int, delta: dict[str, object]) -> list[n.Delta]:
        if text_in(delta, "text"):
            return [n.TextDelta(text_in(delta, "text"))]
        arguments = text_in(object_in(delta, "toolUse"), "input")
        if arguments and index in self._calls:
            return [n.CallDelta(self._calls[index], arguments)]
        thought = object_in(delta, "reasoningContent")
        if text_in(thought, "text") or text_in(thought, "signature"):
            return [n.ThinkingDelta(text_in(thought, "text"), text_in(thought, "signature"))]
        return []


class BedrockWriter(BlockWriter):
    """Deltas as the frames of a converse stream."""

    __slots__ = ()

    def begin(self) -> bytes:
        return _frame("messageStart", {"role": "assistant"})

    def start(self, index: int, kind: Kind, call: n.CallStarted | None) -> bytes:
        if call is None:
            return b""  # only tool calls are announced
        use = {"toolUse": {"toolUseId": call.call_id, "name": call.name}}
        return _frame("contentBlockStart", {"start": use, "contentBlockIndex": index})

    def more(self, index: int, kind: Kind, text: str) -> bytes:
        delta: Mapping[str, object] = {"text": text}
        if kind == "arguments":
            delta = {"toolUse": {"input": text}}
        elif kind in ("thinking", "signature"):
            member = "text" if kind == "thinking" else "signature"
            delta = {"reasoningContent": {member: text}}
        return _frame("contentBlockDelta", {"delta": delta, "contentBlockIndex": index})

    def stop(self, index: int) -> bytes:
        return _frame("contentBlockStop", {"contentBlockIndex": index})

    def end(self, stop: n.Finished) -> bytes:
        usage = {"usage": write_counts(self.counts), "metrics": {"latencyMs": 0}}
        return _frame("messageStop", {"stopReason": STOPS[stop.stop]}) + _frame("metadata", usage)

    def failed(self, failed: n.Failed) -> bytes:
        name = _EXCEPTIONS.get(failed.status, "internalServerException")
        headers = {":exception-type": name, ":content-type": "application/json"}
        return encode(headers | {":message-type": "exception"}, dump({"message": failed.message}))


def _frame(name: str, value: Mapping[str, object]) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode(headers, dump(value))
