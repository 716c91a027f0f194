"""The journal: an append-only file per process that survives ``kill -9``.

A record is written with one ``write()`` before the act it covers, so the kernel has it even if we
are gone a microsecond later:

    HOLD      before the provider is connected   who pays, which meter, the input estimate
    SENT      before the request goes out        from here on the provider may charge
    PROGRESS  before bytes go to the client      cumulative counts
    SETTLE    before the last byte goes out      the final facts

Replay (books/replay.py) reads it after a crash: HOLD alone is void, SENT alone costs the input
estimate, else the last PROGRESS or SETTLE counts. No prompt and no secret is ever written here.

A process owns one folder, ``journals/<holder id>/``, by a lock on its ``lock`` file; the holder id
is also the name under which it leases credit. Segments are preallocated, so a full disk shows up at
rotation; a segment is deleted once every call that it holds is committed in PostgreSQL.

Format: an 8-byte header (``LAVAJ`` + version as 3 digits), then records of
``<u32 length> <u32 crc32 of type and payload> <u8 type> <payload>``. A length of 0 is the end: the
preallocated tail is zeros. Whatever fails its CRC ends the segment: a prefix, never a wrong amount.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER = b"LAVAJ001"
HOLD, SENT, PROGRESS, SETTLE = 1, 2, 3, 4

_FRAME = struct.Struct("<IIB")
_SEQ = struct.Struct("<Q")
_COUNTS = struct.Struct("<QQQQQ")
_PAYLOAD_MAX = 1 << 20


class JournalError(Exception):
    """The journal cannot be written or read: no new call may start."""


@dataclass(slots=True)
class _Segment:
    path: Path
    fd: int
    size: int = 0
    open_calls: int = 0
    dirty: bool = False
    """Something was written since the last fsync."""


class Journal:
    """The writing side. Every method is synchronous and costs about one ``write()``."""

    def __init__(self, folder: Path, *, segment_bytes: int) -> None:
        """Takes the folder's lock; raises `JournalError` if another process has it."""
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._lock_fd = lock_folder(folder)
        self._number = 0
        self._seq = 0
        self._segments: deque[_Segment] = deque()
        self._calls: dict[int, _Segment] = {}
        self._files = threading.Lock()
        """Held while segments come and go, so that `sync` finds open files; never over an fsync."""
        self.failed: str | None = None
        try:
            self._rotate()
        except JournalError:
            os.close(self._lock_fd)
            raise

    @property
    def holder_id(self) -> str:
        return self.folder.name

    @property
    def open_calls(self) -> int:
        """Calls whose outcome is not committed yet."""
        return len(self._calls)

    def hold(self, facts: bytes) -> int:
        """Write HOLD; `facts` is JSON. Returns the call's number in this journal."""
        seq = self._seq = self._seq + 1
        if self._segments[-1].size >= self._segment_bytes:
            self._rotate()
        segment = self._segments[-1]
        self._append(HOLD, _SEQ.pack(seq) + facts)
        self._calls[seq] = segment
        segment.open_calls += 1
        return seq

    def sent(self, seq: int) -> None:
        """Write SENT: the provider may charge from here on."""
        self._append(SENT, _SEQ.pack(seq))

    def progress(
        self, seq: int, inputs: int, outputs: int, input_characters: int, output_characters: int
    ) -> None:
        """Write PROGRESS: counts so far, tokens and characters."""
        self._append(
            PROGRESS, _COUNTS.pack(seq, inputs, outputs, input_characters, output_characters)
        )

    def settle(self, seq: int, facts: bytes) -> None:
        """Write SETTLE; `facts` is JSON."""
        self._append(SETTLE, _SEQ.pack(seq) + facts)

    def committed(self, seq: int) -> None:
        """The call's outcome is in PostgreSQL (or it was void): its records may go."""
        segment = self._calls.pop(seq, None)
        if segment is None:
            return
        segment.open_calls -= 1
        while len(self._segments) > 1 and self._segments[0].open_calls == 0:
            with self._files:
                oldest = self._segments.popleft()
                os.close(oldest.fd)
            oldest.path.unlink(missing_ok=True)

    def sync(self) -> None:
        """fsync what was written, also to segments before the last one; called off the event loop,
        which goes on writing. On an I/O error the journal fails: after a failed fsync the kernel
        may have dropped pages, so retrying would lie."""
        try:
            for fd in self._dirty_files():
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        except OSError as error:
            self.failed = f"journal fsync: {error}"

    def _dirty_files(self) -> list[int]:
        """Descriptors of our own, so that `committed` and `close` may close theirs meanwhile."""
        with self._files:
            dirty = [segment for segment in self._segments if segment.dirty]
            for segment in dirty:
                segment.dirty = False
            return [os.dup(segment.fd) for segment in dirty]

    def close(self) -> None:
        """Close; an empty journal's folder is removed."""
        with self._files:
            for segment in self._segments:
                os.close(segment.fd)
            self._segments.clear()
        if not self._calls:
            remove_folder(self.folder)
        os.close(self._lock_fd)

    def _append(self, kind: int, payload: bytes) -> None:
        segment = self._segments[-1]
        record = _FRAME.pack(len(payload), zlib.crc32(payload, kind), kind) + payload
        try:
            written = os.write(segment.fd, record)
        except OSError as error:
            self.failed = f"journal write: {error}"
            raise JournalError(self.failed) from error
        if written != len(record):  # the next record takes the place of this torn one
            os.lseek(segment.fd, segment.size, os.SEEK_SET)
            self.failed = "journal write: short write"
            raise JournalError(self.failed)
        segment.size += written
        segment.dirty = True

    def _rotate(self) -> None:
        self._number += 1
        path = self.folder / f"{self._number:08d}.journal"
        try:
            fd = _new_segment(path, self._segment_bytes + _PAYLOAD_MAX)
        except OSError as error:
            self.failed = f"journal segment: {error}"
            raise JournalError(self.failed) from error
        with self._files:
            self._segments.append(_Segment(path, fd, len(HEADER)))


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read back. `counts` only with PROGRESS, `facts` only with HOLD and SETTLE."""

    kind: int
    seq: int
    facts: bytes = b""
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)


def read_folder(folder: Path) -> Iterator[Record]:
    """Every intact record of a folder, in the order of writing."""
    for path in sorted(folder.glob("*.journal")):
        yield from read_segment(path.read_bytes(), path.name)


def read_segment(data: bytes, name: str = "segment") -> Iterator[Record]:
    """Records up to the first that is torn or damaged. An unknown version is an error: guessing at
    money is worse than stopping. A file without a whole header is a crash at creation: nothing was
    promised."""
    head = data[: len(HEADER)]
    if len(data.rstrip(b"\0")) < len(HEADER) and HEADER.startswith(head.rstrip(b"\0")):
        return
    if head != HEADER:
        raise JournalError(f"{name}: not a journal of this version (it starts with {head!r})")
    at = len(HEADER)
    while at + _FRAME.size <= len(data):
        length, crc, kind = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        payload = data[at : at + length]
        if not 0 < length == len(payload) or zlib.crc32(payload, kind) != crc:
            return
        at += length
        record = _parse(kind, payload)
        if record is None:
            return
        yield record


def lock_folder(folder: Path) -> int:
    """Take a journal folder's lock, which the kernel gives back when the process ends."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise JournalError(f"journal {folder.name} belongs to a living process") from error
    return fd


def remove_folder(folder: Path) -> None:
    """Delete a journal folder whose records are all committed; one that is gone is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def _parse(kind: int, payload: bytes) -> Record | None:
    if kind == PROGRESS and len(payload) == _COUNTS.size:
        seq, *counts = _COUNTS.unpack(payload)
        return Record(kind, seq, counts=(counts[0], counts[1], counts[2], counts[3]))
    if kind in (HOLD, SETTLE) and len(payload) > _SEQ.size:
        return Record(kind, _SEQ.unpack_from(payload)[0], payload[_SEQ.size :])
    if kind == SENT and len(payload) == _SEQ.size:
        return Record(kind, _SEQ.unpack(payload)[0])
    return None


def _new_segment(path: Path, size: int) -> int:
    """A descriptor of a new file with `size` bytes of its own, and the header in it."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
        os.write(fd, HEADER)
        _sync_folder(path.parent)
    except OSError:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return fd


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
