"""Reading a multipart form where it decides the bill: names and short values, the files by size.

The body goes to the provider as it came, and another parser reads it there. A form that two readers
could take for different ones would let a caller ask for one model and be billed for another, so
there is nothing lenient here: every occurrence of the boundary must be a delimiter that everybody
sees as one, a part says what it is once and plainly, and a field that matters to the bill occurs
once. Anything else is an `AskError`. The body is walked once, file contents at the speed of a
memory search; headers and values have limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from .contract import AskError
from .framings import media_type

PARTS_MAX = 1_000
HEADERS_MAX_BYTES = 4_096
"""Of one part."""
VALUE_MAX_BYTES = 4_096
"""Of a field that matters to the bill."""

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAM = r'\s*;\s*([A-Za-z0-9*_-]+)=(?:"([^"\r\n]*)"|([^\s";,]+))'
_PARAMETERS = re.compile(_PARAM)
_TYPE = re.compile(rf"multipart/form-data(?:{_PARAM})*\s*;?\s*", re.IGNORECASE)
_DISPOSITION = re.compile(rf"form-data(?:{_PARAM})*\s*;?\s*", re.IGNORECASE)
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_PLAIN_TYPES = ("text/plain", "application/octet-stream")
_CHARSETS = ("", "utf-8", "utf8", "us-ascii")
_ENCODINGS = ("7bit", "8bit", "binary")


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a form: where its content lies in the body."""

    name: str
    content_type: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(slots=True)
class Form:
    """What a form says: the fields asked for, its files, and how much other text there is."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[Upload] = field(default_factory=list)
    text_bytes: int = 0


def is_form(content_type: str) -> bool:
    return media_type(content_type) == "multipart/form-data"


def read_form(content_type: str, body: bytes, priced: frozenset[str]) -> Form:
    """The form in `body`; `priced` names the fields whose values are wanted."""
    form = Form()
    for start, end in _parts(b"--" + _boundary(content_type), body):
        head, separator, _ = body[start : min(end, start + HEADERS_MAX_BYTES)].partition(
            b"\r\n\r\n"
        )
        if not separator:
            raise AskError(f"a part has no headers, or more than {HEADERS_MAX_BYTES} bytes of them")
        content = start + len(head) + len(separator)
        _take(form, _headers(head), body, content, end, priced)
    return form


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


def _boundary(content_type: str) -> bytes:
    if _TYPE.fullmatch(content_type) is None:
        raise AskError("the content type of the form cannot be read")
    found = [(name.lower(), a or b) for name, a, b in _PARAMETERS.findall(content_type)]
    boundaries = [value for name, value in found if name.startswith("boundary")]
    if len(boundaries) != 1 or _BOUNDARY.fullmatch(boundaries[0]) is None:
        raise AskError("the content type must name one boundary")
    return str(boundaries[0]).encode("ascii")


def _parts(delimiter: bytes, body: bytes) -> Iterator[tuple[int, int]]:
    """Where each part lies, headers included. No other text may look like a delimiter."""
    if not body.startswith(delimiter):
        raise AskError("the form must begin with its boundary")
    at, size = 0, len(delimiter)
    for _ in range(PARTS_MAX + 1):
        after = at + size
        if body.startswith(b"--", after):
            if body[after + 2 :].strip(b"\r\n"):
                raise AskError("the form goes on behind its end")
            return
        if not body.startswith(b"\r\n", after):
            raise AskError("the form's boundary occurs in its content; choose another")
        at = body.find(delimiter, after)
        if at < 0:
            raise AskError("the form does not end with its boundary")
        if at < after + 4 or body[at - 2 : at] != b"\r\n":
            raise AskError("the form's boundary occurs in its content; choose another")
        yield after + 2, at - 2
    raise AskError(f"the form has more than {PARTS_MAX} parts")


def _headers(head: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n"):
        match = _HEADER.fullmatch(line)
        name = match[1].lower() if match else ""
        if match is None or name in found:
            raise AskError(f"a part's header cannot be read, or is given twice: {line[:40]!r}")
        found[name] = match[2]
    return found


def _take(
    form: Form, headers: dict[str, str], body: bytes, start: int, end: int, priced: frozenset[str]
) -> None:
    disposition = headers.get("content-disposition", "")
    if _DISPOSITION.fullmatch(disposition) is None:
        raise AskError("a part's Content-Disposition is missing, or cannot be read")
    given = [(name.lower(), a or b) for name, a, b in _PARAMETERS.findall(disposition)]
    params = dict(given)
    if len(params) != len(given) or "name" not in params or "name*" in params:
        raise AskError("a part must have one name")
    if headers.get("content-transfer-encoding", "binary").lower() not in _ENCODINGS:
        raise AskError("a part has a Content-Transfer-Encoding; send its bytes as they are")
    if headers.get("content-length", str(end - start)) != str(end - start):
        raise AskError("a part's Content-Length is not its length")
    name, kind = params["name"], headers.get("content-type", "")
    is_file = "filename" in params or "filename*" in params
    plain = _plainly(name)
    if plain in priced or plain == "_charset_":
        if plain != name or is_file or name in form.fields or name == "_charset_":
            raise AskError(f"the field {plain!r} must occur once, plainly", plain)
        form.fields[name] = _value(name, kind, body[start:end])
    elif is_file:
        form.files.append(Upload(name, media_type(kind), start, end))
    if not is_file:
        form.text_bytes += end - start


def _plainly(name: str) -> str:
    """What some reader may make of a name: unescaped, trimmed, without an index."""
    text = unquote_to_bytes(name.encode("latin-1")).decode("utf-8", "replace")
    return text.partition("[")[0].strip().lower()


def _value(name: str, kind: str, value: bytes) -> str:
    charset = kind.partition(";")[2].strip().lower().removeprefix("charset=").strip('"')
    if (kind and media_type(kind) not in _PLAIN_TYPES) or charset not in _CHARSETS:
        raise AskError(f"{name} must be plain text", name)
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if len(value) > VALUE_MAX_BYTES or not text.isprintable():
        raise AskError(f"{name} must be a line of at most {VALUE_MAX_BYTES} bytes", name)
    return text
