"""Lists: newest first, ``limit`` 1 to 100, an opaque ``cursor`` that names the last item seen."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import orjson

from lava_proxy.manage.context import JSON, invalid
from lava_proxy.store.resources import LEDGER_START, START, Cursor, Row

LIMIT_DEFAULT = 10
LIMIT_MAX = 100
PAGING = frozenset({"cursor", "limit"})


def limit_of(query: Mapping[str, str]) -> int:
    """The page size."""
    text = query.get("limit")
    if text is None:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:6]) <= LIMIT_MAX:
        raise invalid("limit", f"must be a whole number from 1 to {LIMIT_MAX}")
    return int(text)


def cursor_of(query: Mapping[str, str]) -> Cursor:
    """Where the page begins."""
    value = _decode(query.get("cursor"))
    if value is None:
        return START
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value):
        try:
            at = datetime.fromisoformat(value[0])
        except ValueError:
            at = None
        if at is not None and at.tzinfo is not None:
            return at, value[1]
    raise invalid("cursor", "is not one that we gave")


def ledger_cursor_of(query: Mapping[str, str]) -> int:
    """As `cursor_of`, for entries that have numbers."""
    value = _decode(query.get("cursor"))
    if value is None:
        return LEDGER_START
    if isinstance(value, int) and 0 < value < LEDGER_START:
        return value
    raise invalid("cursor", "is not one that we gave")


def page(rows: Sequence[Row], limit: int, id_name: str, show: Callable[[Row], JSON]) -> JSON:
    """The answer; `rows` has one more than `limit` when there is a next page."""
    shown = rows[:limit]
    more = len(rows) > limit
    return {
        "data": [show(row) for row in shown],
        "has_more": more,
        "next_cursor": encode([shown[-1]["created_at"].isoformat(), shown[-1][id_name]])
        if more
        else None,
    }


def encode(value: object) -> str:
    """An opaque cursor."""
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


def _decode(text: str | None) -> object:
    if not text:
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        value: object = orjson.loads(raw)
    except (binascii.Error, ValueError):
        raise invalid("cursor", "is not one that we gave") from None
    return value
