"""The checkout page with Stripe: its page, its message, and a buyer whom nobody knew before."""

from __future__ import annotations

from dataclasses import replace

from api_kit import call_app
from books_kit import fetch
from page_kit import Shop
from stripe_kit import KEY, SECRET, message, run_stand_in, signed

from lava_adapters.registry import Registry
from lava_proxy.manage.app import create_management
from lava_proxy.payments.stripe import StripePayments
from lava_proxy.payments.stripe_objects import marks
from lava_proxy.store import payers


async def payer(shop: Shop) -> list[tuple[object, ...]]:
    return await fetch(shop.api.database, "SELECT owner_id, payer_ref FROM payers")


async def test_whom_stripe_does_not_know_any_more_is_met_again(shop: Shop) -> None:
    customer = await shop.api.customer()
    async with shop.api.database.transaction() as conn:
        now = shop.api.books.now()
        await payers.save_payer(conn, customer, "stripe", "cus_gone", now)
    with run_stand_in() as base:
        stripe = StripePayments(KEY, webhook_secret=SECRET, api_base=base)
        shop.pays_with(stripe)
        secret = await shop.session(customer_id=customer)
        await shop.press(secret)
        assert (await shop.seen(secret)).state == "paying"
        assert await payer(shop) == []
        app = create_management(shop.api.books, Registry.builtin(), stripe)
        api = replace(shop.api, app=app)
        async with shop.api.database.transaction() as conn:
            await payers.save_payer(conn, customer, "stripe", "cus_gone", now)
        body = {"customer_id": customer, "return_url": "https://shop.example/back"}
        assert "redirect_url" in await api.made("payment_methods", body)
        stripe.close()
    assert await payer(shop) == []
    async with shop.api.database.transaction() as conn:
        await payers.save_payer(conn, customer, "stripe", "cus_new", now)
        await payers.forget_payer(conn, customer, "stripe", "cus_gone")
    assert await payer(shop) == [(customer, "cus_new")]  # met again meanwhile


async def test_a_new_customer_pays_at_stripe(shop: Shop) -> None:
    with run_stand_in() as base:
        stripe = StripePayments(KEY, webhook_secret=SECRET, api_base=base)
        shop.pays_with(stripe)
        secret = await shop.session()
        await shop.press(secret)
        page = await shop.seen(secret)
        assert page.state == "paying"
        address = str(page.one("body")["data-redirect"])
        assert address.startswith("http")
        (payment,) = await shop.payments()
        ((owner,),) = await fetch(shop.api.database, "SELECT buyer_id FROM checkout_sessions")
        about = {
            "object": "checkout.session",
            "id": "cs_1",
            "mode": "payment",
            "payment_status": "paid",
            "payment_intent": "pi_1",
            "amount_total": 2500,
            "currency": "usd",
            "customer": "cus_1",
            "client_reference_id": payment["payment_id"],
            "metadata": marks(payment["payment_id"], str(owner)),
        }
        body = message("checkout.session.completed", about)
        app = create_management(shop.api.books, Registry.builtin(), stripe)
        for _ in range(2):
            told = await call_app(
                app,
                "POST",
                "/v1/payment_events/stripe",
                headers=[("stripe-signature", signed(body))],
                pieces=[body],
            )
            assert told.status == 200
        stripe.close()
    page = await shop.seen(secret)
    assert (page.state, page.one("body")["data-customer"]) == ("done", owner)
    assert (await shop.api.balance(str(owner)))["available"] == "20.0000000000"
    rows = await fetch(shop.api.database, "SELECT owner_id, payer_ref FROM payers")
    assert rows == [(owner, "cus_1")]  # so that renewals can be charged
    assert await shop.api.sound()
