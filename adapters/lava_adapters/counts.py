"""Counts and costs out of provider JSON: anything that is not plainly a count is "not stated".

Cohere writes whole numbers as floats (``12.0``), and protobuf's JSON writes 64-bit ones as strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

COUNT_MAX = 2**53
"""Counts at or above this are absurd: they cannot pass through a JavaScript number."""

COST_MAX_E10 = 10**15
"""A hundred thousand dollars for one call is not a cost figure."""

SECONDS_MAX = 10**6
"""Nothing that is billed by the second lasts eleven days."""

_DIGITS_MAX = 17
_E10 = Decimal(10**10)
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,30})?", re.ASCII)


def count(value: object) -> int | None:
    """`value` if it is a whole number from 0 to 2**53 - 1, however written; booleans are none."""
    if type(value) is int:
        return value if 0 <= value < COUNT_MAX else None
    if type(value) is float and value.is_integer():
        return int(value) if 0 <= value < COUNT_MAX else None
    if type(value) is str and len(value) < _DIGITS_MAX and value.isascii() and value.isdigit():
        return int(value) if int(value) < COUNT_MAX else None
    return None


def take(source: object, names: Mapping[str, str], into: dict[str, int]) -> None:
    """Copy the valid counts of `source` (a JSON object or anything else) under their new names."""
    if type(source) is not dict:
        return
    for name, target in names.items():
        value = source.get(name)
        if value is not None and (number := count(value)) is not None:
            into[target] = number


def member(source: object, *path: str) -> Any:
    """``member(x, "a", "b")`` is ``x["a"]["b"]``, or None where that does not exist."""
    for name in path:
        if type(source) is not dict:
            return None
        source = source.get(name)
    return source


def objects(value: object) -> Iterable[dict[str, Any]]:
    """The JSON objects in a list; nothing for anything else."""
    if type(value) is not list:
        return ()
    return [item for item in value if type(item) is dict]


def clamp(part: int | None, total: int | None) -> int | None:
    """A sub-count is at most its total (Grok on Azure caches more than it was sent)."""
    if part is None or total is None or part <= total:
        return part
    return total


def ticks_e10(value: object) -> int | None:
    """xAI's ``cost_in_usd_ticks`` is in 10^-10 USD already."""
    ticks = count(value)
    return ticks if ticks is not None and ticks <= COST_MAX_E10 else None


def cost_e10(value: object) -> int | None:
    """A cost in USD, given as int or Decimal, in 10^-10 USD, rounded half up. Never a float."""
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite():
        return None
    if value < 0 or value.adjusted() > 12:
        return None
    try:
        amount_e10 = int((value * _E10).to_integral_value(ROUND_HALF_UP))
    except InvalidOperation:
        return None
    return amount_e10 if amount_e10 <= COST_MAX_E10 else None


def milliseconds(seconds: object) -> int | None:
    """Seconds, given as int or Decimal, in milliseconds, rounded half up. Never a float."""
    if type(seconds) is int:
        seconds = Decimal(seconds)
    if not isinstance(seconds, Decimal) or not seconds.is_finite():
        return None
    if not 0 <= seconds < SECONDS_MAX:
        return None
    return int((seconds * 1000).to_integral_value(ROUND_HALF_UP))


def written(value: object) -> object:
    """The number that a decimal string stands for; anything else as it is."""
    if type(value) is str and _NUMBER.fullmatch(value) is not None:
        return Decimal(value)
    return value


def exact(data: bytes) -> Any:
    """`data` parsed once more with every decimal number kept as written; None if it cannot be."""
    try:
        return json.loads(data, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
