"""What people type about themselves: a name in one field, an address for mail."""

from __future__ import annotations

import re

NAME_MAX_CHARS = 255
EMAIL_MAX_CHARS = 254

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def is_email(text: str) -> bool:
    """Whether mail could go there; whether somebody reads it, only mail can tell."""
    return len(text) <= EMAIL_MAX_CHARS and _EMAIL.fullmatch(text) is not None


def split_name(name: str | None) -> tuple[str, str]:
    """``"Jane Mary Smith"`` -> ``("Jane", "Mary Smith")``."""
    first_name, _, last_name = (name or "").strip().partition(" ")
    return first_name, last_name.lstrip()
