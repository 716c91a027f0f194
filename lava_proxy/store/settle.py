"""Booking a batch of settlements: one transaction, money changed only from rows that were new.

Order of work, which is also the lock order of the whole store:

1. claim the request ids (`ON CONFLICT DO NOTHING RETURNING`): whoever gets a row back books it;
2. lock the accounts in the order of their ids;
3. read counters, leases and grants under those locks;
4. compute every charge in Python (`rules.charge`, the only copy), in the order of the batch;
5. insert requests and ledger entries, then write back counters, leases, grants and debt.

A charge is paid from the leases of the process that admitted the call, then from credit nobody
holds, and what is left becomes debt: a late row is charged, never dropped. What a call uses of
other budgets (rules/limits.py) goes the same way; beyond a limit it is recorded, never owed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from datetime import datetime

import orjson

from lava_proxy.rules.charge import Charge, charge, units_of
from lava_proxy.rules.settlement import Booked, Settlement
from lava_proxy.store import kept, outbox, unrated
from lava_proxy.store.claims import claim_ids, claim_objects
from lava_proxy.store.database import Connection, StorePoison
from lava_proxy.store.lines import Line, columns, document
from lava_proxy.store.news import news_of
from lava_proxy.store.purse import Purse, Share, draw, take
from lava_proxy.store.sql import load

Q = load("settle")

ROWS_AT_A_TIME = 50
"""Then streams may go on, which a batch computed in one go would hold up for milliseconds. So many
rows take as long as one request."""
NO_CHARGE = Charge(0, ())

Counters = dict[tuple[str, str, str], int]
"""(account, meter, cycle) -> units."""


async def settle(conn: Connection, batch: Sequence[Settlement], now: datetime) -> list[Booked]:
    """Book `batch` inside the caller's transaction; answers in the same order.

    A settlement whose id was booked before comes back with ``fresh=False`` and changes nothing.
    """
    places = await claim_ids(conn, batch)
    fresh, over = await claim_objects(conn, [batch[place] for place in places])
    lines = await _book(conn, fresh, over, now) if fresh else []
    booked = dict(zip(places, lines, strict=True))
    return [_told(row, booked.get(place)) for place, row in enumerate(batch)]


async def _book(
    conn: Connection, fresh: Sequence[Settlement], over: Sequence[Settlement], now: datetime
) -> list[Line]:
    """Charge and write new rows; `over` are those that end the wait of money for their object."""
    waiting = await kept.waiting(conn, over)
    accounts = await _lock(conn, fresh, {owner_id for owner_id, _ in waiting})
    await kept.let_go(conn, waiting, now)
    before, heard = await _read(conn, fresh, accounts)
    counters = before.copy()
    lines: list[Line] = []
    shown: list[tuple[object, ...]] = []
    for row in fresh:
        line = _compute(row, counters)
        lines.append(line)
        shown.append(columns(line))
        if len(lines) % ROWS_AT_A_TIME == 0:
            await asyncio.sleep(0)
    await _pay(conn, lines, accounts, now)
    added = {key: units - before.get(key, 0) for key, units in counters.items()}
    await _write(conn, shown, added, accounts, now)
    await _write_back(conn, lines, accounts)
    for line in lines:
        if line.settlement.keeps:
            await kept.keep(conn, line, now)
    await unrated.wait(conn, lines)
    if heard:
        await outbox.emit(conn, news_of(lines), now)
    return lines


def _told(row: Settlement, line: Line | None) -> Booked:
    """What became of a row: `line`, or that it was booked before."""
    call = row.call
    if line is None:
        return Booked(call.request_id, call.owner_id, 0, False)
    return Booked(
        call.request_id,
        call.owner_id,
        line.charge.amount_e10,
        True,
        leased_e10=line.leased_e10,
        kept_e10=line.kept_e10,
        owed_e10=line.owed_e10,
        drawn=line.drawn,
        charge=line.charge,
    )


async def _lock(conn: Connection, fresh: Sequence[Settlement], more: Set[str]) -> dict[str, Purse]:
    limits = {owner: s.call.merchant_id for s in fresh for _, owner in s.call.budgets}
    owners = sorted({s.call.owner_id for s in fresh} | limits.keys() | more)
    rows = await Q["lock_accounts"].fetch(conn, owner_ids=owners)
    missing = set(owners) - {row["owner_id"] for row in rows}
    if missing and missing <= limits.keys():  # the first use of a limit that was never leased
        await Q["open_limits"].execute(
            conn, owner_ids=sorted(missing), merchant_ids=[limits[o] for o in sorted(missing)]
        )
        rows = await Q["lock_accounts"].fetch(conn, owner_ids=owners)
        missing = set()
    if missing:  # a journal may know more than a database that was restored
        raise StorePoison(f"no credit account: {', '.join(sorted(missing))}")
    return {row["owner_id"]: Purse(row["debt_e10"]) for row in rows}


async def _read(
    conn: Connection, fresh: Sequence[Settlement], accounts: dict[str, Purse]
) -> tuple[Counters, bool]:
    """Units used so far in the batch's tier scopes, and whether there is anybody to tell of it. The
    accounts learn what leases there are."""
    keys = sorted(
        {(s.call.owner_id, s.call.meter.meter_id, s.call.cycle) for s in fresh if s.call.meter}
    )
    [(counters, parts, heard)] = await Q["read_accounts"].fetch(
        conn,
        meter_owners=[k[0] for k in keys],
        meter_ids=[k[1] for k in keys],
        cycles=[k[2] for k in keys],
        owner_ids=list(accounts),
        holder_ids=list({s.call.holder_id for s in fresh}),
        merchant_ids=list({s.call.merchant_id for s in fresh}),
    )
    for owner_id, holder_id, lease_id, seq, grant_id, left_e10 in orjson.loads(parts):
        share = Share(lease_id, seq, grant_id, left_e10)
        accounts[owner_id].leases[holder_id].append(share)
    used = {(k[0], k[1], k[2]): k[3] for k in orjson.loads(counters)}
    return used, heard


def _compute(row: Settlement, counters: Counters) -> Line:
    """The exact charge of one row; advances the counters for the rows behind it."""
    meter = row.call.meter
    if meter is None or row.status == "error":
        return Line(row, 0, NO_CHARGE)
    units = units_of(meter.tariff.unit, row.counts)
    if not row.call.billable:
        return Line(row, units, NO_CHARGE)
    key = (row.call.owner_id, meter.meter_id, row.call.cycle)
    before = counters.get(key, 0)
    counters[key] = before + units
    cost_e10 = row.cost.total_e10 if row.cost else None
    if cost_e10 is None and meter.tariff.rate_type == "percentage":
        return Line(row, units, NO_CHARGE)  # flagged `unpriced` by whoever made the settlement
    return Line(row, units, charge(meter.tariff, before, units, cost_e10))


async def _pay(
    conn: Connection, lines: Sequence[Line], accounts: dict[str, Purse], now: datetime
) -> None:
    """Take what each row uses of its accounts from leases, then grants. What is left of a charge
    is debt; what is left of a limit is recorded as spent beyond it."""
    short = [due for line in lines for due in draw(line, accounts)]
    if short:
        await _load_grants(conn, {due.owner_id for due in short}, accounts, now)
    for due in short:
        account = accounts[due.owner_id]
        rest = due.left_e10 - take(account, account.grants, due.left_e10)
        if due.is_limit:
            account.beyond_e10 += rest
        else:
            account.new_debt_e10 += rest
            due.line.owed_e10 = rest


async def _load_grants(
    conn: Connection, owners: Set[str], accounts: dict[str, Purse], now: datetime
) -> None:
    loaded: dict[str, list[Share]] = {owner_id: [] for owner_id in owners}
    for r in await Q["available_grants"].fetch(conn, owner_ids=sorted(loaded), now=now):
        loaded[r["owner_id"]].append(Share("", 0, r["grant_id"], r["available_e10"]))
    for owner_id, shares in loaded.items():
        accounts[owner_id].grants = shares


async def _write(
    conn: Connection,
    shown: Sequence[tuple[object, ...]],
    added: Counters,
    accounts: dict[str, Purse],
    now: datetime,
) -> None:
    scopes = [key for key, units in added.items() if units]
    taken = [
        share
        for account in accounts.values()
        for shares in account.leases.values()
        for share in shares
        if share.taken_e10
    ]
    await Q["book"].execute(
        conn,
        rows=document(shown),
        now=now,
        owner_ids=[key[0] for key in scopes],
        meter_ids=[key[1] for key in scopes],
        cycles=[key[2] for key in scopes],
        units=[added[key] for key in scopes],
        lease_ids=[s.lease_id for s in taken],
        seqs=[s.seq for s in taken],
        amounts=[s.taken_e10 for s in taken],
    )


async def _write_back(conn: Connection, lines: Sequence[Line], accounts: dict[str, Purse]) -> None:
    free = [s for account in accounts.values() for s in account.grants if s.taken_e10]
    if free:
        await Q["burn_grants"].execute(
            conn, grant_ids=[s.grant_id for s in free], amounts=[s.taken_e10 for s in free]
        )
    owing = sorted((o, a) for o, a in accounts.items() if a.new_debt_e10)
    if owing:
        await Q["change_accounts"].execute(
            conn,
            owner_ids=[owner for owner, _ in owing],
            debts=[a.new_debt_e10 for _, a in owing],
            overdrafts=[-a.overdraft_back_e10 for _, a in owing],
        )
    beyond = sorted((o, a.beyond_e10) for o, a in accounts.items() if a.beyond_e10)
    if beyond:
        await Q["spend_beyond"].execute(
            conn, owner_ids=[o for o, _ in beyond], amounts=[amount for _, amount in beyond]
        )
    made = [(line.settlement, o) for line in lines for o in line.settlement.object_ids]
    if made:
        await Q["insert_objects"].execute(
            conn,
            providers=[s.call.provider for s, _ in made],
            object_ids=[o for _, o in made],
            merchant_ids=[s.call.merchant_id for s, _ in made],
            customer_ids=[s.call.customer_id for s, _ in made],
        )
