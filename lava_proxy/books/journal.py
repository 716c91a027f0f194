"""The journal: append-only files per process that survive ``kill -9``.

A record is stored before the act it covers, where the kernel keeps it even if we are gone a
microsecond later (books/segment.py says how):

    HOLD      before the provider is connected   who pays, which meter, the input estimate
    SENT      before the request goes out        from here on the provider may charge
    PROGRESS  before bytes go to the client      cumulative counts
    SETTLE    before the last byte goes out      the final facts

Replay (books/replay.py) reads it after a crash: HOLD alone is void, SENT alone costs the input
estimate, else the last PROGRESS or SETTLE counts. No prompt and no secret is ever written here.

A process owns one folder, ``journals/<holder id>/`` (books/folder.py); the holder id is also the
name under which it leases credit. Segments are allocated ahead of need and off the
event loop (`tend`). A segment is deleted once every call that it holds is committed in PostgreSQL.

Two kinds of trouble: a full disk means that no new call may start until `tend` finds room again; a
failed fsync is final, because the kernel may have dropped what it could not write.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from lava_proxy.books.folder import lock_folder, remove_folder
from lava_proxy.books.segment import (
    COUNTS,
    HOLD,
    PROGRESS,
    SENT,
    SEQ,
    SETTLE,
    JournalError,
    Record,
    Segment,
    read_segment,
)

__all__ = ["Journal", "JournalError", "Record", "read_folder"]

ROOM_AFTER_BYTES = 1 << 20
"""Behind the size at which no new call begins in a segment: for the calls that run."""

PACE = 4
"""The next segment is made when the current one is filled by one part in so many."""


class Journal:
    """The writing side. Every method but `tend` is synchronous and costs about a microsecond."""

    def __init__(self, folder: Path, *, segment_bytes: int) -> None:
        """Takes the folder's lock; raises `JournalError` if another process has it."""
        self.folder = folder
        self.holder_id = folder.name
        self._segment_bytes = segment_bytes
        self._lock_fd = lock_folder(folder)
        self._number = self._last_number = 0
        self._seq = 0
        self._segments: deque[Segment] = deque()
        self._spare: Segment | None = None
        self._calls: dict[int, Segment] = {}
        self._behind_bytes = 0
        """Size of the segments before the last one."""
        self._files = threading.Lock()
        """Held while segments come and go, so that `tend` finds open files; never over an fsync."""
        self.failed: str | None = None
        """An I/O error: final."""
        self.full: str | None = None
        """There is no room for a new segment; `tend` clears it."""
        try:
            self._last = self._rotate()
        except JournalError:
            os.close(self._lock_fd)
            raise

    @property
    def closed(self) -> str | None:
        """Why no new call may start."""
        return self.failed or self.full

    @property
    def open_calls(self) -> int:
        """Calls whose outcome is not committed yet."""
        return len(self._calls)

    @property
    def kept_bytes(self) -> int:
        """Bytes of records that are kept because a call in them, or before them, is not
        committed."""
        return self._behind_bytes + (self._last.size if self._calls else 0)

    def hold(self, facts: bytes) -> int:
        """Write HOLD; `facts` is JSON. Returns the call's number in this journal."""
        if self.failed is not None:
            raise JournalError(self.failed)
        seq = self._seq = self._seq + 1
        if self._last.size >= self._segment_bytes:
            self._last = self._rotate()
        self._append(HOLD, SEQ.pack(seq) + facts)
        segment = self._last
        self._calls[seq] = segment
        segment.open_calls += 1
        return seq

    def amend(self, seq: int, facts: bytes) -> None:
        """Write HOLD again, with what is known by now: the last one counts."""
        self._append(HOLD, SEQ.pack(seq) + facts)

    def sent(self, seq: int) -> None:
        """Write SENT: the provider may charge from here on."""
        number = SEQ.pack(seq)
        if not self._last.store(SENT, number):
            self._append(SENT, number)

    def progress(
        self, seq: int, inputs: int, outputs: int, input_characters: int, output_characters: int
    ) -> None:
        """Write PROGRESS: counts so far, tokens and characters."""
        counts = COUNTS.pack(seq, inputs, outputs, input_characters, output_characters)
        if not self._last.store(PROGRESS, counts):
            self._append(PROGRESS, counts)

    def settle(self, seq: int, facts: bytes) -> None:
        """Write SETTLE; `facts` is JSON."""
        self._append(SETTLE, SEQ.pack(seq) + facts)

    def committed(self, seq: int) -> None:
        """The call's outcome is in PostgreSQL (or it was void): its records may go."""
        segment = self._calls.pop(seq, None)
        if segment is None:
            return
        segment.open_calls -= 1
        while len(self._segments) > 1 and self._segments[0].open_calls == 0:
            with self._files:
                oldest = self._segments.popleft()
                oldest.close()
            self._behind_bytes -= oldest.size
            oldest.path.unlink(missing_ok=True)

    def tend(self, *, fsync: bool = True) -> None:
        """fsync what was stored, and make the next segment before it is needed. Called off the
        event loop, which goes on storing."""
        if fsync:
            self.sync()
        with self._files:
            if self._segments:
                self._segments[-1].forget()
        size = self._last.size
        if self._spare is not None or not (self.full or size * PACE >= self._segment_bytes):
            return
        number = self._take_number()
        try:
            spare = self._make(number, ahead=True)
        except OSError as error:
            if size >= self._segment_bytes:
                self.full = f"journal segment: {error}"
            return
        with self._files:
            if self._segments and number > self._last_number:
                self._spare = spare
                self.full = None
                return
        spare.close()  # too late: closed meanwhile, or the event loop made one itself
        spare.path.unlink(missing_ok=True)

    def sync(self) -> None:
        """fsync what was stored, also in segments before the last one. An I/O error is final: after
        a failed fsync the kernel may have dropped pages, so retrying would lie."""
        try:
            for fd in self._dirty_files():
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        except OSError as error:
            self.failed = f"journal fsync: {error}"

    def close(self) -> None:
        """Close; an empty journal's folder is removed."""
        with self._files:
            if self._spare is not None:
                self._spare.close()
                self._spare.path.unlink(missing_ok=True)
                self._spare = None
            for segment in self._segments:
                segment.close()
            self._segments.clear()
        if not self._calls:
            remove_folder(self.folder)
        os.close(self._lock_fd)

    def _dirty_files(self) -> list[int]:
        """Descriptors of our own, so that `committed` and `close` may close theirs meanwhile."""
        with self._files:
            dirty = [segment for segment in self._segments if segment.dirty]
            for segment in dirty:
                segment.dirty = False
            return [os.dup(segment.fd) for segment in dirty]

    def _append(self, kind: int, payload: bytes) -> None:
        if not self._last.store(kind, payload):  # calls that run long have used up the room after
            self._last = self._rotate()
            if not self._last.store(kind, payload):
                raise JournalError(f"a record of {len(payload)} bytes is too long")

    def _rotate(self) -> Segment:
        with self._files:
            segment, self._spare = self._spare, None
        if segment is None:
            try:
                segment = self._make(self._take_number(), ahead=not self._segments)
            except OSError as error:
                self.full = f"journal segment: {error}"
                raise JournalError(self.full) from error
        with self._files:
            if self._segments:
                self._behind_bytes += self._segments[-1].size
                self._segments[-1].finish()
            self._segments.append(segment)
            self._last_number = segment.number
        self.full = None
        return segment

    def _take_number(self) -> int:
        """Numbers order the segments for reading; each is used once, by whichever thread asks."""
        with self._files:
            self._number += 1
            return self._number

    def _make(self, number: int, *, ahead: bool) -> Segment:
        size = self._segment_bytes + ROOM_AFTER_BYTES
        return Segment(self.folder, number, size, ahead=ahead)


def read_folder(folder: Path, damaged: list[str] | None = None) -> Iterator[Record]:
    """Every record of a folder up to damage in its file, in the order of writing. The names of
    damaged files are added to `damaged`."""
    for path in sorted(folder.glob("*.journal")):
        if (yield from read_segment(path.read_bytes(), path.name)) and damaged is not None:
            damaged.append(path.name)
