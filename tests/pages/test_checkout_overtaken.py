"""A checkout that another one overtook: what it sells is a downgrade by the time it is paid."""

from __future__ import annotations

from page_kit import Redirecting, Shop

from lava_proxy.payments.seam import ChargeAnswer
from lava_proxy.store import payments


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
