"""How values look in answers: times in UTC with a ``Z``, exact numbers without floats."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson


def time_text(at: datetime) -> str:
    """``2026-11-23T19:43:08.123Z``."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_number(milliseconds: int) -> Any:
    """1500 -> the JSON number ``1.5``."""
    whole, part = divmod(milliseconds, 1000)
    return orjson.Fragment(f"{whole}.{part:03d}".rstrip("0") if part else str(whole))


def json_text(text: str) -> Any:
    """JSON that is stored as text, to stand in an answer as it is."""
    return orjson.Fragment(text)


def exact_json(value: object) -> bytes:
    """Strict JSON values as text again, keys sorted, every number as it came."""
    return orjson.dumps(value, default=_number, option=orjson.OPT_SORT_KEYS)


def _number(value: object) -> orjson.Fragment:
    if not isinstance(value, Decimal):
        raise TypeError
    return orjson.Fragment(str(value))
