"""The money of a batch while it is booked: what each account has, and what each row takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lava_proxy.rules.limits import drawn
from lava_proxy.store.lines import Line


@dataclass(slots=True)
class Share:
    """What is left of one source of money: a lease's share of a grant, or a grant itself."""

    lease_id: str
    seq: int
    grant_id: str | None
    left_e10: int
    taken_e10: int = 0


@dataclass(slots=True)
class Purse:
    """One account's money during a batch."""

    debt_e10: int
    new_debt_e10: int = 0
    overdraft_back_e10: int = 0
    beyond_e10: int = 0
    """Use of a limit that it does not cover."""
    leases: dict[str, list[Share]] = field(default_factory=lambda: defaultdict(list))
    grants: list[Share] = field(default_factory=list)


@dataclass(slots=True)
class Due:
    """What the leases of a row's own process did not cover on one account."""

    line: Line
    owner_id: str
    left_e10: int
    is_limit: bool


def draw(line: Line, accounts: Mapping[str, Purse]) -> list[Due]:
    """Take what a row uses, the customer's charge and its part of each budget, from the leases of
    the process that admitted it; answers what is left of that."""
    call, due = line.settlement.call, []
    amount = line.charge.amount_e10
    if amount and call.customer_id:
        account = accounts[call.owner_id]
        taken = line.leased_e10 = take(account, account.leases[call.holder_id], amount)
        if taken < amount:
            due.append(Due(line, call.owner_id, amount - taken, False))
    for kind, owner_id in call.budgets:
        amount, account = drawn(kind, line.settlement), accounts[owner_id]
        taken = take(account, account.leases[call.holder_id], amount)
        line.drawn += (taken,)
        if taken < amount:
            due.append(Due(line, owner_id, amount - taken, True))
    return due


def take(account: Purse, shares: Sequence[Share], amount_e10: int) -> int:
    """Take up to `amount_e10` from `shares` in order; a share of the overdraft becomes debt."""
    taken = 0
    for share in shares:
        if taken == amount_e10:
            break
        part = min(share.left_e10, amount_e10 - taken)
        if not part:
            continue
        share.left_e10 -= part
        share.taken_e10 += part
        taken += part
        if share.grant_id is None:
            account.new_debt_e10 += part
            account.overdraft_back_e10 += part
    return taken
