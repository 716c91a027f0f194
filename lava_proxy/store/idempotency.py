"""Idempotency keys: who used one for what, and what they were answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from lava_proxy.store.database import Connection, StoreConflict
from lava_proxy.store.sql import load

Q = load("idempotency")

KEPT = timedelta(days=30)

TRIES = 3
"""A taken key that is given back before we read it is free again."""


@dataclass(frozen=True, slots=True)
class Used:
    """A key that was used before; `status` is 0 while its work has no answer yet."""

    body_hash: bytes
    status: int
    answer: bytes
    created_at: datetime


async def claim(
    conn: Connection, merchant_id: str, key: str, body_hash: bytes, now: datetime
) -> Used | None:
    """Take a key; None means that it is ours, else what it was used for within `KEPT`.

    Within a transaction nobody else can have it before our commit; a rollback gives it back.
    """
    for _ in range(TRIES):
        taken = await Q["claim_key"].fetchval(
            conn, merchant_id=merchant_id, key=key, body_hash=body_hash, now=now, oldest=now - KEPT
        )
        if taken is not None:
            return None
        row = await Q["find_key"].fetchrow(conn, merchant_id=merchant_id, key=key)
        if row is not None:
            return Used(**dict(row))
    raise StoreConflict("the idempotency key is being taken and given back all the time")


async def answer(conn: Connection, merchant_id: str, key: str, status: int, body: bytes) -> None:
    """Keep the answer for those who repeat the request."""
    await Q["answer_key"].execute(
        conn, merchant_id=merchant_id, key=key, status=status, answer=body
    )


async def free(conn: Connection, merchant_id: str, key: str, body_hash: bytes) -> None:
    """Give a key back whose work failed for good."""
    await Q["free_key"].execute(conn, merchant_id=merchant_id, key=key, body_hash=body_hash)


async def prune(conn: Connection, now: datetime) -> None:
    """Forget keys that are free again anyway."""
    await Q["prune_keys"].execute(conn, oldest=now - KEPT)
