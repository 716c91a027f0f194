"""What the customers' webhooks are told: of a booked batch, of credit that came or went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lava_proxy.store import outbox
from lava_proxy.store.database import Connection
from lava_proxy.store.ledger import announce_credit
from lava_proxy.store.lines import Line
from lava_proxy.store.sql import load

S = load("settle")


def news_of(lines: Sequence[Line]) -> list[outbox.Event]:
    """Charges as changes of balance, one for each customer, and streams that were cut off."""
    news = []
    charged: dict[str, str] = {}
    for line in lines:
        call = line.settlement.call
        if call.customer_id is None:
            continue
        if line.charge.amount_e10:
            charged[call.customer_id] = call.merchant_id
        if line.settlement.outcome == "cut_off":
            news.append(
                outbox.Event(call.merchant_id, outbox.CUT_OFF, call.customer_id, call.request_id)
            )
    moved = [
        outbox.Event(merchant, outbox.BALANCE, customer) for customer, merchant in charged.items()
    ]
    return moved + news


async def credit_moved(conn: Connection, customer_id: str, now: datetime) -> None:
    """A payment was made, a subscription began, changed or ended: workers look again, and the
    webhooks are told."""
    await announce_credit(conn, customer_id)
    for row in await S["lock_accounts"].fetch(conn, owner_ids=[customer_id]):
        news = outbox.Event(row["merchant_id"], outbox.BALANCE, customer_id)
        await outbox.emit(conn, [news], now)
