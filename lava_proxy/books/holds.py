"""All that one call holds: a vector of holds, opened leaf to root and closed once.

Each member is a hold on one account (a spend key's limit, a customer's open calls, the merchant's
wallet, the customer's credit) or a permit of a rate. When a later one refuses, the earlier ones are
given back whole. At the end each is released with what the call really used of it.
"""

from __future__ import annotations

from lava_proxy.books.account import Hold
from lava_proxy.books.rates import Permit
from lava_proxy.rules.gauge import FREE, Gauge
from lava_proxy.rules.limits import claimed
from lava_proxy.rules.settlement import Settlement

CREDIT = "credit"


class Part:
    """One member: a hold, which kind of budget it is on, and how that counts a running answer."""

    __slots__ = ("gauge", "hold", "kind")

    def __init__(self, kind: str, hold: Hold, gauge: Gauge = FREE) -> None:
        self.kind = kind
        self.hold = hold
        self.gauge = gauge


class Holds:
    """The holds of one call. `money` are those that grow while the answer runs."""

    __slots__ = ("_permits", "credit", "parts")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.credit: Hold | None = None
        self._permits: list[Permit] = []

    def add(self, kind: str, hold: Hold, gauge: Gauge = FREE) -> None:
        """One more hold; the customer's credit comes last."""
        self.parts.append(Part(kind, hold, gauge))
        if kind == CREDIT:
            self.credit = hold

    def add_permit(self, permit: Permit) -> None:
        """A permit of a rate: used by the start of the call."""
        self._permits.append(permit)

    @property
    def money(self) -> list[tuple[Hold, Gauge]]:
        """Holds whose use grows with the answer, the customer's credit first."""
        growing = [(p.hold, p.gauge) for p in self.parts if p.gauge.kind != "flat"]
        return growing[::-1]

    def over(self, owners: set[str]) -> bool:
        """Whether one of these accounts is among its own."""
        return any(part.hold.account.owner_id in owners for part in self.parts)

    def give_back(self) -> None:
        """The call does not start: nothing of it was used."""
        for part in self.parts:
            part.hold.release(0)
        for permit in self._permits:
            permit.give_back()

    def release(self, row: Settlement, charge_e10: int) -> None:
        """The call is over: `charge_e10` bounds its charge and what it keeps of its credit, the
        rest is in its row."""
        used = {CREDIT: charge_e10}
        for kind, owner_id in row.call.budgets:
            used[kind] = claimed(kind, owner_id, row)
        for part in self.parts:
            part.hold.release(used.get(part.kind, 0))
