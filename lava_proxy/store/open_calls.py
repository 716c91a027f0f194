"""Calls that run, as the processes that serve them tell the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("open_calls")


class Told(NamedTuple):
    """A call, and its facts as the journal holds them."""

    merchant_id: str
    request_id: str
    facts: bytes


async def be_seen(conn: Connection, holder_id: str) -> bool:
    """Say that a process is alive. True: nothing that it told is there (any more)."""
    new: bool = await Q["be_seen"].fetchval(conn, holder_id=holder_id)
    return new


async def tell(conn: Connection, holder_id: str, begun: Sequence[Told]) -> None:
    """Write down calls of a process that was seen."""
    merchants, ids, facts = zip(*begun, strict=True)
    await Q["tell_calls"].execute(
        conn, holder_id=holder_id, merchant_ids=merchants, request_ids=ids, facts=facts
    )


async def untell(conn: Connection, holder_id: str, over: Collection[str]) -> None:
    """Remove calls of a process."""
    await Q["untell_calls"].execute(conn, holder_id=holder_id, request_ids=over)


async def find(
    conn: Connection, merchant_id: str, request_id: str, gone_s: float
) -> tuple[str, bytes] | None:
    """The process and the facts of a merchant's call; of a process not seen for `gone_s`, None."""
    row = await Q["find_open_call"].fetchrow(
        conn, merchant_id=merchant_id, request_id=request_id, gone_s=gone_s
    )
    return None if row is None else (row["holder_id"], row["facts"])


async def forget(conn: Connection, holder_id: str) -> None:
    """Remove a process and all that it told."""
    await Q["forget_holder"].execute(conn, holder_id=holder_id)


async def forget_gone(conn: Connection, gone_s: float) -> None:
    """Remove what processes told that were not seen for so long."""
    await Q["forget_gone"].execute(conn, gone_s=gone_s)
