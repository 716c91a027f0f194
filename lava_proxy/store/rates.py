"""Token buckets in PostgreSQL: workers draw a few permits at a time and say which they used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lava_proxy.rules.bucket import E6, next_token_us, refill
from lava_proxy.rules.limits import Rate
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("rates")


@dataclass(frozen=True, slots=True)
class Draw:
    """What a worker got: new permits, how long until the next token, and whether others have
    permits that they may not need."""

    permits: int
    wait_s: float
    elsewhere: int


async def draw(
    conn: Connection,
    *,
    owner_id: str,
    holder_id: str,
    rate: Rate,
    kept: int,
    used_us: Sequence[int],
    want: int,
    lease_s: float,
) -> Draw:
    """Report `used_us` (ages of uses), keep `kept` unused permits and take up to `want` more.
    Inside the caller's transaction. A worker that asks again after a lost answer reports the same
    uses and loses the permits of that answer: never too many start."""
    await Q["open_bucket"].execute(conn, owner_id=owner_id, tokens=rate.capacity * E6)
    bucket = await Q["lock_bucket"].fetchrow(conn, owner_id=owner_id)
    if bucket is None:
        raise LookupError("no bucket")
    lapsed = [
        row["age_us"]
        for row in await Q["lapse_permits"].fetch(conn, owner_id=owner_id)
        for _ in range(row["permits"])
    ]
    out = await Q["permits_out"].fetchrow(conn, owner_id=owner_id, holder_id=holder_id)
    if out is None:
        raise LookupError("no sum")
    age_us = max(0, bucket["age_us"])
    ours, others = out["ours"], out["others"]
    kept = min(kept, ours)  # what lapsed here is not ours any more
    used = list(used_us[: ours - kept])
    total = ours + others + len(lapsed)
    tokens_e6, _ = refill(bucket["tokens_e6"], total, age_us, used + lapsed, rate)
    returned = ours - kept - len(used)
    tokens_e6 = min(tokens_e6 + returned * E6, max(0, rate.capacity - kept - others) * E6)
    new = min(want, tokens_e6 // E6)
    tokens_e6 -= new * E6
    await _keep_permits(conn, owner_id, holder_id, kept + new, lease_s)
    await Q["keep_bucket"].execute(conn, owner_id=owner_id, tokens=tokens_e6, after_us=age_us)
    wait_us = next_token_us(tokens_e6, rate)
    return Draw(new, wait_us / E6, others)


async def _keep_permits(
    conn: Connection, owner_id: str, holder_id: str, permits: int, lease_s: float
) -> None:
    if not permits:
        await Q["forget_permits"].execute(conn, owner_id=owner_id, holder_id=holder_id)
        return
    await Q["keep_permits"].execute(
        conn, owner_id=owner_id, holder_id=holder_id, permits=permits, lease_s=lease_s
    )
