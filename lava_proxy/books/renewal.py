"""More time for leases in use. What counts is that they were still there when they were renewed.

A process can stand still (SIGSTOP, a paused machine) between any two of its steps, for longer than
its leases last; meanwhile the database takes them back and others spend the money. So time is
counted from before we asked, an answer counts only while the old time and its grace run (until
then nobody can have taken anything back), and the database says how many leases it has renewed.
"""

from __future__ import annotations

import logging

from lava_proxy.books.account import Account
from lava_proxy.books.leases import Leases

log = logging.getLogger(__name__)


def to_renew(leases: Leases) -> list[str]:
    """Owners whose leases are past half of their time and in use."""
    return [owner_id for owner_id in leases.accounts if renewable(leases, owner_id)]


def renewable(leases: Leases, owner_id: str) -> bool:
    """Whether an owner's leases are past half of their time, and not over."""
    account = leases.accounts.get(owner_id)
    return account is not None and 0 < _left_s(leases, account) < leases.lease_s / 2


def renewed(leases: Leases, owner_id: str, asked_s: float, there: int) -> None:
    """`there` leases were given more time by the database; counted from before we asked. What
    comes too late changes nothing: the leases stay over, and the next trip begins anew."""
    account = leases.accounts.get(owner_id)
    if account is None or not account.expires_s or not leases.in_grace(account):
        return
    if not there and account.claims_e10 > 0:
        log.warning("the database knows no leases of %s any more", owner_id)
        account.lapse()
    else:
        account.expires_s = max(account.expires_s, asked_s + leases.lease_s)


def _left_s(leases: Leases, account: Account) -> float:
    return account.expires_s - leases.clock.boot_s()
