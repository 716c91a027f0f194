"""Streams of numbered blocks (Anthropic's, Bedrock's): which is open, and when it is closed.

The stop reason waits for the end, because usage stands beside it and may come later. A tool call's
block stays open until its arguments are whole and something else begins: another dialect's calls
may come interleaved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from . import neutral as n
from .members import is_whole

Kind = Literal["text", "thinking", "signature", "arguments"]


class BlockWriter(ABC):
    """A `dialects.Writer` without words: subclasses write what is told of blocks."""

    __slots__ = (
        "_arguments",
        "_blocks",
        "_calls",
        "_open",
        "_started",
        "_stop",
        "answer_id",
        "counts",
        "model",
    )

    def __init__(self, answer_id: str, model: str) -> None:
        self.answer_id = answer_id
        self.model = model
        self.counts = n.Counts()
        self._started = False
        self._blocks = 0
        self._open: tuple[Kind, int] | None = None
        """Kind and index of the text or thinking block under way."""
        self._calls: dict[int, int] = {}
        """Number of a tool call -> index of its block."""
        self._arguments: dict[int, str] = {}
        """Of the calls whose blocks are open."""
        self._stop: n.Finished | None = None

    def write(self, delta: n.Delta) -> bytes:
        """The events that a delta makes."""
        if isinstance(delta, n.TextDelta):
            return self._more("text", "text", delta.text)
        if isinstance(delta, n.CallDelta):
            return self._more_of_call(delta)
        if isinstance(delta, n.CallStarted):
            return self._call(delta)
        if isinstance(delta, n.ThinkingDelta):
            out = self._more("thinking", "thinking", delta.text) if delta.text else b""
            if delta.signature:
                out += self._more("thinking", "signature", delta.signature)
            return out
        if isinstance(delta, n.Started):
            self.answer_id = delta.answer_id or self.answer_id
            self.model = delta.model or self.model
            self.counts = delta.counts.over(self.counts)
            return self._begin()
        if isinstance(delta, n.Finished):
            self._stop = delta
            return b""
        if isinstance(delta, n.Used):
            self.counts = delta.counts.over(self.counts)
            return b""
        if isinstance(delta, n.Failed):
            return self.failed(delta)
        out = self._begin() + self._close() + self._close_calls(all_of_them=True)
        return out + self.end(self._stop or n.Finished("end"))

    # In a dialect's words.

    @abstractmethod
    def begin(self) -> bytes:
        """The message begins."""

    @abstractmethod
    def start(self, index: int, kind: Kind, call: n.CallStarted | None) -> bytes:
        """A block begins."""

    @abstractmethod
    def more(self, index: int, kind: Kind, text: str) -> bytes:
        """More of a block."""

    @abstractmethod
    def stop(self, index: int) -> bytes:
        """A block ends."""

    @abstractmethod
    def end(self, stop: n.Finished) -> bytes:
        """The message ends, and this is its usage."""

    @abstractmethod
    def failed(self, failed: n.Failed) -> bytes:
        """An error takes the place of the rest."""

    # Which block.

    def _begin(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return self.begin()

    def _more(self, block: Kind, kind: Kind, text: str) -> bytes:
        """A delta in the block under way, or in a new one of its kind."""
        out = b""
        if self._open is None or self._open[0] != block:
            out = self._begin() + self._close() + self._close_calls()
            self._open = (block, self._blocks)
            out += self._start(block, None)
        return out + self.more(self._open[1], kind, text)

    def _call(self, delta: n.CallStarted) -> bytes:
        out = self._begin() + self._close() + self._close_calls()
        self._calls[delta.index] = self._blocks
        self._arguments[delta.index] = ""
        return out + self._start("arguments", delta)

    def _more_of_call(self, delta: n.CallDelta) -> bytes:
        if delta.index not in self._arguments:
            return b""  # whole, and closed
        self._arguments[delta.index] += delta.arguments
        return self.more(self._calls[delta.index], "arguments", delta.arguments)

    def _start(self, kind: Kind, call: n.CallStarted | None) -> bytes:
        self._blocks += 1
        return self.start(self._blocks - 1, kind, call)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        index, self._open = self._open[1], None
        return self.stop(index)

    def _close_calls(self, *, all_of_them: bool = False) -> bytes:
        done = [c for c, text in self._arguments.items() if all_of_them or is_whole(text)]
        out = b""
        for call in done:
            del self._arguments[call]
            out += self.stop(self._calls[call])
        return out
