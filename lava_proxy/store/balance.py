"""What an account has, as the books say now."""

from __future__ import annotations

from dataclasses import dataclass

from lava_proxy.core.errors import LavaError
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("credit")


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's money; amounts in 10^-10 USD."""

    available_e10: int
    held_e10: int
    debt_e10: int
    cycle_e10: int
    bundle_e10: int


async def balance(conn: Connection, owner_id: str) -> Balance:
    """An account's money as the books have it now."""
    row = await Q["balance"].fetchrow(conn, owner_id=owner_id)
    if row is None:
        raise LavaError("not_found", "no such credit account")
    return Balance(
        available_e10=row["available_e10"] - row["debt_e10"],
        held_e10=row["leased_e10"],
        debt_e10=row["debt_e10"],
        cycle_e10=row["cycle_e10"],
        bundle_e10=row["bundle_e10"],
    )
