"""Bodies of AWS's binary frames, cut at their stated lengths and checked by both their CRCs.

A frame's event name is its ``:event-type``; an exception's is ``exception:<type>``, an error's
``error:<code>``. Something that is no frame raises `FrameError`: the tap then lets the rest of the
answer pass unread and flags it.
"""

from __future__ import annotations

import struct
from zlib import crc32

from lava_adapters.awsframe import OVERHEAD, string_headers

from .event import DEFAULT_LIMITS, Carry, Event, Limits

FRAME_BYTES_MAX = 25 * 2**20
"""AWS's own limits are 16 MiB of payload and 128 KiB of headers."""
_PRELUDE = struct.Struct(">III")


class FrameError(ValueError):
    """The bytes are no frame."""


class EventStreamFramer:
    """`event.Framer` for binary frames."""

    __slots__ = ("_carry", "_left")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._carry = Carry(limits)
        self._left = 0
        """Bytes still to come of a frame too long to be held, which passes unread."""

    @property
    def pending(self) -> bytes:
        return self._carry.pending

    @property
    def mid_event(self) -> bool:
        return self._left > 0

    @property
    def part_bytes(self) -> int:
        return self._carry.part_bytes

    @property
    def part(self) -> bytes:
        return self._carry.part

    def feed(self, piece: bytes) -> list[Event]:
        events: list[Event] = []
        if self._left:
            loose, piece = piece[: self._left], piece[self._left :]
            self._left -= len(loose)
            events.append(Event(loose, "", b"", True))
        carry = self._carry
        carry.text += piece
        while len(carry.text) - carry.start >= _PRELUDE.size:
            size, _, check = _PRELUDE.unpack_from(carry.text, carry.start)
            if check != crc32(carry.text[carry.start : carry.start + 8]):
                raise FrameError("prelude CRC")
            if not OVERHEAD <= size <= FRAME_BYTES_MAX:
                raise FrameError("frame length")
            end = carry.start + size
            if len(carry.text) < end:
                if size > carry.limits.parse_bytes:
                    self._left = end - len(carry.text)
                    raw, _, _ = carry.take(len(carry.text))
                    events.append(Event(raw, "", b"", True))
                break
            events.append(_event(bytes(carry.text[carry.start : end])))
            carry.take(end)
        _forget(carry)
        return events

    def finish(self) -> list[Event]:
        carry = self._carry
        rest = bytes(carry.text[carry.start :])
        carry.take(len(carry.text))
        carry.clear()
        return [Event(rest, "", b"", True)] if rest else []


def _forget(carry: Carry) -> None:
    """As `Carry.settle`, but an incomplete frame waits up to the parse limit: no part of one may
    go out before its checksum is known to be right."""
    if not carry.start:
        return
    waiting = bytes(carry.text[carry.start :])
    carry.clear()
    carry.text += waiting


def _event(raw: bytes) -> Event:
    if crc32(raw[:-4]) != int.from_bytes(raw[-4:], "big"):
        raise FrameError("message CRC")
    size = int.from_bytes(raw[4:8], "big")
    if OVERHEAD + size > len(raw):
        raise FrameError("header length")
    headers = string_headers(raw[12 : 12 + size])
    kind = headers.get(":message-type", "event")
    name = headers.get(":event-type", "")
    if kind == "exception":
        name = "exception:" + headers.get(":exception-type", "")
    elif kind == "error":
        name = "error:" + headers.get(":error-code", "")
    return Event(raw, name, raw[12 + size : -4] or b"{}")
