"""Reading a multipart form where it decides the bill: names and short values, the files by size.

The body goes to the provider as it came, and another parser reads it there. A form that two readers
could take for different ones would let a caller ask for one model and be billed for another, so
there is nothing lenient here: every occurrence of the boundary must be a delimiter that everybody
sees as one, a part says what it is once and plainly, and a field that matters to the bill occurs
once. Anything else is an `AskError`. The body is walked once, whole or in pieces, file contents at
the speed of a memory search; headers and values have limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from .contract import AskError
from .framings import media_type
from .parts import VALUE_MAX_BYTES, Head, boundary_of, read_head, value_of
from .sound import HEAD_BYTES

PARTS_MAX = 1_000
HEADERS_MAX_BYTES = 4_096
"""Of one part."""
KEPT_MAX_BYTES = 8 * HEAD_BYTES
"""Of the beginnings of a form's files."""
END_MAX_BYTES = 1_024
"""Line ends behind the form's end."""
_STEP_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a form: how long it is, and how it begins."""

    name: str
    content_type: str
    size: int
    head: bytes
    """As much as was kept of it."""


@dataclass(slots=True)
class Form:
    """What a form says: the fields asked for, its files, and how much other text there is."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[Upload] = field(default_factory=list)
    text_bytes: int = 0


@dataclass(slots=True)
class _Part:
    """The part that is being read."""

    head: Head
    wanted: bool
    keep: int
    """How much of its content is kept."""
    size: int = 0
    kept: bytes = b""

    @property
    def upload(self) -> Upload:
        return Upload(self.head.name, media_type(self.head.content_type), self.size, self.kept)


def is_form(content_type: str) -> bool:
    return media_type(content_type) == "multipart/form-data"


def read_form(content_type: str, body: bytes, priced: frozenset[str]) -> Form:
    """The form in `body`; `priced` names the fields whose values are wanted."""
    reader = FormReader(content_type, priced)
    for at in range(0, len(body), _STEP_BYTES):
        reader.feed(body[at : at + _STEP_BYTES])
    reader.finish()
    return reader.form


class FormReader:
    """A form that comes in pieces. `feed` says which bytes have been read for good, and keeps back
    the others; the form's end is always among those. So whoever has got what it gave has no form,
    until `finish` gives the rest of one that is right."""

    def __init__(self, content_type: str, priced: frozenset[str]) -> None:
        self.form = Form()
        self._priced = priced
        self._delimiter = b"--" + boundary_of(content_type)
        self._buffer = bytearray()
        self._at = 0
        """So much of the buffer has been read."""
        self._mark = len(self._delimiter)
        """How long the delimiter is that stands there, with the line end before it."""
        self._parts = 0
        self._part: _Part | None = None
        self._step: Callable[[], bool] = self._begin

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes; what may be passed on. Raises `AskError`."""
        self._buffer += piece
        while self._step():
            pass
        with memoryview(self._buffer) as buffer:
            passed = bytes(buffer[: self._at])
        del self._buffer[: self._at]
        self._at = 0
        return passed

    def finish(self) -> bytes:
        """The body is complete: the rest of it. Raises `AskError` where the form is not."""
        if self._step == self._begin:
            raise AskError("the form must begin with its boundary")
        if self._step != self._over:
            raise AskError("the form does not end with its boundary")
        rest, self._buffer = bytes(self._buffer), bytearray()
        return rest

    # Each step reads on from `_at`: True when another step follows, False when more must come.

    def _begin(self) -> bool:
        begun = bytes(self._buffer[: self._mark])
        if not self._delimiter.startswith(begun):
            raise AskError("the form must begin with its boundary")
        self._step = self._behind if begun == self._delimiter else self._begin
        return begun == self._delimiter

    def _behind(self) -> bool:
        """Behind a delimiter: the end, or another part."""
        after = self._at + self._mark
        two = bytes(self._buffer[after : after + 2])
        if two == b"--":
            self._step = self._over
            return True
        if two not in (b"", b"-", b"\r", b"\r\n"):
            raise AskError("the form's boundary occurs in its content; choose another")
        if two != b"\r\n":
            return False
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise AskError(f"the form has more than {PARTS_MAX} parts")
        self._at = after + 2
        self._step = self._headers
        return True

    def _headers(self) -> bool:
        seen = bytes(self._buffer[self._at : self._at + HEADERS_MAX_BYTES])
        head, separator, _ = seen.partition(b"\r\n\r\n")
        if self._delimiter in head or not (separator or len(seen) < HEADERS_MAX_BYTES):
            raise AskError(f"a part has no headers, or more than {HEADERS_MAX_BYTES} bytes of them")
        if not separator:
            return False
        self._part = self._opened(read_head(head))
        self._at += len(head) + len(separator)
        self._step = self._content
        return True

    def _content(self) -> bool:
        """Up to the next delimiter. No other text may look like one."""
        buffer, at = self._buffer, self._at
        found = buffer.find(self._delimiter, at)
        if found < 0:
            self._take(max(at, len(buffer) - len(self._delimiter) - 1))
            return False
        if found < at + 2 or buffer[found - 2 : found] != b"\r\n":
            raise AskError("the form's boundary occurs in its content; choose another")
        self._take(found - 2)
        self._close()
        self._mark = 2 + len(self._delimiter)
        self._step = self._behind
        return True

    def _over(self) -> bool:
        behind = self._buffer[self._at + self._mark + 2 :]
        if behind.strip(b"\r\n") or len(behind) > END_MAX_BYTES:
            raise AskError("the form goes on behind its end")
        return False

    def _opened(self, head: Head) -> _Part:
        """A part as its headers describe it."""
        form, name = self.form, head.name
        wanted = head.plain_name in self._priced or head.plain_name == "_charset_"
        if wanted and (
            head.plain_name != name or head.is_file or name in form.fields or name == "_charset_"
        ):
            text = head.plain_name
            raise AskError(f"the field {text!r} must occur once, plainly", text)
        if wanted:
            return _Part(head, True, VALUE_MAX_BYTES + 1)
        left = KEPT_MAX_BYTES - sum(len(file.head) for file in form.files)
        return _Part(head, False, min(HEAD_BYTES, left) if head.is_file else 0)

    def _take(self, end: int) -> None:
        """Content of the part, up to `end`."""
        part = self._part
        if part is not None:
            part.size += end - self._at
            if len(part.kept) < part.keep:
                more = part.keep - len(part.kept)
                part.kept += bytes(self._buffer[self._at : min(end, self._at + more)])
        self._at = end

    def _close(self) -> None:
        """The part is complete."""
        part, form = self._part, self.form
        if part is None:
            return
        head = part.head
        if head.stated_size not in (None, str(part.size)):
            raise AskError("a part's Content-Length is not its length")
        if part.wanted:
            form.fields[head.name] = value_of(head.name, head.content_type, part.kept)
        elif head.is_file:
            form.files.append(part.upload)
        if not head.is_file:
            form.text_bytes += part.size
        self._part = None

    @property
    def open_file(self) -> Upload | None:
        """The file that is being read."""
        part = self._part
        return part.upload if part is not None and part.head.is_file else None


def boolean(form: Form, name: str) -> bool:
    """A field that says yes or no, in the spellings that form readers know."""
    value = form.fields.get(name, "").lower()
    if value in ("true", "1", "yes", "on", "t", "y"):
        return True
    if value in ("", "false", "0", "no", "off", "f", "n"):
        return False
    raise AskError(f"{name} must be true or false", name)


def number(form: Form, name: str) -> int | None:
    """A positive whole number; None when it is not given."""
    value = form.fields.get(name)
    if value is None:
        return None
    if re.fullmatch(r"[1-9][0-9]{0,8}", value) is None:
        raise AskError(f"{name} must be a whole number from 1", name)
    return int(value)
