"""What one part of a multipart form says of itself: its headers, its name, its value; and which
boundary the form has. Whatever two readers could take for two things is an `AskError`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from .contract import AskError
from .framings import media_type

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
class Head:
    """A part's headers, read."""

    name: str
    plain_name: str
    """What some reader may make of it."""
    content_type: str
    is_file: bool
    stated_size: str | None


def read_head(head: bytes) -> Head:
    """The headers of a part. Raises `AskError`."""
    headers = _headers(head)
    disposition = headers.get("content-disposition", "")
    if _DISPOSITION.fullmatch(disposition) is None:
        raise AskError("a part's Content-Disposition is missing, or cannot be read")
    given = [(name.lower(), a or b) for name, a, b in _PARAMETERS.findall(disposition)]
    params = dict(given)
    if len(params) != len(given) or "name" not in params or "name*" in params:
        raise AskError("a part must have one name")
    if "\\" in params["name"] or any(value.endswith("\\") for value in params.values()):
        raise AskError("a backslash in a part's name, which some readers drop")
    if headers.get("content-transfer-encoding", "binary").lower() not in _ENCODINGS:
        raise AskError("a part has a Content-Transfer-Encoding; send its bytes as they are")
    return Head(
        params["name"],
        _plainly(params["name"]),
        headers.get("content-type", ""),
        "filename" in params or "filename*" in params,
        headers.get("content-length"),
    )


def boundary_of(content_type: str) -> bytes:
    if _TYPE.fullmatch(content_type) is None or "\\" in content_type:
        raise AskError("the content type of the form cannot be read")
    found = [(name.lower(), a or b) for name, a, b in _PARAMETERS.findall(content_type)]
    boundaries = [value for name, value in found if name.startswith("boundary")]
    if len(boundaries) != 1 or _BOUNDARY.fullmatch(boundaries[0]) is None:
        raise AskError("the content type must name one boundary")
    return str(boundaries[0]).encode("ascii")


def _headers(head: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n"):
        match = _HEADER.fullmatch(line)
        name = match[1].lower() if match else ""
        if match is None or name in found:
            raise AskError(f"a part's header cannot be read, or is given twice: {line[:40]!r}")
        found[name] = match[2]
    return found


def _plainly(name: str) -> str:
    """What some reader may make of a name: unescaped, trimmed, without an index."""
    text = unquote_to_bytes(name.encode("latin-1")).decode("utf-8", "replace")
    return text.partition("[")[0].strip().lower()


def value_of(name: str, kind: str, value: bytes) -> str:
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
