"""Which meters a customer may use, and the tier scope of what is used: one rule for all routes."""

from __future__ import annotations

from datetime import datetime

from lava_proxy.core.errors import LavaError
from lava_proxy.rules.settlement import Customer, Merchant, Meter, calendar_cycle


def tier_cycle(
    merchant: Merchant, customer: Customer | None, meter: Meter | None, now: datetime
) -> str:
    """The subscription's cycle, else the calendar month. Raises 403 for a meter that is not on the
    customer's plan, whether or not the call is billed."""
    if customer is None or meter is None:
        return calendar_cycle(now)
    if customer.subscription is None:
        if merchant.require_plan:
            raise LavaError("meter_not_on_plan", "the customer has no active subscription")
        return calendar_cycle(now)
    if meter.meter_id not in customer.subscription.meter_ids:
        raise LavaError(
            "meter_not_on_plan", f"the meter {meter.slug} is not on the customer's active plan"
        )
    return customer.subscription.cycle
