"""What the customers' webhooks are told of a booked batch."""

from __future__ import annotations

from collections.abc import Sequence

from lava_proxy.store import outbox
from lava_proxy.store.lines import Line


def news_of(lines: Sequence[Line]) -> list[outbox.Event]:
    """Charges as changes of balance, and streams that were cut off."""
    news = []
    for line in lines:
        call = line.settlement.call
        if call.customer_id is None:
            continue
        if line.charge.amount_e10:
            news.append(outbox.Event(call.merchant_id, outbox.BALANCE, call.customer_id))
        if line.settlement.outcome == "cut_off":
            news.append(
                outbox.Event(call.merchant_id, outbox.CUT_OFF, call.customer_id, call.request_id)
            )
    return news
