"""Requests that wait for their price: noted when they are booked, looked through by model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import orjson

from lava_proxy.rules.limits import COST
from lava_proxy.rules.rerating import waits
from lava_proxy.store.database import Connection
from lava_proxy.store.lines import Line
from lava_proxy.store.sql import load

Q = load("unrated")


@dataclass(frozen=True, slots=True)
class Group:
    """A model of one merchant's calls, as its provider named it and as it was asked for."""

    merchant_id: str
    provider: str
    model: str
    asked: str

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which a price is looked up."""
        return (self.model, self.asked) if self.asked else (self.model,)


FIRST = Group("", "", "", "")


async def wait(conn: Connection, lines: Sequence[Line]) -> None:
    """Note those of a booked batch that wait for a price; most have none."""
    rows = [_row(line) for line in lines if line.settlement.flags and waits(line.settlement)]
    if rows:
        await Q["wait"].execute(conn, rows=orjson.dumps(rows).decode())


def _row(line: Line) -> dict[str, object]:
    row, call = line.settlement, line.settlement.call
    return {
        "merchant_id": call.merchant_id,
        "request_id": call.request_id,
        "created_at": call.created_at,
        "provider": call.provider,
        "model": row.model,
        "asked": call.model if call.model and call.model != row.model else "",
        "limits": [owner_id for kind, owner_id in call.budgets if kind in COST],
    }


async def anything(conn: Connection) -> bool:
    """Whether any request waits."""
    return bool(await Q["anything"].fetchval(conn))


async def groups(
    conn: Connection, behind: Group, most: int, merchant_id: str | None
) -> list[Group]:
    """At most `most` models for which requests wait, behind one; `merchant_id`: of one merchant."""
    rows = await Q["waiting_models"].fetch(
        conn,
        of_merchant=merchant_id,
        merchant_id=behind.merchant_id,
        provider=behind.provider,
        model=behind.model,
        asked=behind.asked,
        most=most,
    )
    return [Group(**dict(row)) for row in rows]


async def waiting(
    conn: Connection, group: Group, mark: str, behind: tuple[datetime, str], most: int
) -> list[asyncpg.Record]:
    """At most `most` requests of a group that `mark` was not tried on, behind a place."""
    return await Q["waiting"].fetch(
        conn,
        merchant_id=group.merchant_id,
        provider=group.provider,
        model=group.model,
        asked=group.asked,
        mark=mark,
        after_at=behind[0],
        after_id=behind[1],
        most=most,
    )


async def tried_in_vain(conn: Connection, row: asyncpg.Record, mark: str) -> None:
    """What `mark` stands for could not price a request."""
    await Q["tried_in_vain"].execute(conn, **_key(row), mark=mark)


async def waits_no_more(conn: Connection, row: asyncpg.Record) -> None:
    """A request was re-rated, or is not kept any more."""
    await Q["waits_no_more"].execute(conn, **_key(row))


def _key(row: asyncpg.Record) -> dict[str, object]:
    names = ("merchant_id", "provider", "model", "asked", "created_at", "request_id")
    return {name: row[name] for name in names}
