"""Credit accounts in PostgreSQL: grants come in, leases move slices to workers and back.

Every function locks the account first (`lock_accounts`), so grants, leases and debt change one at a
time per customer. Nothing here is ever doubled by a retry: ids come from the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.core.invariant import invariant
from lava_proxy.core.money import format_e10
from lava_proxy.rules.credit import burn
from lava_proxy.rules.limits import Limit
from lava_proxy.store import wallets
from lava_proxy.store.database import Connection
from lava_proxy.store.entries import Entries
from lava_proxy.store.sql import load

Q = load("credit")
S = load("settle")


@dataclass(frozen=True, slots=True)
class LeaseAsk:
    """What a worker asks for. It gets nothing unless `least_e10` can be had; else `hold_e10` if
    there is so much, or more: `burn_e10`, but at most a quarter of what is left."""

    lease_id: str
    owner_id: str
    holder_id: str
    least_e10: int
    hold_e10: int
    burn_e10: int
    overdraft_e10: int
    lease_s: float
    limit: Limit | None = None
    """The account is a limit's: what size it must have now."""


@dataclass(frozen=True, slots=True)
class LeaseAnswer:
    """What a worker got: `amount_e10` is 0 when credit is short. `free_e10` is what nobody holds
    (before the grant), `elsewhere_e10` what other workers hold."""

    amount_e10: int
    free_e10: int
    elsewhere_e10: int
    coming: bool = False
    """Credit is being bought right now: worth a wait."""


async def lease(conn: Connection, ask: LeaseAsk, now: datetime) -> LeaseAnswer:
    """Move a slice of credit to a worker. Inside the caller's transaction."""
    account = await _lock_for(conn, ask)
    known = await Q["lease_by_id"].fetchrow(conn, lease_id=ask.lease_id)
    if known is not None:  # asked before: the first answer's commit was ambiguous
        return LeaseAnswer(known["amount_e10"], 0, 0)
    await expire(conn, ask.owner_id, account["merchant_id"], now)
    grants = await S["available_grants"].fetch(conn, owner_ids=[ask.owner_id], now=now)
    overdraft = max(0, ask.overdraft_e10 - account["debt_e10"] - account["overdraft_leased_e10"])
    free = sum(row["available_e10"] for row in grants) + overdraft
    elsewhere = await Q["leased_by_others"].fetchval(
        conn, owner_id=ask.owner_id, holder_id=ask.holder_id
    )
    amount = _size(ask, free)
    await Q["close_spent_leases"].execute(conn, owner_id=ask.owner_id, now=now)
    if amount:
        await _open_lease(conn, ask, amount, grants)
    await renew(conn, ask.owner_id, ask.holder_id, ask.lease_s)
    return LeaseAnswer(amount, free, elsewhere)


async def _lock_for(conn: Connection, ask: LeaseAsk) -> asyncpg.Record:
    """Lock the account; a limit's is made where it is missing and brought to its present size, so
    that no worker has to be there when a cycle begins."""
    if ask.limit is None:
        return await lock(conn, ask.owner_id)
    merchant_id, amount = ask.limit.merchant_id, ask.limit.amount
    await Q["insert_account"].execute(conn, owner_id=ask.owner_id, merchant_id=merchant_id)
    account = await lock(conn, ask.owner_id)
    if amount is None:
        amount = await wallets.size(conn, merchant_id, ask.owner_id)
    if amount > 0:
        await Q["insert_limit"].execute(
            conn, owner_id=ask.owner_id, merchant_id=merchant_id, amount=amount
        )
    await Q["move_limit"].execute(conn, owner_id=ask.owner_id, amount=max(0, amount))
    return account


def _size(ask: LeaseAsk, free_e10: int) -> int:
    """At least one hold, at most a quarter of what is left, so leases shrink towards zero."""
    if free_e10 < max(1, ask.least_e10):
        return 0
    return min(free_e10, max(ask.hold_e10, min(ask.burn_e10, free_e10 // 4)))


async def _open_lease(
    conn: Connection, ask: LeaseAsk, amount: int, grants: Sequence[asyncpg.Record]
) -> None:
    takes, left = _take(grants, amount)
    parts: list[tuple[str | None, int]] = [*takes]
    if left:
        parts.append((None, left))
        await _change(conn, ask.owner_id, overdraft_e10=left)
    await Q["insert_lease"].execute(
        conn,
        lease_id=ask.lease_id,
        owner_id=ask.owner_id,
        holder_id=ask.holder_id,
        amount=amount,
        lease_s=ask.lease_s,
    )
    await Q["insert_parts"].execute(
        conn,
        lease_id=ask.lease_id,
        seqs=list(range(len(parts))),
        grant_ids=[grant for grant, _ in parts],
        amounts=[amount for _, amount in parts],
    )


async def give_back(
    conn: Connection, owner_id: str, holder_id: str, amount_e10: int | None, now: datetime
) -> int:
    """Return up to `amount_e10` (None = all) of a holder's leases, in reverse burn order; answers
    how much came back."""
    account = await lock(conn, owner_id)
    rows = await Q["open_parts_newest_first"].fetch(conn, owner_id=owner_id, holder_id=holder_id)
    left = sum(r["left_e10"] for r in rows) if amount_e10 is None else amount_e10
    takes: list[tuple[str, int, int]] = []
    overdraft = 0
    for row in rows:
        take = min(left, row["left_e10"])
        if take:
            takes.append((row["lease_id"], row["seq"], take))
            overdraft += take if row["grant_id"] is None else 0
            left -= take
    if takes:
        await Q["return_parts"].execute(
            conn,
            lease_ids=[t[0] for t in takes],
            seqs=[t[1] for t in takes],
            amounts=[t[2] for t in takes],
            now=now,
        )
    if overdraft:
        await _change(conn, owner_id, overdraft_e10=-overdraft)
    await Q["close_spent_leases"].execute(conn, owner_id=owner_id, now=now)
    await expire(conn, owner_id, account["merchant_id"], now)
    if takes and account["debt_e10"]:
        await repay(conn, owner_id, account["debt_e10"], now)
    return sum(t[2] for t in takes)


async def repay(conn: Connection, owner_id: str, debt_e10: int, now: datetime) -> None:
    """Credit that came back pays old debt at once, as new credit does: else it would be spent
    while the customer owes."""
    rows = await S["available_grants"].fetch(conn, owner_ids=[owner_id], now=now)
    takes, left = _take(rows, debt_e10)
    if not takes:
        return
    await S["burn_grants"].execute(
        conn, grant_ids=[g for g, _ in takes], amounts=[a for _, a in takes]
    )
    await _change(conn, owner_id, debt_e10=left - debt_e10)


def _take(rows: Iterable[asyncpg.Record], amount_e10: int) -> tuple[list[tuple[str, int]], int]:
    """(grant, part) pairs that add up to `amount_e10` as far as grants go, and what is missing."""
    split = burn([(row["grant_id"], row["available_e10"]) for row in rows], amount_e10)
    return list(split.takes), split.rest_e10


async def renew(conn: Connection, owner_id: str, holder_id: str, lease_s: float) -> int:
    """Give a holder more time on what it has; answers how many leases that is."""
    renewed: int = await Q["renew_leases"].fetchval(
        conn, owner_id=owner_id, holder_id=holder_id, lease_s=lease_s
    )
    return renewed


async def close_holder(conn: Connection, holder_id: str, now: datetime) -> int:
    """Return everything that a holder has: it is gone, and its journal was replayed."""
    total = 0
    for row in await Q["holder_owners"].fetch(conn, holder_id=holder_id):
        total += await give_back(conn, row["owner_id"], holder_id, None, now)
    return total


async def grant(
    conn: Connection,
    *,
    grant_id: str,
    owner_id: str,
    kind: str,
    amount_e10: int,
    expires_at: datetime | None,
    note: str | None,
    now: datetime,
    source: str = "operator:grants",
) -> int:
    """Add credit; old debt is paid from it at once. Answers what remains of the grant. `source` is
    the ledger account on the other side."""
    account = await lock(conn, owner_id)
    repaid: int = min(account["debt_e10"], amount_e10)
    await Q["insert_grant"].execute(
        conn,
        grant_id=grant_id,
        owner_id=owner_id,
        merchant_id=account["merchant_id"],
        kind=kind,
        amount=amount_e10,
        spent=repaid,
        expires_at=expires_at,
        note=note,
        created_at=now,
    )
    if repaid:
        await _change(conn, owner_id, debt_e10=-repaid)
    await _post_credit(
        conn,
        account["merchant_id"],
        owner_id,
        kind="grant",
        amount_e10=amount_e10,
        now=now,
        source=source,
    )
    return amount_e10 - repaid


async def withdraw(conn: Connection, *, owner_id: str, amount_e10: int, now: datetime) -> None:
    """Take credit back (a correction): from the last to burn first, never more than is free."""
    invariant(amount_e10 > 0, "an amount to take back is positive")
    account = await lock(conn, owner_id)
    await expire(conn, owner_id, account["merchant_id"], now)
    rows = await S["available_grants"].fetch(conn, owner_ids=[owner_id], now=now)
    takes, left = _take(reversed(rows), amount_e10)
    if left:
        free = format_e10(amount_e10 - left)
        raise LavaError("conflict", f"only {free} of this customer's credit is free to take back")
    await Q["withdraw_grants"].execute(
        conn, grant_ids=[g for g, _ in takes], amounts=[a for _, a in takes]
    )
    await _post_credit(
        conn, account["merchant_id"], owner_id, kind="withdrawal", amount_e10=-amount_e10, now=now
    )


async def expire(conn: Connection, owner_id: str, merchant_id: str, now: datetime) -> None:
    """Move expired credit out of reach, with its ledger line. The account must be locked."""
    rows = await Q["expire_grants"].fetch(conn, owner_id=owner_id, now=now)
    entries = Entries(now)
    for row in rows:
        with entries.transaction(new_id("transaction"), merchant_id, None, owner_id) as post:
            post("expiry", f"customer:{owner_id}", -row["amount_e10"])
            post("expiry", "expired", row["amount_e10"])
    await entries.insert(conn)


async def _change(
    conn: Connection, owner_id: str, *, debt_e10: int = 0, overdraft_e10: int = 0
) -> None:
    """Move debt and leased overdraft by these amounts."""
    await S["change_accounts"].execute(
        conn, owner_ids=[owner_id], debts=[debt_e10], overdrafts=[overdraft_e10]
    )


async def _post_credit(
    conn: Connection,
    merchant_id: str,
    owner_id: str,
    *,
    kind: str,
    amount_e10: int,
    now: datetime,
    source: str = "operator:grants",
) -> None:
    entries = Entries(now)
    with entries.transaction(new_id("transaction"), merchant_id, None, owner_id) as post:
        post(kind, source, -amount_e10)
        post(kind, f"customer:{owner_id}", amount_e10)
    await entries.insert(conn)


async def lock(conn: Connection, owner_id: str) -> asyncpg.Record:
    rows = await S["lock_accounts"].fetch(conn, owner_ids=[owner_id])
    if not rows:
        raise LavaError("not_found", "no such credit account")
    return rows[0]
