"""The merchant's wallet: what was paid in, less what its managed-key calls cost.

Paying in is a payment like any other (`payments.py`), whose delivery is `fund`. Where the wallet is
enforced, the budget that calls draw on (`rules/limits.py`) takes its size from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lava_proxy.core.ids import new_id, wallet_id_of
from lava_proxy.store.database import Connection
from lava_proxy.store.entries import Entries
from lava_proxy.store.sql import load

Q = load("wallets")


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet now. Calls that are not booked yet are not in it."""

    funded_e10: int
    cost_e10: int

    @property
    def balance_e10(self) -> int:
        """Negative where it is not enforced, or a call cost more than was held."""
        return self.funded_e10 - self.cost_e10


@dataclass(frozen=True, slots=True)
class Waiting:
    """A payment into a wallet that nobody has confirmed yet."""

    payment_id: str
    amount_e10: int
    created_at: datetime


async def find(conn: Connection, merchant_id: str, *, test: bool) -> Wallet:
    """A merchant's wallet; empty where nothing was ever paid in."""
    row = await Q["wallet"].fetchrow(conn, merchant_id=merchant_id, test=test)
    if row is None:
        raise LookupError("no wallet row")
    return Wallet(**dict(row))


async def fund(
    conn: Connection,
    *,
    merchant_id: str,
    test: bool,
    amount_e10: int,
    source: str,
    now: datetime,
) -> None:
    """Money came in from the ledger account `source`, once per payment (`succeeded`); less than
    nothing, where it went back there (`reversals.py`)."""
    wallet_id = wallet_id_of(merchant_id, test=test)
    await Q["fund_wallet"].execute(
        conn, merchant_id=merchant_id, test=test, wallet_id=wallet_id, amount=amount_e10
    )
    entries = Entries(now)
    with entries.transaction(new_id("transaction"), merchant_id, None, None) as post:
        post("funding", source, -amount_e10)
        post("funding", f"wallet:{wallet_id}", amount_e10)
    await entries.insert(conn)


async def size(conn: Connection, merchant_id: str, owner_id: str) -> int:
    """How large the limit has to be that keeps calls within the wallet. Its account is locked."""
    found: int = await Q["wallet_size"].fetchval(conn, merchant_id=merchant_id, owner_id=owner_id)
    return found


async def waiting(conn: Connection, merchant_id: str, most: int) -> list[Waiting]:
    """Payments that wait for the operator's word, oldest first."""
    rows = await Q["waiting"].fetch(conn, merchant_id=merchant_id, most=most)
    return [Waiting(**dict(row)) for row in rows]


async def wallet_of(conn: Connection, payment_id: str) -> str | None:
    """The merchant into whose wallet a payment goes; None where there is no such payment."""
    found: str | None = await Q["wallet_of_payment"].fetchval(conn, payment_id=payment_id)
    return found
