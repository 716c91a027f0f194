"""One event of an answer, and the bounded buffer that incomplete ones wait in.

Rules of the buffer, the same for every framing:

* The concatenation of all `raw` that come out is exactly what went in.
* An event comes out when its last byte has come in. Its `data` is what a reader parses.
* A tail that grows beyond `hold_bytes` without an end is let go raw, and so is all that follows it
  up to its end. Such pieces are `torn`, and the last of them brings the `data`.
* Beyond `parse_bytes` an event is no longer collected: its `data` is its head and its tail.
* The work is linear in the bytes, however they are split: searches resume where they stopped, and
  the middle of an oversize event is dropped in large steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Event(NamedTuple):
    """What is sent on at once. A named tuple because one is made for every event of every stream:
    a frozen dataclass takes three times as long to make."""

    raw: bytes
    name: str
    """The SSE event name, "" when there was none."""
    data: bytes
    """The payload; b"" for what a reader need not see (comments, separators, torn pieces)."""
    torn: bool = False
    """`raw` is only a part of an event."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of an answer is held, in bytes."""

    hold_bytes: int = 64 * 1024
    """Of an incomplete event, before it is let go."""
    parse_bytes: int = 1024 * 1024
    """Of one event, before only its head and tail are kept."""
    head_bytes: int = 16 * 1024
    tail_bytes: int = 64 * 1024


DEFAULT_LIMITS = Limits()


class Framer(Protocol):
    """Cuts a body into events."""

    @property
    def pending(self) -> bytes:
        """Bytes that went in and have not come out."""

    @property
    def mid_event(self) -> bool:
        """The last byte that came out was not the end of an event: nothing may be added behind
        it, only the connection closed."""

    @property
    def part_bytes(self) -> int:
        """Size of an event of which some is out and the end has not come: nothing has read it. Of a
        JSON document that is all there is until the body ends."""

    @property
    def part(self) -> bytes:
        """Its text, as far as it is kept."""

    def feed(self, piece: bytes) -> list[Event]: ...

    def finish(self) -> list[Event]:
        """The body is complete: whatever waits comes out."""


class Carry:
    """The buffer of one framer. `text[start:]` is the event under way; `seen` is how far the
    framer has searched; `released` is how far `text` has gone out already."""

    __slots__ = ("_dropped", "_returned", "limits", "released", "seen", "start", "text")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.text = bytearray()
        self.start = 0
        self.seen = 0
        self.released = 0
        self._dropped = 0
        self._returned = 0

    @property
    def pending(self) -> bytes:
        """What no finished call of the framer has returned, even if a call failed half-way."""
        return bytes(self.text[self._returned :])

    @property
    def mid_event(self) -> bool:
        return self.released > self.start

    @property
    def part_bytes(self) -> int:
        return self.released - self.start + self._dropped if self.mid_event else 0

    @property
    def part(self) -> bytes:
        return bytes(self.text[self.start : self.released])

    def take(self, end: int) -> tuple[bytes, bytes, bool]:
        """The event that ends at `end`: what of it is still to be sent, its text (head and tail if
        it was too long), and whether earlier parts are out."""
        torn = self.released > self.start
        raw = bytes(self.text[self.released if torn else self.start : end])
        size = end - self.start
        whole = raw if not torn else bytes(self.text[self.start : end])
        if size + self._dropped > self.limits.parse_bytes:
            limits = self.limits
            if size > limits.head_bytes + limits.tail_bytes:
                whole = whole[: limits.head_bytes] + whole[-limits.tail_bytes :]
        self.start = self.released = end
        self.seen = max(self.seen, end)
        self._dropped = 0
        return raw, whole, torn

    def settle(self) -> bytes:
        """Forget what is done, and let go of a tail that is too long: returns the bytes let go."""
        if self.start:
            self._forget(self.start)
        size = len(self.text)
        loose = b""
        if self.released or size > self.limits.hold_bytes:
            loose = bytes(self.text[self.released :])
            self.released = size
            self._trim(size)
        self._returned = self.released
        return loose

    def restart(self, text: bytes) -> None:
        """Begin again with `text` waiting, which was searched up to its last two bytes."""
        self.text = bytearray(text)
        self.start = self.released = 0
        self.seen = max(0, len(text) - 2)

    def clear(self) -> None:
        """Forget everything: the body is complete."""
        self._forget(len(self.text))
        self._returned = 0

    def _forget(self, count: int) -> None:
        del self.text[:count]
        self.start = max(0, self.start - count)
        self.seen = max(0, self.seen - count)
        self.released = max(0, self.released - count)

    def _trim(self, size: int) -> None:
        """Drop the middle of an oversize event, seldom enough to stay linear."""
        limits = self.limits
        keep = limits.head_bytes + limits.tail_bytes
        most = keep + limits.tail_bytes if self._dropped else limits.parse_bytes
        if size > most and self.seen >= size - limits.tail_bytes:
            excess = size - keep
            del self.text[limits.head_bytes : limits.head_bytes + excess]
            self._dropped += excess
            self.seen -= excess
            self.released -= excess


class CarryFramer:
    """What the framers that wait in a `Carry` have in common: all but `feed` and `finish`."""

    __slots__ = ("_carry",)

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._carry = Carry(limits)

    @property
    def pending(self) -> bytes:
        return self._carry.pending

    @property
    def mid_event(self) -> bool:
        return self._carry.mid_event

    @property
    def part_bytes(self) -> int:
        return self._carry.part_bytes

    @property
    def part(self) -> bytes:
        return self._carry.part
