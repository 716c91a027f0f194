"""Short words for money tests: a shop with customers, calls and their settlements, the audit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lava_proxy.books.bank import Books
from lava_proxy.core.clock import Clock, SystemClock
from lava_proxy.core.environment import load_settings
from lava_proxy.core.ids import new_id
from lava_proxy.core.settings import Settings
from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.rules.settlement import Booked, Call, Meter, Settlement
from lava_proxy.rules.tiers import RateType, Tariff, Tier, Unit
from lava_proxy.store import credit
from lava_proxy.store.audit import Audit, audit
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk
from lava_proxy.store.database import Database
from lava_proxy.store.settle import settle

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOLDER = "hld_test"
E12 = 10**12
MTOK = 10**6


def meter(
    *tiers: tuple[int, int],
    merchant_id: str = "mer_1",
    rate_type: RateType = "fixed",
    unit: Unit = "tokens_1m",
    meter_id: str = "prd_1",
    overdraft_e10: int = 0,
) -> Meter:
    """A meter of (start, rate_e12) tiers; one that charges 1 unit (10^-10 USD) per token when none
    are given."""
    rows = tuple(Tier(start, rate) for start, rate in tiers or ((0, 100 * MTOK),))
    tariff = Tariff(rate_type, unit, rows)
    return Meter(meter_id, merchant_id, meter_id, tariff, overdraft_e10=overdraft_e10)


UNIT_METER = meter()


@dataclass
class Shop:
    """A merchant, and what its customers do in the database."""

    database: Database
    merchant_id: str
    now: datetime = NOW
    owners: list[str] = field(default_factory=list)

    async def customer(self, *grants_e10: int) -> str:
        owner_id = new_id("customer")
        async with self.database.transaction() as conn:
            await conn.execute(
                "INSERT INTO customers (customer_id, merchant_id) VALUES ($1, $2)",
                owner_id,
                self.merchant_id,
            )
            await conn.execute(
                "INSERT INTO accounts (owner_id, merchant_id) VALUES ($1, $2)",
                owner_id,
                self.merchant_id,
            )
        for amount_e10 in grants_e10:
            await self.grant(owner_id, amount_e10)
        self.owners.append(owner_id)
        return owner_id

    async def grant(
        self,
        owner_id: str,
        amount_e10: int,
        *,
        kind: str = "operator",
        expires_at: datetime | None = None,
        grant_id: str | None = None,
    ) -> str:
        made = grant_id or new_id("credit")
        async with self.database.transaction() as conn:
            await credit.grant(
                conn,
                grant_id=made,
                owner_id=owner_id,
                kind=kind,
                amount_e10=amount_e10,
                expires_at=expires_at,
                note=None,
                now=self.now,
            )
        return made

    async def lease(
        self,
        owner_id: str,
        amount_e10: int,
        *,
        holder_id: str = HOLDER,
        least_e10: int | None = None,
        burn_e10: int = 0,
        overdraft_e10: int = 0,
        lease_id: str | None = None,
    ) -> LeaseAnswer:
        ask = LeaseAsk(
            lease_id or new_id("lease"),
            owner_id,
            holder_id,
            amount_e10 if least_e10 is None else least_e10,
            amount_e10,
            burn_e10,
            overdraft_e10,
            300.0,
        )
        async with self.database.transaction() as conn:
            return await credit.lease(conn, ask, self.now)

    async def give_back(
        self, owner_id: str, amount_e10: int | None = None, holder_id: str = HOLDER
    ) -> int:
        async with self.database.transaction() as conn:
            return await credit.give_back(conn, owner_id, holder_id, amount_e10, self.now)

    async def withdraw(self, owner_id: str, amount_e10: int) -> None:
        async with self.database.transaction() as conn:
            await credit.withdraw(conn, owner_id=owner_id, amount_e10=amount_e10, now=self.now)

    async def settle(self, *rows: Settlement) -> list[Booked]:
        async with self.database.transaction() as conn:
            return await settle(conn, rows, self.now)

    async def grants(self, owner_id: str) -> list[tuple[int, int, int, int, int]]:
        """(available, leased, spent, expired, withdrawn) of each grant, oldest first."""
        rows = await fetch(
            self.database,
            "SELECT available_e10, leased_e10, spent_e10, expired_e10, withdrawn_e10 "
            "FROM credit_grants WHERE owner_id = $1 ORDER BY created_at, grant_id",
            owner_id,
        )
        return [tuple(row) for row in rows]  # type: ignore[misc]

    async def debt(self, owner_id: str) -> tuple[int, int]:
        """(debt, leased overdraft)"""
        (row,) = await fetch(
            self.database,
            "SELECT debt_e10, overdraft_leased_e10 FROM accounts WHERE owner_id = $1",
            owner_id,
        )
        return row[0], row[1]

    async def ledger(self, account: str) -> int:
        (row,) = await fetch(
            self.database,
            "SELECT coalesce(sum(amount_e10), 0)::bigint FROM ledger_entries WHERE account = $1",
            account,
        )
        total: int = row[0]
        return total

    async def left_of(self, owner_id: str, holder_id: str = HOLDER) -> int:
        """What the database says is left of a holder's leases."""
        (row,) = await fetch(
            self.database,
            "SELECT coalesce(sum(p.left_e10), 0)::bigint FROM leases l JOIN lease_parts p "
            "USING (lease_id) WHERE l.owner_id = $1 AND l.holder_id = $2 AND l.closed_at IS NULL",
            owner_id,
            holder_id,
        )
        left: int = row[0]
        return left

    async def units(self, owner_id: str) -> dict[tuple[str, str], int]:
        rows = await fetch(
            self.database,
            "SELECT meter_id, cycle, units FROM usage_counters WHERE owner_id = $1",
            owner_id,
        )
        return {(row[0], row[1]): row[2] for row in rows}


async def open_shop(database: Database) -> Shop:
    merchant_id = new_id("merchant")
    async with database.transaction() as conn:
        await conn.execute(
            "INSERT INTO merchants (merchant_id, name) VALUES ($1, 'm')", merchant_id
        )
        await conn.execute(
            "INSERT INTO accounts (owner_id, merchant_id) VALUES ($1, $1)", merchant_id
        )
    return Shop(database, merchant_id)


async def fetch(database: Database, query: str, *args: object) -> list[tuple[object, ...]]:
    async with database.connection() as conn:
        return [tuple(row.values()) for row in await conn.fetch(query, *args)]


def row(  # every argument has the plainest default
    owner_id: str,
    tokens: int = 10,
    *,
    shop: Shop | str,
    by: Meter | None = UNIT_METER,
    request_id: str | None = None,
    holder_id: str = HOLDER,
    customer: bool = True,
    billable: bool = True,
    cost_e10: int | None = 0,
    status: str = "completed",
    cycle: str = "2026-11",
    model: str | None = "m",
    outcome: str = "completed",
    content_hash: bytes | None = None,
    object_ids: tuple[str, ...] = (),
    metadata: dict[str, str] | None = None,
) -> Settlement:
    """A settlement of a call that used `tokens`."""
    return Settlement(
        call=make_call(
            owner_id,
            shop=shop,
            by=by,
            request_id=request_id,
            holder_id=holder_id,
            customer=customer,
            billable=billable,
            cycle=cycle,
            model=model,
            metadata=metadata,
        ),
        outcome=outcome,  # type: ignore[arg-type]
        usage_source="provider",
        counts=Counts(input_tokens=tokens),
        cost=None if cost_e10 is None else Cost(cost_e10, 0, cost_e10),
        model=model,
        status=status,  # type: ignore[arg-type]
        completed_at=NOW,
        content_hash=content_hash,
        object_ids=object_ids,
    )


def make_call(
    owner_id: str,
    *,
    shop: Shop | str,
    by: Meter | None = UNIT_METER,
    request_id: str | None = None,
    holder_id: str = HOLDER,
    customer: bool = True,
    billable: bool = True,
    cycle: str = "2026-11",
    model: str | None = "m",
    metadata: dict[str, str] | None = None,
    input_tokens: int = 0,
) -> Call:
    return Call(
        request_id=request_id or new_id("request"),
        merchant_id=shop if isinstance(shop, str) else shop.merchant_id,
        holder_id=holder_id,
        owner_id=owner_id,
        customer_id=owner_id if customer else None,
        meter=by,
        cycle=cycle,
        billable=billable,
        provider="openai",
        provider_key_type="managed",
        model=model,
        endpoint="POST https://api.openai.com/v1/chat/completions",
        stream=True,
        created_at=NOW,
        metadata=metadata,
        input_tokens=input_tokens,
    )


async def sound(database: Database) -> Audit:
    """The books, which must be sound."""
    found = await audit(database)
    assert found.differences == ()
    assert found.sound
    return found


async def insert_meter(database: Database, shop: Shop, made: Meter) -> None:
    """Make `made` known to the database (replay and the directory look there)."""
    async with database.connection() as conn:
        await conn.execute(
            "INSERT INTO meters (meter_id, merchant_id, slug, name, rate_type, tier_type, tiers, "
            "enforcement, overdraft_e10) VALUES ($1, $2, $3, $3, $4, $5, $6, $7, $8)",
            made.meter_id,
            shop.merchant_id,
            made.slug,
            made.tariff.rate_type,
            made.tariff.unit,
            [[tier.start, tier.rate_e12] for tier in made.tariff.tiers],
            made.enforcement,
            made.overdraft_e10,
        )


def settings_of(folder: object, **changes: object) -> Settings:
    return Settings(
        **{"data_dir": folder, "writer_interval_ms": 1, "recall_wait_s": 0.0, **changes}
    )  # type: ignore[arg-type]


def make_books(
    database: Database,
    clock: Clock,
    folder: object,
    on_booked: Callable[[Sequence[tuple[Settlement, Booked]]], None] = lambda rows: None,
    **changes: object,
) -> Books:
    return Books(
        settings_of(folder, **changes),
        database,
        clock,
        on_flush=lambda rows, seconds: None,
        on_booked=on_booked,
    )


@asynccontextmanager
async def opened(database: Database, folder: Path) -> AsyncIterator[Books]:
    """Books with the settings users have, writing for as long as this lasts."""
    made = Books(
        load_settings({}, data_dir=folder),
        database,
        SystemClock(),
        on_flush=lambda rows, seconds: None,
        on_booked=lambda rows: None,
    )
    await made.open()
    yield made
    await made.close()


async def until(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    """For what has no event of its own."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0)


def total(rows: Sequence[Booked]) -> int:
    return sum(booked.charge_e10 for booked in rows)
