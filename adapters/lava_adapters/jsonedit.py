"""Minimal textual edits of a JSON object: every byte that need not change stays as it was.

The scanner walks one object's own members and skips over nested values by counting brackets
outside strings. It is linear, and it expects text that a strict parser has accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

import orjson

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY = re.compile(rb"[\s,]*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_COLON = re.compile(_STRING + rb"\s*+:\s*+", re.DOTALL)
_SCALAR = re.compile(_STRING + rb"|[^\s,\]}\[{]++", re.DOTALL)
_TOKEN = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_SPACE = re.compile(rb"\s*+")

ESCAPED_ASCII = b"\\u00"
"""A key may hide behind an escape (``"mod\\u0065l"``): then byte search is no proof."""


class Member(NamedTuple):
    """One member of an object: its decoded name, and where its value lies."""

    name: str
    start: int
    end: int


def members(text: bytes, start: int = 0) -> list[Member]:
    """The members of the object that begins at or after `start`, in order, duplicates included."""
    position = _SPACE.match(text, start).end() + 1  # type: ignore[union-attr]
    found = []
    while (key := _KEY.match(text, position)) is not None:
        quoted = key.group(1)
        name = json.loads(quoted) if b"\\" in quoted else quoted[1:-1].decode("utf-8", "replace")
        position = _end_of_value(text, key.end())
        found.append(Member(name, key.end(), position))
    return found


def find_member(text: bytes, name: str, start: int = 0) -> Member | None:
    """The last member called `name`, as parsers see it; quick where the name occurs once or not."""
    quoted = _quoted(name)
    if _shows_names(text):
        at = text.find(quoted, start)
        if at < 0:
            return None
        if not start and text.find(quoted, at + 1) < 0 and (colon := _COLON.match(text, at)):
            try:
                document = orjson.loads(text)
            except orjson.JSONDecodeError:  # what only more lenient parsers take
                document = None
            if isinstance(document, dict):  # if the object has it, there it is
                end = _end_of_value(text, colon.end())
                return Member(name, colon.end(), end) if name in document else None
    return next((m for m in reversed(members(text, start)) if m.name == name), None)


def insert_member(text: bytes, name: str, value: bytes) -> bytes:
    """`text` with a new first member."""
    brace = _SPACE.match(text).end() + 1  # type: ignore[union-attr]
    empty = text.startswith(b"}", _SPACE.match(text, brace).end())  # type: ignore[union-attr]
    member = b'"%b":%b' % (name.encode(), value)
    return text[:brace] + member + (b"" if empty else b",") + text[brace:]


def set_member(text: bytes, name: str, value: bytes) -> bytes:
    """`text` with the member's value replaced, or the member inserted."""
    member = find_member(text, name)
    if member is None:
        return insert_member(text, name, value)
    return text[: member.start] + value + text[member.end :]


def set_nested(text: bytes, outer: str, inner: str, value: bytes) -> bytes:
    """`text` with ``outer.inner`` set; `outer` is made where it is absent or null."""
    member = find_member(text, outer)
    if member is not None and text.startswith(b"{", member.start):
        edited = set_member(text[member.start : member.end], inner, value)
        return text[: member.start] + edited + text[member.end :]
    made = b'{"%b":%b}' % (inner.encode(), value)
    if member is None:
        return insert_member(text, outer, made)
    return text[: member.start] + made + text[member.end :]


def repeated(text: bytes, names: Collection[str]) -> str | None:
    """The first of `names` that is the name of two members."""
    if _shows_names(text):
        for name in names:
            if text.count(_quoted(name)) > 1:
                break
        else:
            return None
    seen: set[str] = set()
    for member in members(text):
        if member.name in names and member.name in seen:
            return member.name
        seen.add(member.name)
    return None


def _shows_names(text: bytes) -> bool:
    """Whether no name hides behind an escape. The first look is the quicker by far."""
    return text.find(b"\\") < 0 or text.find(ESCAPED_ASCII) < 0


@lru_cache(maxsize=1024)
def _quoted(name: str) -> bytes:
    """A name as it stands in JSON; only names of ours are asked for, in every call."""
    return b'"%b"' % name.encode()


def _end_of_value(text: bytes, start: int) -> int:
    if text[start : start + 1] not in (b"{", b"["):
        scalar = _SCALAR.match(text, start)
        return scalar.end() if scalar is not None else start
    depth = 0
    for token in _TOKEN.finditer(text, start):
        mark = text[token.start()]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
            if depth == 0:
                return token.end()
    return len(text)
