"""The plan that new customers are put on by themselves: one per merchant, free, made when it is
first needed, and the merchant's to change; once deleted it is not made again. Who leaves another
plan comes back to it (`subscriptions.leave`)."""

from __future__ import annotations

from datetime import datetime

from lava_proxy.core.ids import new_id
from lava_proxy.store import plans, subscriptions
from lava_proxy.store.database import Connection
from lava_proxy.store.plans import PlanRow
from lava_proxy.store.sql import load

Q = load("plans")

NAME = "Free"


async def put_on(conn: Connection, merchant_id: str, customer_id: str, now: datetime) -> None:
    """Put a customer on the merchant's Free plan, if there is one."""
    plan_id = await Q["free_plan"].fetchval(conn, merchant_id=merchant_id)
    plan_id = plan_id or await _make(conn, merchant_id, now)
    if await subscriptions.on_sale(conn, customer_id, plan_id, now):
        await subscriptions.start(conn, customer_id=customer_id, plan_id=plan_id, now=now)


async def _make(conn: Connection, merchant_id: str, now: datetime) -> str:
    """One of several at once makes it; the others wait, and find it."""
    await Q["lock_merchant"].fetchval(conn, merchant_id=merchant_id)
    found: str | None = await Q["free_plan"].fetchval(conn, merchant_id=merchant_id)
    if found is not None:
        return found
    plan_id = new_id("plan")
    wanted = PlanRow(
        plan_id=plan_id,
        merchant_id=merchant_id,
        name=NAME,
        period_amount_e10=0,
        included_credit_e10=0,
        billing_interval="month",
        rollover_type="none",
        bundle_rollover_type="full",
        default_top_up_bundle_id=None,
        created_at=now,
    )
    await plans.create(conn, wanted, ())
    await Q["set_free_plan"].execute(conn, merchant_id=merchant_id, plan_id=plan_id)
    return plan_id
