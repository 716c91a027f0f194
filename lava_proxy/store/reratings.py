"""Re-rating: requests whose price came late, corrected by new ledger rows.

One request, one transaction: the account is locked, the rerating noted (once per request: whoever
comes second changes nothing), the difference taken from free credit, or debt, or given back as
credit, and the ledger and the usage of its quarter of an hour brought up to date. The request
itself stays as it was booked. Limits and leases are not touched: those were kept by what was known
then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from lava_adapters.contract import Usage
from lava_proxy.core.ids import is_test, new_id
from lava_proxy.rules.charge import Line
from lava_proxy.rules.credit import burn
from lava_proxy.rules.pricebook import PriceBook
from lava_proxy.rules.rerating import Rerated, recharge, recost
from lava_proxy.rules.tiers import Tier
from lava_proxy.store import directory
from lava_proxy.store.database import Connection, Database
from lava_proxy.store.entries import Entries
from lava_proxy.store.ledger import announce_credit
from lava_proxy.store.sql import load

Q = load("reratings")
C = load("credit")
S = load("settle")

ROWS_AT_A_TIME = 200
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Change:
    """A request that was re-rated."""

    merchant_id: str
    request_id: str
    model: str
    cost_change_e10: int
    charge_change_e10: int
    version: str


async def rerate(
    database: Database, prices: PriceBook, now: datetime, *, dry: bool = False
) -> AsyncIterator[Change]:
    """Re-rate all requests whose price is known now; `dry`: only tell."""
    at, last = _BEGINNING, ""
    while True:
        async with database.connection() as conn:
            rows = await Q["without_a_price"].fetch(
                conn, after_at=at, after_id=last, most=ROWS_AT_A_TIME
            )
        for row in rows:
            async with database.transaction() as conn:
                found = await _found(conn, prices, row, now)
                change = None if found is None else _change(row, found)
                if change is not None and not dry and not await _book(conn, row, change, now):
                    change = None
            if change is not None:  # told of only once it is committed
                yield change
        if len(rows) < ROWS_AT_A_TIME:
            return
        at, last = rows[-1]["created_at"], rows[-1]["request_id"]


async def _found(
    conn: Connection, prices: PriceBook, row: asyncpg.Record, now: datetime
) -> Rerated | None:
    rates = prices.of(row["merchant_id"]).rates(row["provider"], row["model"], now)
    if rates is None:
        return None
    cost_e10 = recost(rates, _usage(row), row["price_version"])
    if cost_e10 is None:
        return None
    charge_e10 = row["charge_e10"]
    if row["rate_type"] == "percentage" and "unbilled" not in row["flags"]:
        charge_e10 = await _recharged(conn, row, cost_e10)
    return Rerated(cost_e10, charge_e10, rates.version)


async def _recharged(conn: Connection, row: asyncpg.Record, cost_e10: int) -> int:
    meter = await directory.meter_by_id(conn, row["meter_id"])
    if meter is None:
        return int(row["charge_e10"])
    lines = [
        Line(Tier(start, rate_e12), units, amount_e10)
        for start, rate_e12, units, amount_e10 in row["breakdown"]
    ]
    before = 0
    if not lines and len(meter.tariff.tiers) > 1:
        before = await Q["units_before"].fetchval(
            conn,
            merchant_id=row["merchant_id"],
            customer_id=row["customer_id"],
            meter_id=row["meter_id"],
            cycle=row["cycle"],
            before_at=row["created_at"],
            before_id=row["request_id"],
        )
    return recharge(meter.tariff, lines, before, row["units"], cost_e10)


def _change(row: asyncpg.Record, found: Rerated) -> Change:
    return Change(
        row["merchant_id"],
        row["request_id"],
        row["model"],
        found.cost_e10 - row["cost_e10"],
        found.charge_e10 - row["charge_e10"],
        found.version,
    )


async def _book(conn: Connection, row: asyncpg.Record, change: Change, now: datetime) -> bool:
    """False where somebody was first."""
    customer_id: str | None = row["customer_id"]
    debt_e10 = 0
    if customer_id is not None:
        (account,) = await S["lock_accounts"].fetch(conn, owner_ids=[customer_id])
        debt_e10 = account["debt_e10"]
    transaction_id = new_id("transaction")
    noted = await Q["insert_rerating"].fetchval(
        conn,
        merchant_id=change.merchant_id,
        request_id=change.request_id,
        created_at=row["created_at"],
        transaction_id=transaction_id,
        price_version=change.version,
        cost=row["cost_e10"] + change.cost_change_e10,
        charge=row["charge_e10"] + change.charge_change_e10,
        cost_change=change.cost_change_e10,
        charge_change=change.charge_change_e10,
        now=now,
    )
    if noted is None:
        return False
    if customer_id is not None and change.charge_change_e10 > 0:
        await _take(conn, customer_id, change.charge_change_e10, now)
    elif customer_id is not None and change.charge_change_e10 < 0:
        await _give_back(conn, customer_id, change, debt_e10, now)
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
    return True


async def _take(conn: Connection, owner_id: str, amount_e10: int, now: datetime) -> None:
    """From credit that no worker holds; the rest is debt, as with every late row."""
    free = await S["available_grants"].fetch(conn, owner_ids=[owner_id], now=now)
    split = burn([(grant["grant_id"], grant["available_e10"]) for grant in free], amount_e10)
    if split.takes:
        await S["burn_grants"].execute(
            conn,
            grant_ids=[grant_id for grant_id, _ in split.takes],
            amounts=[taken_e10 for _, taken_e10 in split.takes],
        )
    if split.rest_e10:
        await _owe(conn, owner_id, split.rest_e10)


async def _give_back(
    conn: Connection, owner_id: str, change: Change, debt_e10: int, now: datetime
) -> None:
    """As credit of its own, because what paid may have ended since; old debt is paid from it."""
    amount_e10 = -change.charge_change_e10
    repaid_e10 = min(debt_e10, amount_e10)
    await C["insert_grant"].execute(
        conn,
        grant_id=new_id("credit", test=is_test(owner_id)),
        owner_id=owner_id,
        merchant_id=change.merchant_id,
        kind="operator",
        amount=amount_e10,
        spent=repaid_e10,
        expires_at=None,
        note=f"{change.request_id} re-rated",
        created_at=now,
    )
    if repaid_e10:
        await _owe(conn, owner_id, -repaid_e10)
    await announce_credit(conn, owner_id)


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


def _usage(row: asyncpg.Record) -> Usage:
    return Usage(
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cache_read_tokens=row["cache_read_tokens"],
        cache_write_tokens=row["cache_write_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        input_characters=row["input_characters"],
        output_characters=row["output_characters"],
        input_ms=row["input_ms"],
        output_ms=row["output_ms"],
    )
