"""A checkout that another one overtook: what it sells is a downgrade by the time it is paid."""

from __future__ import annotations

import asyncio

from page_kit import Redirecting, Shop

from lava_proxy.payments.seam import ChargeAnswer
from lava_proxy.store import payments, plans


async def test_a_plan_paid_for_after_a_dearer_one_begins_later(shop: Shop) -> None:
    customer = await shop.api.customer()
    terms = {"billing_interval": "month", "included_credit": "90"}
    large = await shop.api.made("plans", {"name": "Large", "period_amount": "99", **terms})
    shop.pays_with(provider := Redirecting())
    secret = await shop.session(customer_id=customer)
    await shop.press(secret)
    await shop.subscribe(customer, large["plan_id"])
    provider.page, provider.charge_answer = None, ChargeAnswer("declined", message="No funds.")
    async with shop.api.database.transaction() as conn:
        await payments.lock(conn, provider.asks[0].reference)
        await conn.execute("UPDATE payments SET status = 'failed' WHERE status = 'pending'")
    page = await shop.seen(secret)
    assert page.state == "declined"
    assert "Startsnow" not in page.text.replace("\n", "")  # the price stays, the day does not
    assert "$25.00" in page.text
    provider.charge_answer = ChargeAnswer("succeeded", "pi_1")
    await shop.press(secret)
    assert "Your plan changes when the current cycle ends." in (await shop.seen(secret)).text
    on = (await shop.api.get(f"customers/{customer}/subscription")).json["subscription"]
    assert (on["plan_id"], on["credits"]["total_remaining"]) == (large["plan_id"], "90.0000000000")
    change = on["pending_change"]
    assert (change["type"], change["plan_id"]) == ("downgrade", shop.plan_id)
    assert change["effective_at"] == on["cycle_end_at"]
    assert change["payment_id"] == provider.charges[0].payment_id
    assert (await shop.payments())[-1]["subscription_id"] == on["subscription_id"]
    assert await shop.api.sound()


async def test_nobody_waits_for_a_plan_that_ends_in_this_moment(shop: Shop) -> None:
    customer, terms = await shop.api.customer(), {"billing_interval": "month"}
    await shop.subscribe(customer)
    small = await shop.api.made("plans", {"name": "Small", "period_amount": "5", **terms})
    secret = await shop.session(customer_id=customer, plan_id=small["plan_id"])
    async with shop.api.database.transaction() as conn:
        now = shop.api.books.now()
        assert await plans.delete(conn, shop.api.merchant_id, small["plan_id"], now)
        pressing = asyncio.create_task(shop.press(secret))
        await asyncio.sleep(0.2)
    assert (await pressing).status in (409, 503)  # 503: a lock was not had in half a second
    on = (await shop.api.get(f"customers/{customer}/subscription")).json["subscription"]
    assert (on["plan_id"], on["pending_change"]) == (shop.plan_id, None)
