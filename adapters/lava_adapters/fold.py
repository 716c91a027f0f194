"""What all readers share: the attributes of the contract, and last-value-wins counting.

A reader keeps raw counts under short names (`_counts`), each overwritten by the next one that is
valid, and turns them into a `Usage` only when asked: `_settle` holds the family's rules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import orjson

from .contract import NO_USAGE, Ask, Usage
from .counts import objects
from .lenient import load_object

DONE = b"[DONE]"
FRAMES_MAX = 8
"""Frames that a stream may show which bring nothing: where every event has one of its own, looking
is wasted."""


class Fold(ABC):
    """A `contract.Reader` without a format: subclasses add `_fold` and `_settle`."""

    reads_headers = False

    __slots__ = (
        "_ask",
        "_counts",
        "_framed_at",
        "_frames",
        "_usage",
        "delta_bytes",
        "deltas",
        "ended",
        "failed",
        "final",
        "frame",
        "model",
        "read_text",
        "response_id",
        "service_tier",
        "surplus",
        "text",
        "thought_bytes",
        "thoughts",
        "tool_calls",
    )

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._counts: dict[str, int] = {}
        self._usage: Usage | None = None
        self.deltas = 0
        self.delta_bytes = 0
        self.thoughts = 0
        self.thought_bytes = 0
        self.tool_calls = 0
        self.text = ""
        self.ended = False
        self.failed = False
        self.surplus = False
        self.read_text = False
        self.final = False
        self.frame: tuple[bytes, bytes] | None = None
        self._frames = 0
        self._framed_at = 0
        self.model: str | None = None
        self.response_id: str | None = None
        self.service_tier: str | None = None

    @property
    def made(self) -> tuple[str, ...]:
        """See `contract.Reader`."""
        return ()

    def event(self, name: str, data: bytes) -> None:
        self.text = ""
        self.surplus = False
        self.frame = None
        if data == DONE:
            self.ended = True
            self.final = bool(self._counts)
            return
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            body = load_object(data)
        if type(body) is dict:
            self._fold(name, body, data)
        elif name == "error":
            self.failed = True
        elif type(body) is list:  # Google's errors
            for each in objects(body):
                self._fold(name, each, data)

    def headers(self, status: int, headers: Mapping[str, str]) -> None:  # noqa: B027  # optional
        """These families state nothing in their headers."""

    def usage(self) -> Usage:
        if self._usage is None:
            self._usage = self._settle() if self._counts else NO_USAGE
        return self._usage

    @abstractmethod
    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        """Take what one event says."""

    @abstractmethod
    def _settle(self) -> Usage:
        """The family's rules, on the counts so far."""

    def more(self, text: str) -> None:
        """Count one content-carrying event."""
        self.deltas += 1
        if text.isascii():
            self.delta_bytes += len(text)
        else:
            encoded = text.encode("utf-8", "replace")
            self.delta_bytes += len(encoded)
            # A lone surrogate would make a tokenizer raise.
            text = encoded.decode("utf-8")
        self.text = text

    def _framed(self, data: bytes) -> None:
        """Show what stands around `text` in this event's data: where no other string is escaped,
        and its own string, written as most do, occurs once."""
        if self._frames >= FRAMES_MAX:
            return
        if self.deltas - self._framed_at < 2:  # no event has had the last one
            self._frames += 1
        self._framed_at = self.deltas
        quoted = orjson.dumps(self.text)
        if data.count(quoted) == 1:
            before, _, after = data.partition(quoted)
            if b"\\" not in before and b"\\" not in after:
                self.frame = before + b'"', b'"' + after

    def _name(self, source: dict[str, Any], model: str = "model", response_id: str = "id") -> None:
        """Note the first model and response id that are not empty (Azure's first is)."""
        if not self.model and type(value := source.get(model)) is str and value:
            self.model = value
        if not self.response_id and type(value := source.get(response_id)) is str and value:
            self.response_id = value

    def _tier(self, value: object) -> None:
        if type(value) is str and value:
            self.service_tier = value


class Unread(Fold):
    """For free and opaque routes: nothing in the answer matters to the bill."""

    __slots__ = ()

    def event(self, name: str, data: bytes) -> None:
        self.text = ""

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        """Never called: events are not read."""

    def _settle(self) -> Usage:
        return NO_USAGE
