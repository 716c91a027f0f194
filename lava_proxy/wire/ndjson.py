"""Bodies cut at line ends, and bodies that are not cut at all."""

from __future__ import annotations

from .event import DEFAULT_LIMITS, CarryFramer, Event, Limits


class NdjsonFramer(CarryFramer):
    """`event.Framer` for one JSON value per line."""

    __slots__ = ()

    def feed(self, piece: bytes) -> list[Event]:
        carry = self._carry
        carry.text += piece
        events = []
        while (end := carry.text.find(b"\n", carry.seen)) >= 0:
            raw, text, torn = carry.take(end + 1)
            events.append(Event(raw, "", text.strip(), torn))
        carry.seen = len(carry.text)
        loose = carry.settle()
        if loose:
            events.append(Event(loose, "", b"", True))
        return events

    def finish(self) -> list[Event]:
        carry = self._carry
        if not carry.text:
            return []
        raw, text, torn = carry.take(len(carry.text))
        carry.clear()
        return [Event(raw, "", text.strip(), torn)]


class WholeFramer(CarryFramer):
    """`event.Framer` for one JSON document: bytes go straight through, and at the end one event
    without bytes brings the document, or its head and tail."""

    __slots__ = ()

    @property
    def pending(self) -> bytes:
        return b""

    def feed(self, piece: bytes) -> list[Event]:
        if not piece:
            return []
        carry = self._carry
        carry.text += piece
        carry.seen = carry.released = len(carry.text)
        carry.settle()
        return [Event(piece, "", b"", True)]

    def finish(self) -> list[Event]:
        if not self._carry.text:
            return []
        _, text, _ = self._carry.take(len(self._carry.text))
        self._carry.clear()
        return [Event(b"", "", text, True)]


class OpaqueFramer:
    """`event.Framer` for bytes that mean nothing to us."""

    __slots__ = ("part_bytes",)

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.part_bytes = 0

    @property
    def pending(self) -> bytes:
        return b""

    @property
    def mid_event(self) -> bool:
        return self.part_bytes > 0

    @property
    def part(self) -> bytes:
        return b""

    def feed(self, piece: bytes) -> list[Event]:
        self.part_bytes += len(piece)
        return [Event(piece, "", b"", True)]

    def finish(self) -> list[Event]:
        return []
