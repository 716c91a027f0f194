"""How values look in answers: times in UTC with a ``Z``, exact numbers without floats."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson

from lava_proxy.core.clock import time_text

__all__ = ["exact_json", "json_text", "seconds_number", "time_text"]


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
