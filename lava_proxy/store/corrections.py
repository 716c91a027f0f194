"""The money of one re-rated request: what its new cost and charge move, in one transaction.

Its accounts are locked in one order, as when it was booked. A dearer charge is taken from free
credit, and what is missing is debt, as with every late row. What a cheaper one gives back pays debt
first, then goes to the cycle that the request was booked in, as far as that still runs and was
spent, so that it ends with it; the rest is credit of its own. The limits of its spend key count the
new cost, beyond the limit where there is no room: it was spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from lava_proxy.core.ids import is_test, new_id
from lava_proxy.rules.credit import burn
from lava_proxy.rules.rerating import Rerated
from lava_proxy.store import unrated
from lava_proxy.store.database import Connection
from lava_proxy.store.entries import Entries
from lava_proxy.store.ledger import announce_credit
from lava_proxy.store.news import credit_moved
from lava_proxy.store.sql import load

Q = load("reratings")
C = load("credit")
S = load("settle")


@dataclass(frozen=True, slots=True)
class Change:
    """A request that was re-rated."""

    merchant_id: str
    request_id: str
    customer_id: str | None
    model: str
    cost_change_e10: int
    charge_change_e10: int
    version: str


def change_of(row: asyncpg.Record, found: Rerated) -> Change:
    """What the new figures change of a request as it was booked."""
    charge_e10 = row["charge_e10"] if found.charge is None else found.charge.amount_e10
    return Change(
        row["merchant_id"],
        row["request_id"],
        row["customer_id"],
        row["model"],
        found.cost.total_e10 - row["cost_e10"],
        charge_e10 - row["charge_e10"],
        found.version,
    )


async def correct(
    conn: Connection, row: asyncpg.Record, found: Rerated, now: datetime
) -> Change | None:
    """Book what a request comes to now, inside the caller's transaction; None where somebody was
    first."""
    change, customer_id = change_of(row, found), row["customer_id"]
    owners = [*row["limits"], *([customer_id] if customer_id else [])]
    accounts = await S["lock_accounts"].fetch(conn, owner_ids=sorted(owners)) if owners else []
    debts = {account["owner_id"]: account["debt_e10"] for account in accounts}
    transaction_id = new_id("transaction")
    await unrated.waits_no_more(conn, row)
    if not await _note(conn, row, found, change, transaction_id, now):
        return None
    if customer_id is not None and change.charge_change_e10:
        if change.charge_change_e10 > 0:
            await _take(conn, customer_id, change.charge_change_e10, now)
        else:
            await _give_back(conn, row, -change.charge_change_e10, debts.get(customer_id, 0), now)
        await credit_moved(conn, customer_id, now)
    limits = sorted(owner_id for owner_id in row["limits"] if owner_id in debts)
    if limits and change.cost_change_e10:
        await _move_limits(conn, limits, change.cost_change_e10, now)
    await _post(conn, row, change, transaction_id, now)
    await Q["change_quarter"].execute(
        conn,
        merchant_id=change.merchant_id,
        created_at=row["created_at"],
        customer_id=customer_id,
        meter_id=row["meter_id"],
        cost_change=change.cost_change_e10,
        charge_change=change.charge_change_e10,
        managed_change=change.cost_change_e10 if row["provider_key_type"] == "managed" else 0,
    )
    return change


async def _note(
    conn: Connection,
    row: asyncpg.Record,
    found: Rerated,
    change: Change,
    transaction_id: str,
    now: datetime,
) -> bool:
    lines = None if found.charge is None else found.charge.lines
    noted = await Q["insert_rerating"].fetchval(
        conn,
        merchant_id=change.merchant_id,
        request_id=change.request_id,
        created_at=row["created_at"],
        transaction_id=transaction_id,
        price_version=change.version,
        cost=found.cost.total_e10,
        charge=row["charge_e10"] + change.charge_change_e10,
        cost_change=change.cost_change_e10,
        charge_change=change.charge_change_e10,
        input_cost=found.cost.input_e10,
        breakdown=None
        if lines is None
        else [[li.tier.start, li.tier.rate_e12, li.units, li.amount_e10] for li in lines],
        now=now,
    )
    return noted is not None


async def _take(conn: Connection, owner_id: str, amount_e10: int, now: datetime) -> None:
    left_e10 = await _burn(conn, owner_id, amount_e10, now)
    if left_e10:
        await _owe(conn, owner_id, left_e10)


async def _burn(conn: Connection, owner_id: str, amount_e10: int, now: datetime) -> int:
    """Take from what no worker holds of an account; answers what it does not cover."""
    free = await S["available_grants"].fetch(conn, owner_ids=[owner_id], now=now)
    split = burn([(grant["grant_id"], grant["available_e10"]) for grant in free], amount_e10)
    if split.takes:
        await S["burn_grants"].execute(
            conn,
            grant_ids=[grant_id for grant_id, _ in split.takes],
            amounts=[taken_e10 for _, taken_e10 in split.takes],
        )
    return split.rest_e10


async def _give_back(
    conn: Connection, row: asyncpg.Record, amount_e10: int, debt_e10: int, now: datetime
) -> None:
    owner_id: str = row["customer_id"]
    repaid_e10 = min(debt_e10, amount_e10)
    if repaid_e10:
        await _owe(conn, owner_id, -repaid_e10)
    rest_e10 = amount_e10 - repaid_e10
    rest_e10 -= await _to_its_cycle(conn, row, rest_e10, now)
    if rest_e10:
        await C["insert_grant"].execute(
            conn,
            grant_id=new_id("credit", test=is_test(owner_id)),
            owner_id=owner_id,
            merchant_id=row["merchant_id"],
            kind="operator",
            amount=rest_e10,
            spent=0,
            expires_at=None,
            note=f"{row['request_id']} re-rated",
            created_at=now,
        )


async def _to_its_cycle(
    conn: Connection, row: asyncpg.Record, amount_e10: int, now: datetime
) -> int:
    """Back to the credit of the request's own cycle; answers how much of it found room there."""
    subscription_id, _, seq = row["cycle"].rpartition(":")
    if not amount_e10 or not subscription_id:
        return 0
    grant = await Q["open_cycle"].fetchrow(
        conn, customer_id=row["customer_id"], subscription_id=subscription_id, seq=int(seq), now=now
    )
    back_e10 = 0 if grant is None else min(amount_e10, grant["spent_e10"])
    if grant is not None and back_e10:
        await Q["unspend"].execute(conn, grant_id=grant["grant_id"], amount=back_e10)
    return back_e10


async def _move_limits(
    conn: Connection, owner_ids: list[str], change_e10: int, now: datetime
) -> None:
    """So much more, or less, was used of each of these."""
    if change_e10 < 0:
        await Q["unspend_limits"].execute(conn, owner_ids=owner_ids, amount=-change_e10)
        for owner_id in owner_ids:  # who was refused may be asked again
            await announce_credit(conn, owner_id)
        return
    for owner_id in owner_ids:
        beyond = await _burn(conn, owner_id, change_e10, now)
        if beyond:
            await S["spend_beyond"].execute(conn, owner_ids=[owner_id], amounts=[beyond])


async def _owe(conn: Connection, owner_id: str, amount_e10: int) -> None:
    await S["change_accounts"].execute(
        conn, owner_ids=[owner_id], debts=[amount_e10], overdrafts=[0]
    )


async def _post(
    conn: Connection, row: asyncpg.Record, change: Change, transaction_id: str, now: datetime
) -> None:
    merchant_id, customer_id = change.merchant_id, row["customer_id"]
    pairs: list[tuple[str, Mapping[str, int]]] = [
        (
            "cost",
            {
                f"merchant:{merchant_id}:cost": -change.cost_change_e10,
                f"provider:{row['provider']}": change.cost_change_e10,
            },
        )
    ]
    if customer_id is not None:
        sides = {
            f"customer:{customer_id}": -change.charge_change_e10,
            f"merchant:{merchant_id}:revenue": change.charge_change_e10,
        }
        pairs.append(("charge", sides))
    entries = Entries(now)
    with entries.transaction(transaction_id, merchant_id, change.request_id, customer_id) as post:
        for kind, amounts in pairs:
            for account, amount_e10 in amounts.items():
                if amount_e10:
                    post(kind, account, amount_e10)
    await entries.insert(conn)
