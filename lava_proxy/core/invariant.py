"""Invariants that hold in production too: a function, because ``python -O`` removes ``assert``."""

from __future__ import annotations


class InvariantBroken(AssertionError):
    """A promise of this house does not hold: a defect of ours, never the caller's fault."""


def invariant(holds: bool, what: str) -> None:
    """Raise `InvariantBroken` with `what` unless it holds."""
    if not holds:
        raise InvariantBroken(what)
