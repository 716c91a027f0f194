"""The books against what really happened: the provider knows what ran, the client what it got."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

import asyncpg
from rig_kit import TOKEN_E10, Got

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.audit import Audit, audit
from lava_proxy.store.database import Database

UNCHARGED = ("void", "upstream_error")


async def check_books(
    database: Database,
    sim: SimulatedProvider,
    seen: Iterable[Got],
    customer_ids: Sequence[str],
    *,
    debt: bool = False,
) -> tuple[Audit, list[asyncpg.Record]]:
    """Every call that ran is booked once, for what it delivered, and the books are sound. Answers
    the audit and the rows."""
    async with database.connection() as conn:
        rows = await conn.fetch(
            "SELECT * FROM requests WHERE customer_id = ANY($1::text[])", list(customer_ids)
        )
    by_mark = {row["metadata"]["mark"]: row for row in rows}
    assert len(by_mark) == len(rows), "a call is booked twice"
    ran = Counter(json.loads(request.body)["user"] for request in sim.requests)
    assert max(ran.values()) == 1, "a call ran twice upstream"
    made = {json.loads(r.body)["user"]: r.tokens_sent for r in sim.requests}
    got = {one.mark: one for one in seen}
    lost = [mark for mark in ran if mark not in by_mark]
    assert not lost, f"{lost} ran and are not in the books"
    for mark in ran:
        row, client = by_mark[mark], got.get(mark)
        if row["outcome"] in UNCHARGED:
            continue
        assert row["charge_e10"] == (row["input_tokens"] + row["output_tokens"]) * TOKEN_E10
        delivered = client.tokens if client else 0
        assert row["output_tokens"] >= delivered, f"{mark}: delivered more than was billed"
        assert row["output_tokens"] <= max(made[mark], delivered) * 1.1 + 1, f"{mark}: overbilled"
    found = await audit(database)
    assert found.sound, found.differences
    assert debt or found.debt_e10 == 0
    return found, rows


def refusals(seen: Iterable[Got]) -> Counter[int]:
    """What came back, by status; a 503 says when to try again, and no other refusal may come."""
    for one in seen:
        assert one.status in (0, 200, 503), f"{one.mark}: {one.status}"
        assert one.status != 503 or one.may_retry, f"{one.mark}: 503 without Retry-After"
    return Counter(one.status for one in seen)
