"""Which credit is spent first: cycle credit, then the soonest-expiring, then the oldest.

`burn` takes an amount from parts in that order; `give_back` returns what was not needed in the
reverse order, so that the credit which would last longest is the first to be whole again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from lava_proxy.core.invariant import invariant

Kind = Literal["cycle", "bundle", "operator"]
Parts = tuple[tuple[str, int], ...]
"""(grant id, amount in 10^-10 USD) pairs, in burn order."""

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Grant:
    """Credit that a customer got once. `expires_at` None = never."""

    grant_id: str
    kind: Kind
    available_e10: int
    expires_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Split:
    """An amount spread over grants: every take is > 0; takes and `rest_e10` add up to it."""

    takes: Parts
    rest_e10: int
    """What no grant covered."""


def order(grants: Iterable[Grant], now: datetime) -> list[Grant]:
    """The grants that may be spent at `now`, first to burn first."""
    usable = (
        grant
        for grant in grants
        if grant.available_e10 > 0 and (grant.expires_at is None or grant.expires_at > now)
    )
    return sorted(usable, key=_burn_key)


def burn(parts: Sequence[tuple[str, int]], amount_e10: int) -> Split:
    """Take `amount_e10` from `parts` (grant id, available), in their order, as far as they go."""
    invariant(amount_e10 >= 0, "an amount to burn cannot be negative")
    left_e10 = amount_e10
    takes = []
    for grant_id, available_e10 in parts:
        taken_e10 = min(max(available_e10, 0), left_e10)
        if taken_e10:
            takes.append((grant_id, taken_e10))
            left_e10 -= taken_e10
    return Split(tuple(takes), left_e10)


def give_back(parts: Sequence[tuple[str, int]], amount_e10: int) -> Split:
    """Return `amount_e10` to `parts` (grant id, taken), the last taken first, and at most what was
    taken from each."""
    return burn(tuple(reversed(parts)), amount_e10)


def _burn_key(grant: Grant) -> tuple[bool, datetime, datetime, str]:
    return (
        grant.kind != "cycle",
        grant.expires_at or _NEVER,
        grant.created_at,
        grant.grant_id,
    )
