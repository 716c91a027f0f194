"""What a booked row gives back to the accounts in memory, where its charge was pending."""

from __future__ import annotations

from lava_proxy.books.leases import Leases
from lava_proxy.books.writer import Item
from lava_proxy.rules.limits import LEASED, claimed
from lava_proxy.rules.settlement import Booked


def give_back(leases: Leases, item: Item, booked: Booked) -> None:
    """What was put aside for the row is pending no more; what its leases kept of it is free."""
    row, call = item.settlement, item.settlement.call
    if item.estimate_e10 or booked.leased_e10 or booked.kept_e10:
        # Booked by somebody else (a copy of our journal), or quarantined. What that took is not
        # known here, so all of the estimate counts as taken; what is left goes back when idle.
        leased = booked.leased_e10 + booked.kept_e10 if booked.fresh else item.estimate_e10
        leases.booked(call.owner_id, item.estimate_e10, leased)
    for place, (kind, owner_id) in enumerate(call.budgets):
        used = claimed(kind, owner_id, row)
        leased = booked.drawn[place] if booked.fresh and booked.drawn else used
        if kind in LEASED:
            leases.booked(owner_id, used, leased)
