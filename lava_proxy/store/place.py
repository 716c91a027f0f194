"""A place in a list that runs from newest to oldest: a page is what lies behind it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Place:
    """The last object that was seen; objects made at the same instant are told apart by id."""

    at: datetime
    id: str


TOP = Place(datetime(9999, 12, 31, tzinfo=UTC), "")
"""Before the newest object."""
