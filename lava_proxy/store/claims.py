"""What only one row may be: the first with its request id, the first with an object's usage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("settle")


async def claim_ids(conn: Connection, batch: Sequence[Settlement]) -> list[int]:
    """Places in the batch whose request ids were new."""
    rows = await Q["claim_request_ids"].fetch(
        conn,
        merchant_ids=[s.call.merchant_id for s in batch],
        request_ids=[s.call.request_id for s in batch],
        created_ats=[s.call.created_at for s in batch],
        content_hashes=[s.content_hash for s in batch],
    )
    new = {(row[0], row[1]) for row in rows}
    fresh = []
    for place, settlement in enumerate(batch):
        key = (settlement.call.merchant_id, settlement.call.request_id)
        if key in new:
            new.discard(key)  # a batch may hold the same id twice: the first one is booked
            fresh.append(place)
    return fresh


async def claim_objects(conn: Connection, fresh: list[Settlement]) -> list[Settlement]:
    """A response that is read by its id states its usage again: it is charged only once. A read
    that finds it charged is free; so is the call that made it, should a read have been faster. (A
    maker that finds another maker's claim is charged: not every provider's ids are unique.)"""
    keys = [_object(s) for s in fresh if s.metered_object]
    if not keys:
        return fresh
    new = await _ask("claim_objects", conn, keys)
    late = [_object(s) for s in fresh if s.metered_object and not s.reads_object]
    late = [key for key in late if key not in new]
    read = await _ask("read_objects", conn, late) if late else set()
    once, reads = [], []
    for row in fresh:
        if not row.metered_object:
            once.append(row)
            continue
        key = _object(row)
        charged = key in new or not (row.reads_object or key in read)
        new.discard(key)
        if charged and row.reads_object:
            reads.append(key)
            read.add(key)
        once.append(row if charged else _free(row))
    if reads:
        await Q["note_read_objects"].execute(conn, **_columns(reads))
    return once


Key = tuple[str, str]


def _object(row: Settlement) -> Key:
    return row.call.provider, row.metered_object or ""


def _columns(keys: Sequence[Key]) -> dict[str, list[str]]:
    return {"providers": [key[0] for key in keys], "object_ids": [key[1] for key in keys]}


async def _ask(query: str, conn: Connection, keys: Sequence[Key]) -> set[Key]:
    rows = await Q[query].fetch(conn, **_columns(keys))
    return {(row[0], row[1]) for row in rows}


def _free(row: Settlement) -> Settlement:
    call = replace(row.call, billable=False)
    flags = (*row.flags, "metered_before")
    return replace(row, call=call, counts=Counts(), cost=Cost(0, 0, 0), flags=flags)
