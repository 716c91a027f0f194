"""Money that waits for a response that runs on at the provider: leases that no process holds.

The call that makes such a response ends long before the response does. What it held, of credit and
of every budget that counts money, moves to leases under the response's own name, in the transaction
that books the call, so it outlives every process. The row that finds the response over gives them
back before it pays, whoever's it is. If none comes, they run out like any others, and the reaper
gives them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lava_proxy.core.ids import new_id
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.credit import LeaseAsk, Q, give_back, lease
from lava_proxy.store.database import Connection
from lava_proxy.store.lines import Line

KEPT = "kept:"
"""What the holders of such leases begin with."""


async def keep(conn: Connection, line: Line, now: datetime) -> None:
    """Move what a row keeps, as far as there is money; `line` learns how much of its own process's
    leases that took. The accounts must be locked."""
    row, call = line.settlement, line.settlement.call
    for owner_id, amount in row.keeps:
        line.gave(owner_id, await give_back(conn, owner_id, call.holder_id, amount, now))
        soft = call.meter is not None and call.meter.enforcement == "soft"
        in_debt = call.meter.overdraft_e10 if soft and call.meter else 0
        await lease(
            conn,
            LeaseAsk(
                lease_id=new_id("lease"),
                owner_id=owner_id,
                holder_id=_holder(row),
                least_e10=1,
                hold_e10=amount,
                burn_e10=amount,
                overdraft_e10=in_debt if owner_id == call.owner_id else 0,
                lease_s=row.keeps_s,
            ),
            now,
        )


async def waiting(conn: Connection, over: Sequence[Settlement]) -> list[tuple[str, str]]:
    """(account, holder) of what is kept for the responses of these rows; ids are a merchant's own,
    because not every provider's are unique."""
    if not over:
        return []
    rows = await Q["kept_leases"].fetch(
        conn,
        merchant_ids=[row.call.merchant_id for row in over],
        holder_ids=[_holder(row) for row in over],
    )
    return [(row["owner_id"], row["holder_id"]) for row in rows]


async def let_go(conn: Connection, kept: Sequence[tuple[str, str]], now: datetime) -> None:
    """Give it back. The accounts must be locked."""
    for owner_id, holder_id in kept:
        await give_back(conn, owner_id, holder_id, None, now)


def _holder(row: Settlement) -> str:
    return f"{KEPT}{row.call.provider}:{row.metered_object}"
