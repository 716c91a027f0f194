"""``python -m benchmarks.writer``: settled requests per second through the real writer.

Every row has its ledger entries, its tier counter, its quarter of an hour, and is paid from a
lease, on the embedded PostgreSQL. Rows are queued as fast as they can be booked (a closed loop with
a bounded queue), so the figure is what the writer sustains, database and all, on this machine.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from lava_proxy.books.writer import Item, Writer
from lava_proxy.core.clock import SystemClock
from lava_proxy.core.ids import new_id
from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.rules.settlement import Call, Meter, Settlement, calendar_cycle
from lava_proxy.rules.tiers import Tariff, Tier
from lava_proxy.store import credit
from lava_proxy.store.audit import audit
from lava_proxy.store.credit import LeaseAsk
from lava_proxy.store.database import Database
from lava_proxy.store.embedded import start_embedded
from lava_proxy.store.migrate import migrate

ROWS = 20_000
CUSTOMERS = 1000
QUEUE_ROWS = 2000
HOLDER = "hld_bench"
CREDIT_E10 = 10**13


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement."""

    customers: int
    batch_rows: int
    rows_s: float
    gateway_us: float
    """CPU of this process per row."""
    depth: int
    """Rows that waited in the middle of the run."""
    batch_ms: float


async def prepare(database: Database, merchant_id: str, count: int) -> tuple[list[str], Meter]:
    """Customers with leased credit, and a meter with two tiers."""
    owners = [new_id("customer") for _ in range(count)]
    tiers = (Tier(0, 10**12), Tier(10**9, 9 * 10**11))
    meter = Meter(new_id("meter"), merchant_id, "m", Tariff("fixed", "tokens_1m", tiers))
    async with database.transaction() as conn:
        await conn.execute(
            "INSERT INTO accounts (owner_id, merchant_id) SELECT o, $2 FROM unnest($1::text[]) o",
            owners,
            merchant_id,
        )
        await conn.execute(
            "INSERT INTO meters (meter_id, merchant_id, slug, name, rate_type, tier_type, tiers) "
            "VALUES ($1, $2, $1, 'm', 'fixed', 'tokens_1m', '[]')",
            meter.meter_id,
            merchant_id,
        )
    now = datetime.now(UTC)
    for owner_id in owners:
        async with database.transaction() as conn:
            await credit.grant(
                conn, grant_id=new_id("credit"), owner_id=owner_id, kind="operator",
                amount_e10=CREDIT_E10, expires_at=None, note=None, now=now,
            )  # fmt: skip
            ask = LeaseAsk(new_id("lease"), owner_id, HOLDER, 1, CREDIT_E10, 0, 0, 3600.0)
            await credit.lease(conn, ask, now)
    return owners, meter


def settlement(merchant_id: str, owner_id: str, meter: Meter) -> Settlement:
    """A call as the gateway settles it."""
    now = datetime.now(UTC)
    call = Call(
        request_id=new_id("request"), merchant_id=merchant_id, holder_id=HOLDER, owner_id=owner_id,
        customer_id=owner_id, meter=meter, cycle=calendar_cycle(now), billable=True,
        provider="openai", provider_key_type="managed", model="gpt-4o-mini",
        endpoint="POST https://api.openai.com/v1/chat/completions", stream=True, created_at=now,
        metadata={"feature": "chat"}, input_tokens=230,
    )  # fmt: skip
    return Settlement(
        call=call, outcome="completed", usage_source="provider", counts=Counts(230, 110),
        cost=Cost(345_000, 660_000, 1_005_000), model="gpt-4o-mini-2024-07-18",
        price_version="genai-prices", completed_at=now, duration_ms=900, first_byte_ms=300,
    )  # fmt: skip


async def measure(database: Database, customers: int, batch_rows: int) -> Result:
    """Book `ROWS` rows and say how it went."""
    merchant_id = new_id("merchant")
    insert = "INSERT INTO merchants (merchant_id, name) VALUES ($1, 'b')"
    async with database.transaction() as conn:
        await conn.execute(insert, merchant_id)
    owners, meter = await prepare(database, merchant_id, customers)
    booked, batches, depths = 0, [0.0], [0]

    def on_booked(batch: Sequence[object]) -> None:
        nonlocal booked
        booked += len(batch)

    writer = Writer(
        database, SystemClock(), interval_s=0.05, batch_rows=batch_rows, queue_rows=10**6,
        on_booked=on_booked, on_flush=lambda _, seconds: batches.append(seconds),
        catch_up_rows_s=10**6,
    )  # fmt: skip
    rows = [settlement(merchant_id, owners[n % customers], meter) for n in range(ROWS)]
    task = asyncio.create_task(writer.run())
    began_s, cpu_s = time.monotonic(), time.process_time()
    for number, row in enumerate(rows):
        writer.put(Item(row, None, 0, time.monotonic()))
        if writer.depth >= QUEUE_ROWS:
            depths.append(writer.depth)
            while writer.depth >= QUEUE_ROWS // 2:
                await asyncio.sleep(0.002)
        elif number % 100 == 0:
            await asyncio.sleep(0)
    await writer.flush()
    took_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
    writer.close()
    await task
    assert booked == ROWS
    middle = sorted(batches)[len(batches) // 2]
    return Result(
        customers, batch_rows, ROWS / took_s, cpu_s / ROWS * 1e6, max(depths), middle * 1000
    )


async def main() -> None:
    """Measure the four cases, prove the books, print a table."""
    with tempfile.TemporaryDirectory(prefix="bench-writer-") as folder:
        server = await start_embedded(Path(folder))
        try:
            await migrate(server.url)
            database = Database(server.url)
            await database.open()
            print(f"{ROWS} rows each, {os.cpu_count()} cores, embedded PostgreSQL\n")
            print("| customers | batch | rows/s | gateway CPU us/row | batch ms | queue at most |")
            print("|---|---|---|---|---|---|")
            for customers in (CUSTOMERS, 1):
                for batch_rows in (50, 200):
                    r = await measure(database, customers, batch_rows)
                    print(
                        f"| {r.customers} | {r.batch_rows} | {r.rows_s:,.0f} | {r.gateway_us:.1f}"
                        f" | {r.batch_ms:.1f} | {r.depth} |", flush=True,
                    )  # fmt: skip
            found = await audit(database)
            print(f"\n{found.requests} rows audited: {'sound' if found.sound else 'NOT SOUND'}")
            await database.close()
        finally:
            await server.release()


if __name__ == "__main__":
    uvloop.run(main())
