"""Error bodies out, strict JSON in: the two ends of the management API's wire format.

`strict_json` refuses what common parsers let through, because it can move money or crash a later
step: duplicate keys (the last would win silently), NaN and Infinity, numbers no other reader
represents exactly, lone surrogates and NUL (PostgreSQL stores neither), byte-order marks, and
nesting deep enough to exhaust a stack. Every refusal is a 400 and none is a 500.

A whole number comes as ``int``, a number with a fraction or an exponent as ``Decimal``: no float.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import NoReturn

import orjson

from lava_proxy.core.errors import LavaError

BODY_MAX_BYTES = 1 << 20
DEPTH_MAX = 64
INTEGER_MAX = 2**53
"""Above this a JavaScript reader sees another number than we do."""
NUMBER_MAX_CHARS = 64
EXPONENT_MAX = 308
"""The range of a double: outside it other readers see infinity or zero."""

_BOM = b"\xef\xbb\xbf"


def envelope(error: LavaError, request_id: str | None = None) -> bytes:
    """``{"error": {"message", "code", "status", "details"?, "request_id"?}}`` as UTF-8 JSON."""
    body: dict[str, object] = {
        "message": error.message,
        "code": error.code,
        "status": error.status,
    }
    if error.details is not None:
        body["details"] = _plain(error.details)
    if request_id is not None:
        body["request_id"] = request_id
    try:
        return orjson.dumps({"error": body})
    except TypeError:
        # A caller's own text may hold what orjson will not write: a lone surrogate, 2**70.
        return json.dumps({"error": body}, default=str).encode("ascii")


def strict_json(
    body: bytes, *, body_max_bytes: int = BODY_MAX_BYTES, depth_max: int = DEPTH_MAX
) -> object:
    """`body` as Python values, or 400 `invalid_request` (413 `body_too_large` over the limit)."""
    if len(body) > body_max_bytes:
        raise LavaError("body_too_large", f"The body is over {body_max_bytes} bytes.")
    if body.startswith(_BOM):
        _refuse("The body starts with a byte-order mark; send plain UTF-8.")
    try:
        value: object = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        _refuse("The body is not UTF-8.")
    except json.JSONDecodeError as error:
        _refuse(f"The body is not JSON: {error.msg} at character {error.pos}.")
    except RecursionError:
        _refuse(f"The JSON is nested deeper than {depth_max} levels.")
    # Only an escape can bring a surrogate or a NUL: the decoders above refuse the raw forms.
    _walk(value, depth_max, check_text=b"\\u" in body)
    return value


def _walk(value: object, depth_max: int, *, check_text: bool) -> None:
    level = [value]
    depth = 0
    while level:
        if check_text:
            for item in level:
                _check_text(item)
        holders = [item for item in level if isinstance(item, dict | list)]
        depth += 1
        if holders and depth > depth_max:
            _refuse(f"The JSON is nested deeper than {depth_max} levels.")
        level = [
            child
            for holder in holders
            for child in (holder.values() if isinstance(holder, dict) else holder)
        ]


def _check_text(item: object) -> None:
    texts = item if isinstance(item, dict) else (item,) if isinstance(item, str) else ()
    for text in texts:
        if not storable(text):
            _refuse("A string holds a NUL or half of a surrogate pair.")


def storable(text: str) -> bool:
    """Whether PostgreSQL and UTF-8 can hold `text`: no NUL, no lone surrogate."""
    if "\x00" in text:
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                _refuse(f"The key {name[:64]!a} occurs twice in one object.")
            seen.add(name)
    return members


def _integer(text: str) -> int:
    if len(text) > NUMBER_MAX_CHARS or abs(number := int(text)) > INTEGER_MAX:
        _refuse("A whole number is outside +-2^53; send it as a string.")
    return number


def _decimal(text: str) -> Decimal:
    if len(text) > NUMBER_MAX_CHARS:
        _refuse(f"A number has more than {NUMBER_MAX_CHARS} characters.")
    try:
        number = Decimal(text)
    except ArithmeticError:
        _refuse("A number's exponent is out of range.")
    if abs(number.adjusted()) > EXPONENT_MAX:
        _refuse("A number's exponent is out of range.")
    return number


def _constant(text: str) -> NoReturn:
    _refuse(f"{text} is not JSON.")


def _plain(details: Mapping[str, object] | list[object]) -> object:
    return dict(details) if isinstance(details, Mapping) else details


def _refuse(message: str) -> NoReturn:
    raise LavaError("invalid_request", message)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs,
    parse_int=_integer,
    parse_float=_decimal,
    parse_constant=_constant,
)
