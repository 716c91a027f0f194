"""Server-sent events by the WHATWG rules, incremental, with the raw bytes of every event.

Lines end in LF, CRLF or CR, and an empty line ends an event. The usual piece is one or a few
complete ``data: {...}`` events, with a name or without, with LF and nothing waiting, or one without
a name and with CRLF: those take a short way through `feed`.
A byte order mark counts only at the start. Comment lines go out as soon as they are whole, because
they keep the connection alive. What is left at the end of the body is an event too, and llama.cpp's
``error: {...}`` line is handed on as an event named error.
"""

from __future__ import annotations

import re

from .event import DEFAULT_LIMITS, CarryFramer, Event, Limits

# Atomic groups: CRLF is one line end and never two.
_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_IDLE_LINES = re.compile(rb"(?:(?::[^\r\n]*+)?+(?>\r\n|\n|\r))++")
# Half the time of calling Event itself, on the hottest line of the house.
_new = tuple.__new__
_BOM = b"\xef\xbb\xbf"
# As numbers: `in` asks for one first, and makes an exception of anything else.
_CR, _LF = b"\r\n"


class SseFramer(CarryFramer):
    """`event.Framer` for text/event-stream."""

    __slots__ = ("_first", "_parse_bytes")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._parse_bytes = limits.parse_bytes
        self._first = True

    def feed(self, piece: bytes) -> list[Event]:
        if (
            not self._carry.text
            and (piece[:6] == b"data: " or piece[:7] == b"event: ")
            and len(piece) <= self._parse_bytes
        ):
            if piece[-2:] == b"\n\n" and _CR not in piece:
                return self._lf(piece)
            end = len(piece) - 4
            if (
                piece[end:] == b"\r\n\r\n"
                and piece[:1] == b"d"
                and piece.find(b"\r") == end
                and piece.find(b"\n") == end + 1
            ):
                self._first = False
                return [_new(Event, (piece, "", piece[6:end], False))]
        return self._search(piece)

    def _lf(self, piece: bytes) -> list[Event]:
        """Complete events with LF."""
        self._first = False
        end, line = len(piece) - 2, piece.find(b"\n")
        if line == end and piece[:1] == b"d":
            return [_new(Event, (piece, "", piece[6:end], False))]
        data = line + 1
        if piece[data : data + 6] == b"data: " and piece.find(b"\n", data) == end:
            name = piece[7:line] if piece[:1] == b"e" else b""
            if name:
                text = name.decode("utf-8", "replace")
                return [_new(Event, (piece, text, piece[data + 6 : end], False))]
        return self._split(piece)

    def finish(self) -> list[Event]:
        carry = self._carry
        if not carry.text:
            return []
        event = self._event(len(carry.text))
        carry.clear()
        return [event]

    def _split(self, piece: bytes) -> list[Event]:
        """Several complete events with LF."""
        events = []
        for block in piece[:-2].split(b"\n\n"):
            if block[:6] == b"data: " and _LF not in block:
                events.append(Event(block + b"\n\n", "", block[6:]))
            else:
                events.append(Event(block + b"\n\n", *_fields(block)))
        return events

    def _joined(self, piece: bytes) -> list[Event] | None:
        """Where the waiting tail and `piece` hold complete events and LF only: those events, with
        the rest left waiting."""
        tail = self._carry.text
        if self._carry.mid_event or self._first or len(piece) > self._parse_bytes:
            return None
        ends_here = piece.find(b"\n\n") >= 0 or (piece[:1] == b"\n" and tail[-1:] == b"\n")
        if not ends_here or _CR in piece or _CR in tail:
            return None
        text = bytes(tail) + piece
        cut = text.rfind(b"\n\n") + 2
        if cut > self._parse_bytes:
            return None
        events = self._split(text[:cut])
        self._carry.restart(text[cut:])
        return events

    def _search(self, piece: bytes) -> list[Event]:
        carry = self._carry
        events = self._joined(piece)
        if events is None:
            events = []
            carry.text += piece
        while (end := _END.search(carry.text, carry.seen)) is not None:
            events.append(self._event(end.end()))
        # A line end may be waiting for its second half, or for the second line end.
        carry.seen = max(carry.start, len(carry.text) - 2)
        if not carry.mid_event and (_LF in piece or _CR in piece):
            idle = _IDLE_LINES.match(carry.text, carry.start)
            if idle is not None:
                events.append(self._event(idle.end()))
        loose = carry.settle()
        if loose:
            events.append(Event(loose, "", b"", True))
        return events

    def _event(self, end: int) -> Event:
        raw, text, torn = self._carry.take(end)
        if self._first:
            self._first = False
            text = text.removeprefix(_BOM)
        return Event(raw, *_fields(text), torn)


def _fields(block: bytes) -> tuple[str, bytes]:
    """The name and the joined data lines of one event's text."""
    name = b""
    data: list[bytes] = []
    error = None
    for line in _LINE_END.split(block) if _CR in block else block.split(b"\n"):
        field, colon, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field == b"error" and colon:
            error = value
    if not data and error is not None:
        return "error", error
    return name.decode("utf-8", "replace"), b"\n".join(data)
