"""`dataclass` for values that are made many times per call.

``frozen=True`` makes Python set every field through a method call: a value of twenty fields takes
five times as long to make. Here the type checker keeps values frozen (mypy knows this decorator as
the standard one) and the interpreter makes them plain: never written to, hashed by their fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool, **options: Any) -> Callable[[type], type]:
        """As the standard one, with ``frozen=True`` left to the type checker."""
        return dataclasses.dataclass(unsafe_hash=frozen, **options)
