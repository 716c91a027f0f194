"""Replay: what a dead process wrote in its journal becomes rows in the books.

For every call the last thing known decides:

    SETTLE                 booked as it stands
    HOLD, SENT, PROGRESS   outcome ``recovered``, charged at the last PROGRESS
    HOLD, SENT             ``recovered``, charged at the input estimate: the provider may have it
    HOLD alone             void: nothing was sent

Of a stored response (`Call.object_id`) that is a part: the rest is charged when it is read. Booked
is also whose it is.

Replaying twice, or a copied folder, changes nothing: request ids are booked once. Only after the
commit are the dead process's leases closed and its folder deleted. A folder of which a part cannot
be read is not deleted but put aside.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import stamina

from lava_adapters.contract import Usage
from lava_proxy.books import segment as wal
from lava_proxy.books.codec import decode_call, decode_result, meter_id_of
from lava_proxy.books.folder import abandoned, claim_folder, keep_folder, remove_folder
from lava_proxy.books.journal import read_folder
from lava_proxy.books.quarantine import hold_back, set_apart
from lava_proxy.core.clock import Clock
from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import PRICE_ASSUMED, UNPRICED, cost
from lava_proxy.rules.pricebook import PriceBook, price_of
from lava_proxy.rules.settlement import BACKGROUND, Booked, Call, Meter, Settlement
from lava_proxy.store import credit
from lava_proxy.store import directory as directory_store
from lava_proxy.store.database import Database, StoreConflict
from lava_proxy.store.faults import POISON
from lava_proxy.store.settle import settle

log = logging.getLogger(__name__)

BATCH_ROWS = 200
CALLS_AT_A_TIME = 16
RECORDS_AT_A_TIME = 250
CONFLICTS_MAX = 8
"""Others may be busy with the same customers."""


@dataclass(slots=True)
class _Trace:
    """What the journal says of one call."""

    hold: bytes = b""
    sent: bool = False
    counts: tuple[int, int, int, int] | None = None
    result: bytes = b""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one folder came to."""

    holder_id: str
    calls: int
    booked: int
    void: int
    damaged: tuple[str, ...] = ()
    """Files that hold more than could be read."""


async def take_over(
    journals_dir: Path, database: Database, clock: Clock, prices: PriceBook
) -> list[Replayed]:
    """Replay every folder whose process is dead, close its leases and remove it."""
    done = [await take_one(folder, database, clock, prices) for folder in abandoned(journals_dir)]
    return [replayed for replayed in done if replayed is not None]


async def take_one(
    folder: Path,
    database: Database,
    clock: Clock,
    prices: PriceBook,
    *,
    beside_calls: bool = False,
) -> Replayed | None:
    """The same for one folder; None when its process lives, or somebody else is at it or done."""
    lock_fd = claim_folder(folder)
    if lock_fd is None:
        return None
    try:
        replayed = await replay_folder(folder, database, clock, prices, beside_calls=beside_calls)
        if replayed.damaged:
            log.error("journal %s is kept in %s", folder.name, keep_folder(folder))
        else:
            remove_folder(folder)
        return replayed
    finally:
        os.close(lock_fd)


async def replay_folder(
    folder: Path,
    database: Database,
    clock: Clock,
    prices: PriceBook,
    *,
    beside_calls: bool = False,
) -> Replayed:
    """Book what a folder holds and close its holder's leases. The caller has the folder's lock.
    The folder stays: deleting it late is safe. `beside_calls`: streams run in this process, and
    are not held up."""
    traces, damaged = await _traces(folder, RECORDS_AT_A_TIME if beside_calls else None)
    known = [trace for trace in traces.values() if trace.hold]  # the others were committed
    meters = await _meters(database, known)
    rows: list[Settlement] = []
    void = 0
    for number, trace in enumerate(known):
        if beside_calls and number % CALLS_AT_A_TIME == 0:
            await asyncio.sleep(0)
        meter_id = meter_id_of(trace.hold)
        call = decode_call(trace.hold, folder.name, meters.get(meter_id or ""))
        if not (trace.result or trace.sent or trace.counts):
            void += 1
            continue
        row = (
            decode_result(trace.result, call)
            if trace.result
            else _recovered(call, trace, clock, prices)
        )
        if meter_id is not None and call.meter is None:
            error = LookupError(f"there is no meter {meter_id}")
            await hold_back(database, row, error, _known_e10(row), clock.now(), trace.hold)
        else:
            rows.append(row)
    booked = await _book(database, clock, rows)
    async with database.transaction() as conn:
        await credit.close_holder(conn, folder.name, clock.now())
    fresh = sum(1 for row in booked if row.fresh)
    if known:
        log.warning("replayed %s: %d calls, %d booked now", folder.name, len(known), fresh)
    if damaged:
        log.error("journal %s: %s cannot be read to the end", folder.name, ", ".join(damaged))
    return Replayed(folder.name, len(known), fresh, void, tuple(damaged))


async def _traces(folder: Path, at_a_time: int | None) -> tuple[dict[int, _Trace], list[str]]:
    """What is known of each call, and the files that are damaged. After `at_a_time` records others
    have their turn; a file is read in one go (10 ms)."""
    traces: dict[int, _Trace] = {}
    damaged: list[str] = []
    for number, record in enumerate(read_folder(folder, damaged)):
        if at_a_time and number % at_a_time == 0:
            await asyncio.sleep(0)
        trace = traces.setdefault(record.seq, _Trace())
        if record.kind == wal.HOLD:
            trace.hold = record.facts
        elif record.kind == wal.SENT:
            trace.sent = True
        elif record.kind == wal.PROGRESS:
            trace.counts = record.counts
        else:
            trace.result = record.facts
    return traces, damaged


def _recovered(call: Call, trace: _Trace, clock: Clock, prices: PriceBook) -> Settlement:
    inputs, outputs, input_characters, output_characters = trace.counts or (
        call.input_tokens,
        0,
        call.input_characters,
        0,
    )
    policy = call.meter.unpriced if call.meter else "refuse"
    price = price_of(
        prices.of(call.merchant_id), policy, call.provider, (call.model,), call.created_at
    )
    flags = [UNPRICED] if price is None else [PRICE_ASSUMED] if price.assumed else []
    response_id = call.object_id
    if call.runs_on:
        flags.append(BACKGROUND)
    reads = response_id is not None and f"/{response_id}" in call.endpoint
    managed = call.provider_key_type == "managed"
    usage = Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        input_characters=input_characters,
        input_ms=call.input_ms or None,
    )
    return Settlement(
        call=call,
        outcome="recovered",
        usage_source="estimate",
        counts=Counts(inputs, outputs, input_characters, output_characters, call.input_ms),
        cost=None if price is None else cost(price.rates, usage),
        model=call.model,
        price_version=None if price is None else price.version,
        flags=tuple(flags),
        completed_at=clock.now(),
        response_id=response_id,
        metered_object=response_id,
        metered="part",
        reads_object=reads,
        keeps=call.keeps,  # and what was streamed is charged beside it
        keeps_s=call.keeps_s,
        object_ids=(response_id,) if response_id is not None and managed and not reads else (),
    )


async def _meters(database: Database, traces: Sequence[_Trace]) -> dict[str, Meter]:
    meters: dict[str, Meter] = {}
    for meter_id in sorted({meter_id_of(trace.hold) or "" for trace in traces} - {""}):
        async with database.connection() as conn:
            meter = await directory_store.meter_by_id(conn, meter_id)
        if meter is not None:
            meters[meter_id] = meter
    return meters


async def _book(database: Database, clock: Clock, rows: Sequence[Settlement]) -> list[Booked]:
    booked: list[Booked] = []
    for start in range(0, len(rows), BATCH_ROWS):
        booked += await _book_batch(database, clock, rows[start : start + BATCH_ROWS])
    return booked


async def _book_batch(database: Database, clock: Clock, rows: Sequence[Settlement]) -> list[Booked]:
    """One transaction, or those of its halves: a row that is poison is set apart alone, because a
    journal that cannot be replayed would keep every process from starting."""
    try:
        retries = stamina.retry_context(on=StoreConflict, attempts=CONFLICTS_MAX, wait_max=1.0)
        async for attempt in retries:
            with attempt:
                async with database.transaction() as conn:
                    return await settle(conn, rows, clock.now())
    except POISON as error:
        if len(rows) == 1:
            most_e10 = _known_e10(rows[0])
            return [await set_apart(database, rows[0], error, most_e10, clock.now())]
    half = len(rows) // 2
    left = await _book_batch(database, clock, rows[:half])
    return left + await _book_batch(database, clock, rows[half:])


def _known_e10(row: Settlement) -> int:
    """What is known of a charge that cannot be computed: HOLD does not say what was held."""
    return row.cost.total_e10 if row.cost else 0
