"""Lists: newest first, a page at a time, with an opaque cursor to the next one.

A cursor names the last object that was shown, not a page number, so rows that come or go between
two calls are neither skipped nor shown twice. It is not signed: every list is bound to the caller's
own merchant, whatever its cursor says.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import orjson
from typing_extensions import TypedDict

from lava_proxy.manage.call import Answer, answer
from lava_proxy.manage.fields import refuse
from lava_proxy.manage.parameters import LIMIT_MAX
from lava_proxy.store.ledger import NEWEST
from lava_proxy.store.place import TOP, Place
from lava_proxy.wire.problem import storable

PAGE_PARAMETERS = frozenset({"cursor", "limit"})
LIMIT_DEFAULT = 10
CURSOR_MAX_CHARS = 2048

_LIMIT = re.compile(r"[1-9]\d{0,2}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_MICROSECOND = (TOP.at - _EPOCH) // _MICROSECOND

Position = tuple[int, str]
R = TypeVar("R")


class PageView(TypedDict, Generic[R]):
    """A page of a list."""

    data: list[R]
    has_more: bool
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    kind: str
    position: Position | None
    limit: int

    @property
    def most(self) -> int:
        """Rows to read: one more than shown tells whether there are more."""
        return self.limit + 1

    @property
    def place(self) -> Place:
        """Where the page begins in a list ordered by time."""
        if self.position is None:
            return TOP
        return Place(_EPOCH + self.position[0] * _MICROSECOND, self.position[1])

    @property
    def number(self) -> int:
        """Where the page begins in a list ordered by a number."""
        return NEWEST if self.position is None else self.position[0]

    def answer(
        self,
        rows: Sequence[R],
        view: Callable[[R], Mapping[str, object]],
        position_of: Callable[[R], Position],
    ) -> Answer:
        """``{data, has_more, next_cursor}`` of what was read with `most`."""
        shown = rows[: self.limit]
        more = len(rows) > self.limit
        cursor = _encode(self.kind, position_of(shown[-1])) if more else None
        return answer(
            {"data": [view(row) for row in shown], "has_more": more, "next_cursor": cursor}
        )


def read_page(kind: str, query: Mapping[str, str]) -> Page:
    """The page that a query asks for; `kind` keeps one list's cursors out of another."""
    cursor = query.get("cursor")
    return Page(kind, _decode(kind, cursor) if cursor else None, _limit(query.get("limit")))


def position_at(at: datetime, object_id: str) -> Position:
    """A row's position in a list ordered by time."""
    return (at - _EPOCH) // _MICROSECOND, object_id


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    if _LIMIT.fullmatch(text) is None or int(text) > LIMIT_MAX:
        refuse("limit", f"must be a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def _encode(kind: str, position: Position) -> str:
    return urlsafe_b64encode(orjson.dumps([kind, *position])).decode("ascii").rstrip("=")


def _decode(kind: str, cursor: str) -> Position:
    position = _parse(kind, cursor) if len(cursor) <= CURSOR_MAX_CHARS else None
    if position is None or _encode(kind, position) != cursor:
        refuse("cursor", "is not a cursor of this list")
    return position


def _parse(kind: str, cursor: str) -> Position | None:
    try:
        value = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        return None
    if not isinstance(value, list) or len(value) != 3 or value[0] != kind:
        return None
    number, text = value[1:]
    if type(number) is not int or not 0 <= number <= NEWEST or not isinstance(text, str):
        return None
    in_time = kind == "ledger" or number <= _LAST_MICROSECOND
    return (number, text) if in_time and storable(text) else None
