"""Gateway metadata: the caller's own labels for a request, in the three forms they may come in.

Query ``metadata=<JSON>`` gives way to the header ``x-lava-metadata: <JSON>``, which gives way to
single headers ``X-Lava-Metadata-<Name>: value`` (name in lower case, ``-`` becomes ``_``).

What cannot be read is 400 `invalid_request`; what can be read but breaks a limit is 422
`validation_error` with the paths. Values are stored and returned as they came, never normalised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lava_proxy.core.errors import LavaError
from lava_proxy.wire.problem import storable, strict_json

PAIRS_MAX = 100
CHARS_MAX = 255
DETAILS_MAX = 20
JSON_MAX_BYTES = 128 * 1024
"""100 pairs of 255 characters fit twice over; escapes make a text longer than its value."""

_HEADER = b"x-lava-metadata"
_SINGLE = b"x-lava-metadata-"
_KEY = re.compile(r"[A-Za-z0-9_]{1,255}", re.ASCII)


def read_metadata(
    headers: Sequence[tuple[bytes, bytes]], query_value: str | None = None
) -> dict[str, str]:
    """The request's metadata; `headers` have lower-case names, `query_value` is decoded once."""
    ours = [pair for pair in headers if pair[0].startswith(_HEADER)]
    if not ours and query_value is None:
        return {}
    merged: dict[str, object] = {}
    if query_value is not None:
        merged.update(_object(query_value.encode("utf-8", "surrogatepass")))
    documents = [value for name, value in ours if name == _HEADER]
    if len(documents) > 1:
        raise LavaError("invalid_request", "The header x-lava-metadata is given twice.")
    if documents:
        merged.update(_object(documents[0]))
    merged.update(_singles(ours))
    return check_metadata(merged)


def check_metadata(value: object) -> dict[str, str]:
    """`value` (JSON, None = none given) as metadata, or 422 with every wrong pair named."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _invalid([_detail("metadata", "must be an object of strings")])
    if len(value) > PAIRS_MAX:
        raise _invalid([_detail("metadata", f"has {len(value)} pairs; at most {PAIRS_MAX}")])
    checked: dict[str, str] = {}
    wrong: list[object] = []
    for key, text in value.items():
        fault = _fault(key, text)
        if fault is None:
            checked[key] = text
        else:
            wrong.append(_detail(f"metadata.{key!s:.64}", fault))
    if wrong:
        raise _invalid(wrong[:DETAILS_MAX])
    return checked


def _fault(key: object, text: object) -> str | None:
    if not isinstance(key, str) or _KEY.fullmatch(key) is None:
        return "the key must be 1 to 255 ASCII letters, digits or underscores"
    if not isinstance(text, str):
        return "the value must be a string"
    if not 1 <= len(text) <= CHARS_MAX:
        return f"the value must have 1 to {CHARS_MAX} characters"
    if not storable(text):
        return "the value holds a NUL or half of a surrogate pair"
    return None


def _object(text: bytes) -> dict[str, object]:
    try:
        value = strict_json(text, body_max_bytes=JSON_MAX_BYTES)
    except LavaError as error:
        message = f"The metadata cannot be read: {error.message}"
        raise LavaError("invalid_request", message) from None
    if not isinstance(value, dict):
        raise LavaError("invalid_request", "The metadata must be a JSON object of strings.")
    return value


def _singles(ours: Sequence[tuple[bytes, bytes]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in ours:
        if name == _HEADER:
            continue
        if not name.startswith(_SINGLE):
            # x-lava-metadatafoo: another header of ours to be, not metadata.
            continue
        key = name[len(_SINGLE) :].decode("latin-1").lower().replace("-", "_")
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            message = f"The header x-lava-metadata-{key!a:.64} is not UTF-8."
            raise LavaError("invalid_request", message) from None
        if found.setdefault(key, text) != text:
            message = f"The metadata key {key!a:.64} is given twice with different values."
            raise LavaError("invalid_request", message)
    return found


def _detail(path: str, message: str) -> dict[str, str]:
    return {"path": path, "message": message}


def _invalid(details: list[object]) -> LavaError:
    return LavaError("validation_error", "The metadata is not valid.", details=details)
