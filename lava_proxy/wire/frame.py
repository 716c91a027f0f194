"""The shape of a stream's usual event: fixed bytes around its text and around what only counts up.

Most events of a stream differ from the one before in their text, and perhaps in a time, a sequence
number or OpenAI's padding. Such an event need not be parsed: if the fixed bytes are where they
were, and nothing between them ends a JSON string, it says the same around another text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

_plain = re.compile(rb"[ !#-\[\]-~]+").fullmatch
"""Text that JSON writes as it is: printable ASCII without quotes and backslashes."""
_TEXT = re.compile(rb'(?:[^"\\\x00-\x1f]|\\["\\/bfnrtu])++')
"""What may stand in a JSON string; whether it is right, the parser says."""
_KINDS = (rb"[0-9]+", rb"[ !#-\[\]-~]*", rb"[ ]*")
_HOLDS = tuple(re.compile(kind) for kind in _KINDS)
_GAPS = re.compile(
    rb'"(?:created|sequence_number)":[ ]?([0-9]+)\b'
    rb'|"(?:created_at|obfuscation)":[ ]?"([ !#-\[\]-~]*)"'
    rb"|([ ]+)\}\s*\Z"
)
"""What differs from event to event and says nothing about usage: some members, and the spaces that
Anthropic pads with."""


class Gap(NamedTuple):
    """Something that differs, and the fixed bytes behind it, up to the next gap."""

    holds: re.Pattern[bytes] | None
    """What it may be; None for the text."""
    behind: bytes


class Frame:
    """What stood around the last event's text, and where in it are gaps that may differ."""

    __slots__ = ("_after", "_before", "_end", "_gaps", "_head", "_start")

    def __init__(self, before: bytes, after: bytes) -> None:
        """What stood before and after the text. No backslash is in it, so every quote begins or
        ends a string."""
        self._stand(before, after)
        cut = (*_cut(before), *_cut(after))
        self._head = cut[0].behind
        self._gaps = cut[1:] if len(cut) > 2 else ()

    def text_of(self, piece: bytes) -> str | None:
        """The text of an event that has this frame; None for all others."""
        start, end = self._start, self._end
        if piece[:start] == self._before and piece[end:] == self._after:
            inside = piece[start:end]
            if inside.isascii():  # `_text`, written out for the usual: `_plain` of it
                text = inside.decode()
                if text and text.isprintable() and '"' not in text and "\\" not in text:
                    return text
            return _text(piece, start, len(piece) + end)
        return self._step(piece) if self._gaps else None

    def _stand(self, before: bytes, after: bytes) -> None:
        """These stand around the text now; neither is empty, as both have its quotes."""
        self._before = before
        self._after = after
        self._start = len(before)
        self._end = -len(after)

    def _step(self, piece: bytes) -> str | None:
        """The same where a gap differs; what stands in it now will stand in the next events too,
        if it is a time."""
        if not piece.startswith(self._head):
            return None
        at, start, end = len(self._head), 0, 0
        for holds, behind in self._gaps:
            stop = piece.find(behind, at)
            if stop < 0:
                return None
            if holds is None:
                start, end = at, stop
            elif holds.fullmatch(piece, at, stop) is None:
                return None
            at = stop + len(behind)
        if at != len(piece):
            return None
        text = _text(piece, start, end)
        if text is not None:
            self._stand(piece[:start], piece[end:])
        return text


def _text(piece: bytes, start: int, end: int) -> str | None:
    """A string's inside, if it is one and not empty."""
    if _plain(piece, start, end) is not None:
        return piece[start:end].decode("ascii")
    if _TEXT.fullmatch(piece, start, end) is None:
        return None
    try:
        text: str = orjson.loads(b'"%b"' % piece[start:end])
    except orjson.JSONDecodeError:
        return None
    return text


def _cut(fixed: bytes) -> list[Gap]:
    """Fixed bytes, cut at what differs in them: the first has nothing in front of it."""
    cut: list[Gap] = []
    holds, at = None, 0
    for found in _GAPS.finditer(fixed):
        kind = found.lastindex or 0
        cut.append(Gap(holds, fixed[at : found.start(kind)]))
        holds, at = _HOLDS[kind - 1], found.end(kind)
    return [*cut, Gap(holds, fixed[at:])]
