"""What only one row may be: the first with its request id; and what rows of one object share.

A stored response states its usage whenever it is read, and a part of it may be paid for before the
whole is known: its stream was left early, or it was read while it still ran. So for each object it
is remembered what was booked, and a row that names it is booked for the difference. That holds in
whatever order rows come, from whichever worker or journal, because they come one after another
through the object's row:

    a read             pays what it saw beyond all that was booked; nothing once the whole is
    what made it       pays what it saw beyond what reads have paid before it
    a later stretch    (a stream taken up in its middle) pays for itself

What a row saw too much of (an estimate) is set against its other side, and never paid back. Makers
do not share with each other: not every provider's ids are unique.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from lava_proxy.rules.charge import Counts
from lava_proxy.rules.price import Cost
from lava_proxy.rules.rerating import METERED_BEFORE
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.database import Connection
from lava_proxy.store.lines import document
from lava_proxy.store.sql import load

Q = load("settle")


async def claim_ids(conn: Connection, batch: Sequence[Settlement]) -> list[int]:
    """Places in the batch whose request ids were new."""
    claims = [
        (
            s.call.merchant_id,
            s.call.request_id,
            s.call.created_at,
            None if s.content_hash is None else s.content_hash.hex(),
        )
        for s in batch
    ]
    new = await Q["claim_request_ids"].fetchval(conn, claims=document(claims), most=len(batch))
    if new is None:
        return list(range(len(batch)))
    left = {(merchant_id, request_id) for merchant_id, request_id in orjson.loads(new)}
    fresh = []
    for place, settlement in enumerate(batch):
        key = (settlement.call.merchant_id, settlement.call.request_id)
        if key in left:
            left.discard(key)  # a batch may hold the same id twice: the first one is booked
            fresh.append(place)
    return fresh


Key = tuple[str, str]
Amounts = tuple[int, ...]
"""Tokens, characters and milliseconds, each in and out; cost in, out and in total."""
NOTHING: Amounts = (0,) * 9


@dataclass(slots=True)
class _Object:
    """What is booked of one object."""

    final: bool
    booked: Amounts
    unclaimed: Amounts
    kept: bool
    over: bool

    def book(self, row: Settlement) -> Settlement:
        """`row` with what it has to pay; in the order of booking."""
        seen = _amounts(row)
        if not row.reads_object:
            due = _beyond(seen, self.unclaimed)
            paid = _sum(self.unclaimed, due)
            self.booked = tuple(map(max, self.booked, paid))
            self.unclaimed = NOTHING
        else:
            before = NOTHING if row.metered == "stretch" else self.booked
            due = NOTHING if self.final else _beyond(seen, before)
            self.booked = _sum(self.booked, due)
            self.unclaimed = _sum(self.unclaimed, due)
        self.final = self.final or row.metered == "whole"
        self.over = self.over or self.final or row.object_over
        return row if due == seen else _paying(row, due)


async def claim_objects(
    conn: Connection, fresh: list[Settlement]
) -> tuple[list[Settlement], list[Settlement]]:
    """The rows with what they have to pay: of those that name an object, what is not booked yet.
    And those that end the wait of money for their object."""
    keys = {_key(s) for s in fresh if s.metered_object}
    if not keys:
        return fresh, []
    rows = await Q["claim_objects"].fetch(
        conn, providers=[key[0] for key in keys], object_ids=[key[1] for key in keys]
    )
    known = {(r[0], r[1]): _Object(r[2], _read(r[3]), _read(r[4]), r[5], r[6]) for r in rows}
    booked = [known[_key(row)].book(row) if row.metered_object else row for row in fresh]
    over: dict[Key, Settlement] = {}
    for place, row in enumerate(booked):
        made = known.get(_key(row))
        if made is None:
            continue
        if made.kept and made.over:
            made.kept = False
            over[_key(row)] = row
        if row.keeps and made.over:
            booked[place] = replace(row, keeps=())
        elif row.keeps:
            made.kept = True
    shown = [
        {"provider": key[0], "object_id": key[1]}
        | {name: getattr(made, name) for name in _Object.__slots__}
        for key, made in known.items()
    ]
    await Q["keep_objects"].execute(conn, rows=orjson.dumps(shown).decode())
    return booked, list(over.values())


def _key(row: Settlement) -> Key:
    return row.call.provider, row.metered_object or ""


def _amounts(row: Settlement) -> Amounts:
    counts, cost = row.counts, row.cost or Cost(0, 0, 0)
    return (
        counts.input_tokens,
        counts.output_tokens,
        counts.input_characters,
        counts.output_characters,
        counts.input_ms,
        counts.output_ms,
        cost.input_e10,
        cost.output_e10,
        cost.total_e10,
    )


def _read(amounts: Sequence[int]) -> Amounts:
    return tuple(amounts) or NOTHING


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _beyond(seen: Amounts, before: Amounts) -> Amounts:
    """What `seen` has beyond `before`. In and out add up, so one has less where the other was too
    much before."""
    more = [a - b for a, b in zip(seen, before, strict=True)]
    for given, made in ((0, 1), (2, 3), (4, 5)):
        both = max(0, more[given] + more[made])
        more[given] = min(max(0, more[given]), both)
        more[made] = both - more[given]
    total = max(0, more[8])
    more[6] = min(max(0, more[6]), total)
    more[7] = min(max(0, more[7]), total - more[6])
    return (*more[:8], total)


def _paying(row: Settlement, due: Amounts) -> Settlement:
    """`row`, for no more than is due."""
    call = row.call if any(due) else replace(row.call, billable=False)
    return replace(
        row,
        call=call,
        counts=Counts(*due[:6]),
        cost=Cost(due[6], due[7], due[8]) if row.cost is not None or not any(due) else None,
        cache_read_tokens=min(row.cache_read_tokens, due[0]),
        cache_write_tokens=min(row.cache_write_tokens, due[0]),
        reasoning_tokens=min(row.reasoning_tokens, due[1]),
        flags=(*row.flags, METERED_BEFORE),
    )
