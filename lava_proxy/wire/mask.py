"""Hiding one secret in bytes that pass: the provider key, should a provider's error echo it.

Found however JSON may write it (``\\u002d``, ``\\/``, nested in a string of a string) or a URL may
(``%2D``), and however the bytes are split: what may be the beginning of it waits for what follows.
What is hidden becomes as many stars, so lengths stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

PART_MIN = 8
"""A body that ends within the secret, after so many of its characters, shows none of them."""
BACKSLASHES_MAX = 8
"""Before one character. A string in a string in a string takes seven; an end keeps it linear."""
BEGIN_CHARS = 8
"""So many of the first are looked for as they stand, before the slow search for other ways to
write them: most pieces have neither them nor such an escape, and cost four searches in C."""
_MISMATCH = -1
_MORE = -2
_TAIL_BYTES = BEGIN_CHARS - 1 + BACKSLASHES_MAX + len("u0")
"""What may be the beginning of the secret, with no sign of it before the end."""
_START_CHARS = 4
_ESCAPED = frozenset(b'"\\/')
"""What a backslash alone may stand before."""


class Mask:
    """For one answer: `feed` its pieces in order, then `finish`."""

    __slots__ = ("_chars", "_held", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._held = b""
        self._chars = 0
        """How many characters of the secret `_held` is."""

    def feed(self, data: bytes) -> bytes:
        """What may go out now."""
        if not self._secret:
            return data
        data, self._held = self._held + data, b""
        done = 0
        at = 0 if _signed(self._secret, data) else max(0, len(data) - _TAIL_BYTES)
        starts = _starts(self._secret)
        out: list[bytes] = []
        while start := starts.search(data, at):
            at = start.start()
            end, chars = self._match(data, at)
            if end == _MISMATCH:
                at += 1
                continue
            out.append(data[done:at])
            if end == _MORE:
                self._held, self._chars = data[at:], chars
                return b"".join(out)
            out.append(b"*" * (end - at))
            done = at = end
        if not done:
            return data
        out.append(data[done:])
        return b"".join(out)

    def finish(self) -> bytes:
        """What waited for more."""
        held, self._held = self._held, b""
        return held if self._chars < PART_MIN else b"*" * len(held)

    def _match(self, data: bytes, at: int) -> tuple[int, int]:
        """Where the secret ends that begins at `at`, and how many of its characters were seen."""
        for seen, char in enumerate(self._secret):
            at = _after(data, at, char)
            if at < 0:
                return at, seen
        return at, len(self._secret)


class Masks:
    """The same for several secrets: a signing key has a name and a secret, and perhaps a token."""

    __slots__ = ("_masks", "_secrets")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = secrets
        self._masks: list[Mask] = []
        """Made for the first piece that another may follow."""

    def feed(self, data: bytes) -> bytes:
        """What may go out now."""
        if not self._masks:
            self._masks = [Mask(secret) for secret in self._secrets]
        for mask in self._masks:
            data = mask.feed(data)
        return data

    def finish(self) -> bytes:
        """What waited for more."""
        rest = b""
        for mask in self._masks:
            rest = mask.feed(rest) + mask.finish()
        return rest

    def last(self, data: bytes) -> bytes:
        """As `feed` and then `finish`. An answer of one piece without a sign of a secret, as most
        are, costs no more than the look: nothing in it would be hidden."""
        if not self._masks:
            for secret in self._secrets:
                if _signed(secret, data):
                    break
            else:
                return data
        return self.feed(data) + self.finish()


def shows(secret: bytes, data: bytes) -> bool:
    """Whether the secret is in it, written in whichever way."""
    if not secret or data.find(secret) >= 0:
        return bool(secret)
    if data.find(b"\\") < 0 and data.find(b"%") < 0:  # half as dear as `in`
        return False
    mask = Mask(secret)
    return mask.feed(data) + mask.finish() != data


def _signed(secret: bytes, data: bytes) -> bool:
    """Whether there is a sign of the secret: else it is at most begun at the very end, by fewer
    than `BEGIN_CHARS` of its characters. (`find` is half as dear as `in`.)"""
    begin = secret[:BEGIN_CHARS]
    if data.find(b"%") >= 0 or data.find(begin) >= 0:
        return True
    if data.find(b"\\") < 0:
        return False
    return data.find(b"u00") >= 0 or not _ESCAPED.isdisjoint(begin)


@lru_cache(maxsize=64)
def _starts(secret: bytes) -> re.Pattern[bytes]:
    """Where the secret may begin, by its first few characters or an escape among them."""
    first, *more = (re.escape(bytes([char])) for char in secret[:_START_CHARS])
    ahead = rb""
    for char in reversed(more):
        ahead = rb"(?:[\\%%]|\Z|%b%b)" % (char, ahead)
    return re.compile(
        rb"%b(?=%b)|\\(?=[\\u%b]|\Z)|%%(?=%x|\Z)" % (first, ahead, first, secret[0] >> 4)
    )


def _after(data: bytes, at: int, char: int) -> int:
    """Where one character ends that may be escaped; `_MORE` when `data` ends within it."""
    first = at
    while data[at : at + 1] == b"\\" and at - first < BACKSLASHES_MAX:
        at += 1
    if at > first and data[at : at + 1] == b"u":
        end = _digits(data, at + 1, b"%04x" % char)
        if end != _MISMATCH:
            return end
    if data[at : at + 1] == b"%":
        end = _digits(data, at + 1, b"%02x" % char)
        if end != _MISMATCH:
            return end
    if at == len(data):
        return _MORE
    escaped = at > first and char not in _ESCAPED
    return at + 1 if data[at] == char and not escaped else _MISMATCH


def _digits(data: bytes, at: int, wanted: bytes) -> int:
    found = data[at : at + len(wanted)].lower()
    if found == wanted:
        return at + len(wanted)
    ends = at + len(found) == len(data) and wanted.startswith(found)
    return _MORE if ends else _MISMATCH
