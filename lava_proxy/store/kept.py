"""Credit that waits for a response that runs on at the provider: a lease that no process holds.

The call that makes such a response ends long before the response does. What it held moves to a
lease under the response's own name, in the transaction that books the call, so it outlives every
process. The row that finds the response over gives it back before it pays. If none comes, the lease
runs out like any other, and the reaper gives it back.
"""

from __future__ import annotations

from datetime import datetime

from lava_proxy.core.ids import new_id
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.credit import LeaseAsk, give_back, lease
from lava_proxy.store.database import Connection

KEPT = "kept:"
"""What the holders of such leases begin with."""


async def keep(conn: Connection, row: Settlement, now: datetime) -> int:
    """Move what `row` keeps, as far as there is credit; answers how much of its own process's
    leases that took. The account must be locked."""
    call = row.call
    moved = await give_back(conn, call.owner_id, call.holder_id, row.keeps_e10, now)
    soft = call.meter is not None and call.meter.enforcement == "soft"
    await lease(
        conn,
        LeaseAsk(
            lease_id=new_id("lease"),
            owner_id=call.owner_id,
            holder_id=_holder(row),
            least_e10=1,
            hold_e10=row.keeps_e10,
            burn_e10=row.keeps_e10,
            overdraft_e10=call.meter.overdraft_e10 if soft and call.meter else 0,
            lease_s=row.keeps_s,
        ),
        now,
    )
    return moved


async def let_go(conn: Connection, row: Settlement, now: datetime) -> None:
    """Give back what is kept for the response of `row`. The account must be locked."""
    await give_back(conn, row.call.owner_id, _holder(row), None, now)


def _holder(row: Settlement) -> str:
    return f"{KEPT}{row.call.provider}:{row.metered_object}"
