"""A JSON array sent piecemeal: every object in it is an event (Gemini without alt=sse).

The cut is found by counting brackets outside strings. An object's raw bytes begin with whatever
stands before it: the opening bracket, commas, white space. A body that is one object instead, as
errors are, is one event.
"""

from __future__ import annotations

import re

from .event import DEFAULT_LIMITS, CarryFramer, Event, Limits

# A whole string in one step; else a lone quote, whose string goes on in the next piece.
_OUTSIDE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
# What is left of a string: to its quote, or to a backslash at the very end.
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE = b'"'[0]
_OPENING = b"{["


class JsonArrayFramer(CarryFramer):
    """`event.Framer` for a top-level JSON array."""

    __slots__ = ("_base", "_depth", "_in_string", "_skip")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._depth = 0
        self._base: int | None = None
        """Depth at which the events lie: 1 in an array, 0 for a lone object."""
        self._in_string = False
        self._skip = False

    def feed(self, piece: bytes) -> list[Event]:
        carry = self._carry
        carry.text += piece
        events: list[Event] = []
        position = carry.seen
        while position < len(carry.text):
            position = (
                self._inside(position) if self._in_string else self._outside(position, events)
            )
        carry.seen = len(carry.text)
        if self._base is not None and self._depth < self._base:
            # Behind the closing bracket nothing is waited for.
            events += self.finish()
        loose = carry.settle()
        if loose:
            events.append(Event(loose, "", b"", True))
        return events

    def finish(self) -> list[Event]:
        carry = self._carry
        if len(carry.text) <= carry.released:
            return []
        raw, _, torn = carry.take(len(carry.text))
        carry.clear()
        return [Event(raw, "", b"", torn)]

    def _outside(self, position: int, events: list[Event]) -> int:
        token = _OUTSIDE.search(self._carry.text, position)
        if token is None:
            return len(self._carry.text)
        mark = self._carry.text[token.start()]
        if mark == _QUOTE:
            self._in_string = token.end() - token.start() == 1
        elif mark in _OPENING:
            if self._base is None:
                self._base = 1 if mark == _OPENING[1] else 0
            self._depth += 1
        else:
            self._depth -= 1
            if self._depth == self._base:
                raw, text, torn = self._carry.take(token.end())
                events.append(Event(raw, "", text.lstrip(b" \t\r\n,["), torn))
        return token.end()

    def _inside(self, position: int) -> int:
        if self._skip:
            self._skip = False
            return position + 1
        text = self._carry.text
        rest = _INSIDE.match(text, position)
        end = rest.end() if rest else position  # it matches nothing, too
        if end == len(text):
            return end
        if text[end] == _QUOTE:
            self._in_string = False
        else:
            self._skip = True
        return end + 1
