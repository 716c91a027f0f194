"""One file of the journal: its format, its memory map, and how it is read back.

Format: an 8-byte header (``LAVAJ`` + version as 3 digits), then records of
``<u32 length> <u32 crc32 of type and payload> <u8 type> <payload>``. A length of 0 is the end: the
preallocated tail is zeros. Whatever fails its CRC ends the segment: a prefix, never a wrong amount.
A process that was killed in a store leaves nothing behind what it tore; where a whole record still
follows, the file is damaged, which its reader is told: the rest is evidence, not rubbish.

Records are stored through a shared memory map, not with ``write()``: the pages belong to the kernel
from the moment of the store, so they survive ``kill -9`` just the same, and a store costs a tenth.
The file is allocated before it is mapped, so a full disk shows up when a segment is made and not
when it is written; and written with zeros, where there is time for it, so that a store meets pages
that are there. (In a file that was only allocated one store in ten makes a page, and now and then
waits milliseconds for it.) A medium that loses an allocated page kills the process (SIGBUS), which
is what replay is for: nothing is lost silently.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

HEADER = b"LAVAJ001"
HOLD, SENT, PROGRESS, SETTLE = KINDS = (1, 2, 3, 4)

FRAME = struct.Struct("<IIB")
FRAME_BYTES = FRAME.size
SEQ = struct.Struct("<Q")
COUNTS = struct.Struct("<QQQQQ")
ZEROS_BYTES = 1 << 20
"""Written at a time when a file is made."""
_ZEROS = bytes(2**16)


class JournalError(Exception):
    """The journal cannot be written or read: no new call may start."""


class Segment:
    """A file that records are stored in. Not thread-safe."""

    __slots__ = (
        "_forgotten",
        "_map",
        "bytes_max",
        "dirty",
        "fd",
        "number",
        "open_calls",
        "path",
        "size",
    )

    def __init__(self, folder: Path, number: int, bytes_max: int, *, ahead: bool) -> None:
        """Make the file, with `bytes_max` bytes of its own; `ahead` of need, with its pages. Raises
        `OSError`."""
        self.number = number
        self.path = folder / f"{number:08d}.journal"
        self.bytes_max = bytes_max
        self.size = len(HEADER)
        self.open_calls = 0
        self._forgotten = 0
        self.dirty = True
        """Something was stored since the last fsync."""
        self.fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(self.fd, 0, bytes_max)
            for start in range(0, bytes_max if ahead else 0, ZEROS_BYTES):
                os.pwrite(self.fd, bytes(min(ZEROS_BYTES, bytes_max - start)), start)
            if os.pwrite(self.fd, HEADER, 0) != len(HEADER):
                raise OSError(None, "the header was not written whole")
            self._map = mmap.mmap(self.fd, bytes_max)
            sync_folder(folder)
        except OSError:
            os.close(self.fd)
            self.path.unlink(missing_ok=True)
            raise

    def store(self, kind: int, payload: bytes) -> bool:
        """Add a record; False when there is no room for it."""
        start, length = self.size, len(payload)
        end = start + FRAME_BYTES + length
        if end > self.bytes_max:
            return False
        self._map[start:end] = FRAME.pack(length, crc32(payload, kind), kind) + payload
        self.size = end
        self.dirty = True
        return True

    def forget(self) -> None:
        """Take what was stored out of this process's memory; it is the kernel's. May run in another
        thread while records are stored."""
        done = self.size // mmap.PAGESIZE * mmap.PAGESIZE
        if done > self._forgotten and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, self._forgotten)  # and what is mapped ahead
            self._forgotten = done

    def finish(self) -> None:
        """Nothing more is stored; the file stays open for fsync."""
        self._map.close()

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._map.close()
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read back. `counts` only with PROGRESS, `facts` only with HOLD and SETTLE."""

    kind: int
    seq: int
    facts: bytes = b""
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)


def read_segment(data: bytes, name: str = "segment") -> Generator[Record, None, bool]:
    """Records up to the first that is torn or damaged; at the end, whether it is damaged: records
    stand behind that cannot be trusted. An unknown version is an error: guessing at money is worse
    than stopping. A file without a whole header is a crash at creation: nothing was promised."""
    head = data[: len(HEADER)]
    if _written(data) < len(HEADER) and HEADER.startswith(head.rstrip(b"\0")):
        return False
    if head != HEADER:
        raise JournalError(f"{name}: not a journal of this version (it starts with {head!r})")
    at = len(HEADER)
    while at + FRAME_BYTES <= len(data):
        found = _framed(data, at)
        if found is None:
            return _more_behind(data, at)
        kind, payload = found
        record = _parse(kind, payload)
        if record is None:  # whole, but not of this version
            return True
        yield record
        at += FRAME_BYTES + len(payload)
    return False


def _framed(data: bytes, at: int) -> tuple[int, bytes] | None:
    """Kind and payload of the record at `at`, if there is one and it is whole. A head that was torn
    before its kind may have the right CRC: the kind only starts it."""
    length, crc, kind = FRAME.unpack_from(data, at)
    start = at + FRAME_BYTES
    if not kind or not 0 < length <= len(data) - start:
        return None
    payload = data[start : start + length]
    return (kind, payload) if crc32(payload, kind) == crc else None


def _more_behind(data: bytes, at: int) -> bool:
    """Whether a whole record begins anywhere behind `at`."""
    end = _written(data)
    return any(
        data[start + FRAME_BYTES - 1] in KINDS and _framed(data, start) is not None
        for start in range(at + 1, end - FRAME_BYTES)
    )


def _written(data: bytes) -> int:
    """The bytes before the zeros at the end. (`rstrip` looks at each of them by itself: 60 ms for a
    segment that has just been begun.)"""
    end = len(data)
    while data.endswith(_ZEROS, 0, end):
        end -= len(_ZEROS)
    last = data[max(0, end - len(_ZEROS)) : end]
    return end - len(last) + len(last.rstrip(b"\0"))


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that its new file is found after a power loss."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _parse(kind: int, payload: bytes) -> Record | None:
    if kind == PROGRESS and len(payload) == COUNTS.size:
        seq, *counts = COUNTS.unpack(payload)
        return Record(kind, seq, counts=(counts[0], counts[1], counts[2], counts[3]))
    if kind in (HOLD, SETTLE) and len(payload) > SEQ.size:
        return Record(kind, SEQ.unpack_from(payload)[0], payload[SEQ.size :])
    if kind == SENT and len(payload) == SEQ.size:
        return Record(kind, SEQ.unpack(payload)[0])
    return None
