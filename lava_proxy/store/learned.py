"""Learned factors in PostgreSQL, shared by all workers and kept over a restart."""

from __future__ import annotations

from collections.abc import Mapping

from lava_proxy.rules.estimate import Learned
from lava_proxy.store.database import Connection, Database, StoreConflict, StoreDown
from lava_proxy.store.sql import load

Q = load("learned")

Factors = Mapping[tuple[str, str], int]
"""(provider, model) -> the provider's count over our estimate, in millionths."""


async def share(database: Database, learned: Learned) -> None:
    """Tell all workers what was learned here, and take what they know. What could not be told is
    kept for the next time."""
    fresh = learned.take_fresh()
    try:
        async with database.transaction() as conn:
            if fresh:
                await save(conn, fresh)
            known = await newest(conn, learned.models_max)
    except (StoreDown, StoreConflict):
        learned.keep_fresh(fresh)
        raise
    learned.adopt(known)


async def save(conn: Connection, factors: Factors) -> None:
    """Add what one worker learned to what all know. In one order: two workers save at once."""
    keys = sorted(factors)
    await Q["save_factors"].execute(
        conn,
        providers=[provider for provider, _ in keys],
        models=[model for _, model in keys],
        ratios=[factors[key] for key in keys],
    )


async def newest(conn: Connection, most: int) -> dict[tuple[str, str], int]:
    """The `most` factors that were learned last, the latest last."""
    rows = await Q["newest_factors"].fetch(conn, most=most)
    return {(row["provider"], row["model"]): row["ratio_e6"] for row in reversed(rows)}


async def forget(conn: Connection, days: int) -> None:
    """Forget models that were not called for so long."""
    await Q["forget_factors"].execute(conn, days=days)
