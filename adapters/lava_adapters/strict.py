"""Reading what callers send: anything wrong in a member that matters to the bill is an `AskError`.

A parser that takes the last of two equal keys and a provider that takes the first would disagree
about the price, so a repeated priced key is refused. So are NaN, Infinity, 1.0 and true as counts,
invalid UTF-8 and documents nested too deep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from .contract import AskError
from .counts import COUNT_MAX
from .jsonedit import repeated

TIER_MAX = 64
"""No service tier has a longer name."""


def parse(body: bytes, priced: frozenset[str]) -> dict[str, Any]:
    """The body as a JSON object in which no `priced` name occurs twice."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise AskError(f"the request body is not valid JSON: {error}") from None
    if type(value) is not dict:
        raise AskError("the request body must be a JSON object")
    # An absent name cannot be there twice; most searches are saved by that.
    twice = repeated(body, priced.intersection(value))
    if twice is not None:
        raise AskError(f"the member {twice!r} occurs twice; send it once", twice)
    return value


def flag(source: Mapping[str, Any], name: str, path: str = "") -> bool:
    """A boolean member; absent and null are False."""
    value = source.get(name)
    if value is None or type(value) is bool:
        return bool(value)
    raise AskError(f"{path or name} must be true or false", path or name)


def limit(source: Mapping[str, Any], name: str, path: str = "") -> int | None:
    """A positive whole number; absent and null are None."""
    value = source.get(name)
    if value is None:
        return None
    if type(value) is int and 0 < value < COUNT_MAX:
        return value
    raise AskError(f"{path or name} must be a whole number from 1 to 2^53 - 1", path or name)


def text(source: Mapping[str, Any], name: str) -> str | None:
    """A string; absent and null are None."""
    value = source.get(name)
    if value is None or type(value) is str:
        return value
    raise AskError(f"{name} must be a string", name)


def tier(source: Mapping[str, Any], name: str) -> str | None:
    """A service tier, in lower case as prices know it. What is none is left to the provider, which
    refuses it."""
    value = source.get(name)
    return value.lower() if type(value) is str and 0 < len(value) <= TIER_MAX else None


def mapping(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object; absent and null are empty."""
    value = source.get(name)
    if value is None:
        return {}
    if type(value) is dict:
        return value
    raise AskError(f"{name} must be an object", name)


def strings(value: object) -> list[str]:
    """The strings of a list, or a lone string; nothing for anything else."""
    if type(value) is str:
        return [value]
    return [item for item in value if type(item) is str] if type(value) is list else []
