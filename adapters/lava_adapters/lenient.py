"""Reading what providers send: never raises, whatever the bytes are.

orjson reads nearly everything. It refuses lone surrogates, which some providers emit when a token
splits an emoji, and raw invalid UTF-8: the standard parser takes over there. An event over the
parse cap arrives as its head and its tail glued together; no parser reads that, so the members that
matter to the bill are looked for by name. A quoted key cannot be forged from inside a JSON string,
because quotes are escaped there.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

SALVAGE_BYTES_MIN = 32 * 1024
"""Unparsable events smaller than this are broken, not cut in the middle by us."""

_TRIES_MAX = 8
_DECODER = json.JSONDecoder()
_USAGE = re.compile(r'"(?:usage|usageMetadata)"\s*:\s*(?=\{)')
_TEXT = re.compile(r'"(type|object|status|model|modelVersion|id|responseId|service_tier)"\s*:\s*"')


def load(data: bytes) -> Any:
    """The JSON value in `data`, or None."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(data.decode("utf-8", "replace").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def load_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in `data`, as far as it can be had."""
    value = load(data)
    if type(value) is dict:
        return value
    if value is None and len(data) >= SALVAGE_BYTES_MIN:
        return salvage(data)
    return None


def salvage(data: bytes) -> dict[str, Any] | None:
    """The first of each naming member, and the last usage object, of a document that lost its
    middle."""
    text = data.decode("utf-8", "replace")
    found: dict[str, Any] = {}
    for match in _TEXT.finditer(text):
        if match.group(1) not in found:
            value = _value_at(text, match.end() - 1)
            if isinstance(value, str):
                found[match.group(1)] = value
    ends = [match.end() for match in _USAGE.finditer(text)]
    for end in reversed(ends[-_TRIES_MAX:]):
        value = _value_at(text, end)
        if isinstance(value, dict):
            found["usage"] = found["usageMetadata"] = value
            break
    return found or None


def _value_at(text: str, index: int) -> Any:
    try:
        return _DECODER.raw_decode(text, index)[0]
    except (ValueError, RecursionError):
        return None
