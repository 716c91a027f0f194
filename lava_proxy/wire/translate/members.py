"""Reading JSON objects member by member: a wrong or untranslatable one is refused by name."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import NoReturn, Self

import orjson

from lava_proxy.core.errors import LavaError

TOLD_BYTES_MAX = 4096
NO_NAMES: frozenset[str] = frozenset()


class Unreadable(ValueError):
    """A provider's answer is not what its dialect says."""


def refuse(path: str, message: str) -> NoReturn:
    """422 that names the member."""
    raise LavaError(
        "validation_error", f"{path}: {message}", details=[{"path": path, "message": message}]
    )


class Members:
    """A caller's JSON object. Every member is taken once; `rest` judges what nobody took."""

    __slots__ = ("_left", "path")

    def __init__(self, value: object, path: str = "") -> None:
        self.path = path
        if not isinstance(value, dict):
            refuse(path or "body", "must be a JSON object")
        self._left: dict[str, object] = dict(value)

    def at(self, name: str) -> str:
        """The full name of a member."""
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str) -> object:
        """Any value; None when absent."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            refuse(self.at(name), "must be a string")
        return value

    def word(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if not value:
            refuse(self.at(name), "is required")
        return value

    def flag(self, name: str) -> bool | None:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            refuse(self.at(name), "must be true or false")
        return value

    def number(self, name: str) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            refuse(self.at(name), "must be a number")
        return value

    def whole(self, name: str) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            refuse(self.at(name), "must be a whole number")
        return value

    def items(self, name: str) -> list[object]:
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list):
            refuse(self.at(name), "must be an array")
        return value

    def inner(self, name: str) -> Self | None:
        """An object member."""
        value = self.take(name)
        return None if value is None else type(self)(value, self.at(name))

    def within(self, name: str) -> list[Self]:
        """The objects in an array member."""
        held = self.items(name)
        return [type(self)(item, f"{self.at(name)}.{i}") for i, item in enumerate(held)]

    def has(self, name: str) -> bool:
        """Whether a member is there, not taken yet, and not null."""
        return self._left.get(name) is not None

    def rest(self, harmless: Set[str] = NO_NAMES) -> None:
        """Refuse what is left, but for nulls and names that change nothing that is said."""
        for name, value in self._left.items():
            if value is not None and name not in harmless:
                refuse(self.at(name), "cannot be translated to the provider's format")


def parse(body: bytes) -> object:
    """A caller's body."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise LavaError("invalid_request", f"The body is not JSON: {error}.") from None


def answered(data: bytes) -> dict[str, object]:
    """A provider's JSON object; raises `Unreadable`."""
    value = parse_any(data)
    if not isinstance(value, dict):
        raise Unreadable("the provider's answer is not a JSON object")
    return value


def parse_any(data: bytes) -> object:
    """A provider's JSON value, half a surrogate pair and all; raises `Unreadable`."""
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            text = data.decode("utf-8", "replace")
            value = json.loads(text)
            # What UTF-8 cannot hold is shown as a question mark.
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            raise Unreadable("the provider's answer is not JSON") from None
    return value


def object_in(value: dict[str, object], name: str) -> dict[str, object]:
    """A member that should be an object; an empty one where it is not."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def objects_in(value: dict[str, object], name: str) -> list[dict[str, object]]:
    """The objects in a member that should be an array."""
    found = value.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text_in(value: dict[str, object], name: str) -> str:
    """A member that should be a string; "" where it is not."""
    found = value.get(name)
    return found if isinstance(found, str) else ""


def count_in(value: dict[str, object], name: str) -> int | None:
    """A member that should be a count."""
    found = value.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def told(data: bytes) -> str:
    """An error of no known form, to be shown whole or not at all: half of it could be half of a
    key, which nobody would find to hide it."""
    return data.decode("utf-8", "replace") if len(data) <= TOLD_BYTES_MAX else ""


def dump(value: object) -> bytes:
    """Compact JSON."""
    return orjson.dumps(value)


def is_whole(text: str) -> bool:
    """Whether a tool call's arguments so far are a whole JSON object."""
    if not text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def made_arguments(text: str) -> object:
    """A made call's arguments as an object; an empty one where they were cut short."""
    return orjson.loads(text) if is_whole(text) else {}


def arguments_of(text: str, path: str) -> object:
    """A tool call's arguments as the object that they must be; "" is an empty one."""
    if not text.strip():
        return {}
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        refuse(path, "must be the text of a JSON object")
    if not isinstance(value, dict):
        refuse(path, "must be the text of a JSON object")
    return value
