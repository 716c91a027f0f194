"""Bodies of AWS's binary frames, cut at their stated lengths and checked by both their CRCs.

A frame's event name is its ``:event-type``; an exception's is ``exception:<type>``, an error's
``error:<code>``. Something that is no frame raises `FrameError`: the tap then lets the rest of the
answer pass unread and flags it.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from zlib import crc32

from lava_adapters.awsframe import OVERHEAD, string_headers

from .event import DEFAULT_LIMITS, Carry, CarryFramer, Event, Limits

FRAME_BYTES_MAX = 25 * 2**20
"""AWS's own limits are 16 MiB of payload and 128 KiB of headers."""
_PRELUDE = struct.Struct(">III")
_CHECK = struct.Struct(">I")
_HEADERS_KEPT_BYTES = 512
"""A stream's header blocks are the same few again and again, and short: these are read once."""


class FrameError(ValueError):
    """The bytes are no frame."""


class EventStreamFramer(CarryFramer):
    """`event.Framer` for binary frames."""

    __slots__ = ("_left",)

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._left = 0
        """Bytes still to come of a frame too long to be held, which passes unread."""

    @property
    def mid_event(self) -> bool:
        return self._left > 0

    def feed(self, piece: bytes) -> list[Event]:
        events: list[Event] = []
        if self._left:
            loose, piece = piece[: self._left], piece[self._left :]
            self._left -= len(loose)
            events.append(Event(loose, "", b"", True))
        carry = self._carry
        whole = not carry.text and len(piece) >= OVERHEAD
        if whole and int.from_bytes(piece[:4], "big") == len(piece):  # the usual piece
            try:
                _size(piece, 0)
                return [*events, _event(piece)]
            except ValueError:
                carry.text += piece  # it is still to go out
                raise
        carry.text += piece
        while len(carry.text) - carry.start >= _PRELUDE.size:
            size = _size(carry.text, carry.start)
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


def _size(text: bytes | bytearray, start: int) -> int:
    """The length of the frame that begins at `start`, which its own checksum covers."""
    size: int
    size, _, check = _PRELUDE.unpack_from(text, start)
    if check != crc32(text[start : start + 8]):
        raise FrameError("prelude CRC")
    if not OVERHEAD <= size <= FRAME_BYTES_MAX:
        raise FrameError("frame length")
    return size


def _event(raw: bytes) -> Event:
    end = len(raw) - _CHECK.size
    if _CHECK.unpack_from(raw, end)[0] != crc32(raw[:end]):
        raise FrameError("message CRC")
    size = _PRELUDE.unpack_from(raw)[1]
    payload = _PRELUDE.size + size
    if payload > end:
        raise FrameError("header length")
    block = raw[_PRELUDE.size : payload]
    name = _known_name(block) if size <= _HEADERS_KEPT_BYTES else _name(block)
    return Event(raw, name, raw[payload:end] or b"{}")


def _name(block: bytes) -> str:
    """What a frame's header block says it is."""
    headers = string_headers(block)
    kind = headers.get(":message-type", "event")
    if kind == "exception":
        return "exception:" + headers.get(":exception-type", "")
    if kind == "error":
        return "error:" + headers.get(":error-code", "")
    return headers.get(":event-type", "")


_known_name = lru_cache(maxsize=256)(_name)
