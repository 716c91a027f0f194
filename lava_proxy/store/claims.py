"""What only one row may be: the first with its request id, the first with an object's usage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.rules.rerating import METERED_BEFORE
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
    """A response that is read by its id states its usage again: that is charged only once."""
    objects = [(s.call.provider, s.metered_object) for s in fresh if s.metered_object]
    if not objects:
        return fresh
    rows = await Q["claim_objects"].fetch(
        conn, providers=[o[0] for o in objects], object_ids=[o[1] for o in objects]
    )
    new = {(row[0], row[1]) for row in rows}
    once = []
    for row in fresh:
        key = (row.call.provider, row.metered_object or "")
        if not row.reads_object or key in new:
            new.discard(key)
            once.append(row)
            continue
        call = replace(row.call, billable=False)
        flags = (*row.flags, METERED_BEFORE)
        once.append(replace(row, call=call, counts=Counts(), cost=Cost(0, 0, 0), flags=flags))
    return once
