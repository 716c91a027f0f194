"""How values look on the wire: money with ten decimals, times in UTC with a Z."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

from lava_proxy.core.money import MoneyError, parse_e10
from lava_proxy.manage.context import invalid


@overload
def time_of(at: datetime) -> str: ...
@overload
def time_of(at: None) -> None: ...
def time_of(at: datetime | None) -> str | None:
    """``2023-05-15T08:35:42.123456Z``."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def amount_of(text: str, path: str) -> int:
    """A decimal string of USD as 10^-10 USD, or 422."""
    try:
        return parse_e10(text)
    except MoneyError as error:
        raise invalid(path, str(error)) from None


def instant_of(text: str, path: str) -> datetime:
    """An ISO 8601 instant with an offset, or 422."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise invalid(path, "must be an ISO 8601 time with an offset")
    return at.astimezone(UTC)
