"""The merchant's fallback chain in PostgreSQL: where a rewritten call goes if its target fails."""

from __future__ import annotations

from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("fallback")

Chain = tuple[tuple[str, str], ...]
"""(url, model) pairs, in the order in which they are tried."""


async def find(conn: Connection, merchant_id: str) -> Chain:
    rows = await Q["fallback_chain"].fetchval(conn, merchant_id=merchant_id)
    return tuple((url, model) for url, model in rows or ())


async def replace(conn: Connection, merchant_id: str, chain: Chain) -> None:
    """An empty chain is none."""
    kept = [list(pair) for pair in chain] or None
    await Q["set_fallback_chain"].execute(conn, merchant_id=merchant_id, fallback_chain=kept)
