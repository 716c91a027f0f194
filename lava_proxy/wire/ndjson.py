"""Bodies cut at line ends, and bodies that are not cut at all."""

from __future__ import annotations

from .event import DEFAULT_LIMITS, Carry, CarryFramer, Event, Limits

# Half the time of calling Event itself: see sse.py.
_new = tuple.__new__


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


class WholeFramer:
    """`event.Framer` for one JSON document: bytes go straight through, and at the end one event
    without bytes brings the document, or its head and tail. Most come as one piece, which is kept
    as it is."""

    __slots__ = ("_carry", "_limits", "_only")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._only = b""
        """The document, while it is one piece."""
        self._carry: Carry | None = None
        """The document, once it is more than that."""

    @property
    def pending(self) -> bytes:
        return b""

    @property
    def mid_event(self) -> bool:
        return self.part_bytes > 0

    @property
    def part_bytes(self) -> int:
        return len(self._only) if self._carry is None else self._carry.part_bytes

    @property
    def part(self) -> bytes:
        return self._only if self._carry is None else self._carry.part

    def feed(self, piece: bytes) -> list[Event]:
        if not piece:
            return []
        if self._carry is None and not self._only and len(piece) <= self._limits.parse_bytes:
            self._only = piece
        else:
            self._collect(piece)
        return [_new(Event, (piece, "", b"", True))]

    def _collect(self, piece: bytes) -> None:
        if self._carry is None:
            self._carry = Carry(self._limits)
            piece, self._only = self._only + piece, b""
        carry = self._carry
        carry.text += piece
        carry.seen = carry.released = len(carry.text)
        carry.settle()

    def finish(self) -> list[Event]:
        text, self._only = self._only, b""
        if self._carry is not None:
            _, text, _ = self._carry.take(len(self._carry.text))
            self._carry = None
        return [_new(Event, (b"", "", text, True))] if text else []


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
