"""Requests that are read while they pass: uploads, which are too long to be kept.

What is asked for is known for certain at the end only. So the end is kept back: what has gone to
the provider until then is no whole request, and costs nothing if nothing follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .contract import Ask
from .multipart import Form, FormReader, Upload
from .sound import HEAD_BYTES


class FormIntake:
    """`contract.Intake` of a multipart form."""

    __slots__ = ("_make", "_reader")

    def __init__(
        self, content_type: str, priced: frozenset[str], make: Callable[[Form], Ask]
    ) -> None:
        self._reader = FormReader(content_type, priced)
        self._make = make

    def feed(self, piece: bytes) -> bytes:
        return self._reader.feed(piece)

    def finish(self) -> bytes:
        return self._reader.finish()

    def ask(self, left: int = 0) -> Ask:
        form, file = self._reader.form, self._reader.open_file
        if file is None and left and not form.files:
            file = Upload("", "", 0, b"")  # it is still to come
        if file is not None:
            file = replace(file, size=file.size + left)
            form = Form(form.fields, [*form.files, file], form.text_bytes)
        return self._make(form)


class RawIntake:
    """`contract.Intake` of a body that is known by its size and how it begins."""

    __slots__ = ("_head", "_kept", "_make", "_size")

    def __init__(self, make: Callable[[bytes, int], Ask]) -> None:
        self._make = make
        self._kept = self._head = b""
        self._size = 0

    def feed(self, piece: bytes) -> bytes:
        if not piece:
            return b""
        self._size += len(piece)
        if len(self._head) < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - len(self._head)]
        passed, self._kept = self._kept, piece
        return passed

    def finish(self) -> bytes:
        kept, self._kept = self._kept, b""
        return kept

    def ask(self, left: int = 0) -> Ask:
        return self._make(self._head, self._size + left)
