"""The checkout page over HTTP: its states, what it sells, who pays, and the headers around it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from books_kit import fetch
from page_kit import BUNDLE_TERMS, ORIGIN, PLAN_TERMS, Elements, Redirecting, Shop

from lava_adapters.registry import Registry
from lava_proxy.manage.app import create_management
from lava_proxy.payments.seam import ChargeAnswer
from lava_proxy.store import payments as store
from lava_proxy.store.outbox import USUAL
from lava_proxy.store.payments import Retry


async def test_a_new_customer_buys_a_plan_in_test_mode(shop: Shop) -> None:
    secret = await shop.session(test=True)
    page = await shop.seen(secret)
    assert page.state == "open"
    assert "Test mode: no money moves." in page.text
    for told in ("Acme", "Pro", "$25.00 every month", "$20.00 every month", "Pay $25.00 (test)"):
        assert told in page.text
    pressed = await shop.press(secret, name="Jane Mary Smith")
    assert (pressed.status, pressed.headers["location"], pressed.body) == (303, secret, b"")
    page = await shop.seen(secret)
    assert page.state == "done"
    customer = (await shop.api.get(f"customers/{page.one('body')['data-customer']}")).json
    assert customer["customer_id"].startswith("con_test_")
    assert customer["contact"] == {
        "phone": "",
        "email": "jane@example.com",
        "first_name": "Jane",
        "last_name": "Mary Smith",
    }
    assert customer["subscription"]["plan_id"] == shop.plan_id
    balance = await shop.api.balance(customer["customer_id"])
    assert balance["available"] == "20.0000000000"
    (payment,) = await shop.payments()
    assert payment["payment_id"].startswith("pay_test_")
    assert (payment["status"], payment["customer_id"]) == ("succeeded", customer["customer_id"])
    assert await shop.api.sound()


async def test_a_test_session_is_done_for_a_live_customer(shop: Shop) -> None:
    customer = await shop.api.customer(email="u1@example.com")
    assert customer.startswith("con_0")
    secret = await shop.session(test=True, customer_id=customer)
    page = await shop.seen(secret)
    assert [a["name"] for a in page.all("input")] == ["terms"]  # who buys is known
    assert "u1@example.com" not in page.text
    await shop.press(secret)
    assert await shop.state(secret) == "done"
    more = await shop.bundle(customer, test=True)
    assert "$15.00" in (await shop.seen(more)).text
    await shop.press(more)
    assert await shop.state(more) == "done"
    assert (await shop.api.balance(customer))["bundle_remaining"] == "15.0000000000"
    assert (await shop.api.balance(customer))["available"] == "35.0000000000"
    assert await shop.api.sound()


async def test_in_live_mode_the_operator_completes(shop: Shop) -> None:
    secret = await shop.session()
    assert "Order for $25.00" in (await shop.seen(secret)).text
    await shop.press(secret)
    page = await shop.seen(secret)
    (payment,) = await shop.payments()
    assert (page.state, payment["status"], payment["customer_id"]) == ("paying", "pending", None)
    assert payment["payment_id"] in page.text
    assert (await shop.api.get("customers")).json["data"] == []  # nobody bought yet
    for _ in range(2):
        done = await shop.api.made(f"payments/{payment['payment_id']}/complete", {})
        assert done["status"] == "succeeded"
    assert await shop.state(secret) == "done"
    (customer,) = (await shop.api.get("customers")).json["data"]
    assert customer["customer_id"] == done["customer_id"]
    assert (await shop.api.balance(done["customer_id"]))["available"] == "20.0000000000"
    await shop.post(secret, {"terms": PLAN_TERMS, "email": "x@example.com"})
    assert len(await shop.payments()) == 1


async def test_webhooks_hear_of_the_new_customer_when_it_has_paid(shop: Shop) -> None:
    await fetch(
        shop.api.database,
        "INSERT INTO webhooks (webhook_id, merchant_id, slot, name, url, secret_sealed, events) "
        "VALUES ('wh_1', $1, 1, 'n', 'https://example.com', 'x', $2)",
        shop.api.merchant_id,
        list(USUAL),
    )
    secret = await shop.session()
    await shop.press(secret)
    assert await shop.events() == []
    (payment,) = await shop.payments()
    await shop.api.made(f"payments/{payment['payment_id']}/complete", {})
    assert await shop.events() == ["customer.created", "customer.wallet.balance.updated"]


async def test_the_plan_that_one_is_leaving_is_kept_for_nothing(shop: Shop) -> None:
    customer = await shop.api.customer()
    await shop.subscribe(customer)
    path = f"customers/{customer}/subscription"
    before = (await shop.api.get(path)).json["subscription"]
    await shop.api.call("DELETE", f"subscriptions/{before['subscription_id']}")
    secret = await shop.session(customer_id=customer)
    page = await shop.seen(secret)
    assert "To pay now$0.00" in page.text.replace("\n", "")
    assert "Keep plan" in page.text
    assert "Instead of" not in page.text
    await shop.press(secret)
    page = await shop.seen(secret)
    assert page.state == "done"
    assert "changes" not in page.text
    assert (await shop.api.get(path)).json["subscription"] == before
    assert len(await shop.payments()) == 1
    again = await shop.api.post(
        "checkout_sessions",
        {
            "checkout_mode": "subscription",
            "origin_url": "https://shop.example",
            "plan_id": shop.plan_id,
            "customer_id": customer,
        },
    )
    assert (again.status, again.code) == (409, "conflict")


async def test_an_upgrade_is_paid_now_and_a_downgrade_waits(shop: Shop) -> None:
    customer = await shop.api.customer()
    await shop.subscribe(customer)
    terms = {"billing_interval": "month", "included_credit": "1"}
    small = await shop.api.made("plans", {"name": "Small", "period_amount": "5", **terms})
    large = await shop.api.made("plans", {"name": "Large", "period_amount": "99", **terms})
    down = await shop.session(customer_id=customer, plan_id=small["plan_id"])
    page = await shop.seen(down)
    assert "Instead ofPro" in page.text.replace("\n", "")
    assert "$0.00" in page.text
    assert "Change plan" in page.text
    await shop.press(down)
    assert "Your plan changes when the current cycle ends." in (await shop.seen(down)).text
    change = (await shop.api.get(f"customers/{customer}/subscription")).json["subscription"]
    assert change["pending_change"]["plan_id"] == small["plan_id"]
    up = await shop.session(test=True, customer_id=customer, plan_id=large["plan_id"])
    assert "Pay $99.00 (test)" in (await shop.seen(up)).text
    await shop.press(up)
    now = (await shop.api.get(f"customers/{customer}/subscription")).json["subscription"]
    assert (now["plan_id"], now["pending_change"]) == (large["plan_id"], None)
    assert len(await shop.payments()) == 2  # the downgrade was none


async def test_a_free_plan_asks_nobody_for_money(shop: Shop) -> None:
    shop.pays_with(provider := Redirecting())
    free = {"name": "Free", "period_amount": "0", "included_credit": "1"}
    plan = await shop.api.made("plans", free | {"billing_interval": "month"})
    secret = await shop.session(plan_id=plan["plan_id"])
    assert "Confirm" in (await shop.seen(secret)).text
    await shop.press(secret)
    assert (await shop.state(secret), provider.asks) == ("done", [])


async def test_a_providers_own_page(shop: Shop) -> None:
    shop.pays_with(provider := Redirecting())
    secret = await shop.session()
    assert "Pay $25.00" in (await shop.seen(secret)).text
    await shop.press(secret)
    page = await shop.seen(secret)
    assert (page.state, page.one("body")["data-redirect"]) == ("paying", provider.page)
    link = page.one("a", href=str(provider.page))
    assert (link["target"], link["rel"]) == ("_top", "noreferrer")
    (ask,) = provider.asks
    (payment,) = await shop.payments()
    assert (ask.reference, ask.amount_e10) == (payment["payment_id"], 25 * 10**10)
    assert (ask.email, ask.payer_ref) == ("jane@example.com", None)
    assert ask.success_url == f"http://gateway.test/embed/checkout/{secret}"
    for status, state in (("failed", "declined"), ("requires_action", "paying")):
        await fetch(shop.api.database, "UPDATE payments SET status = $1", status)
        assert await shop.state(secret) == state  # the payer tries again, or is with their bank
    async with shop.api.database.transaction() as conn:  # as the provider's message does
        assert await store.succeeded(conn, ask.reference, "pi_1", shop.api.books.now())
    page = await shop.seen(secret)
    assert (page.state, page.one("body")["data-customer"]) == ("done", ask.owner_id)
    assert page.one("body")["data-redirect"] == ""
    assert provider.charges == []


async def test_a_declined_payment_may_be_tried_again(shop: Shop) -> None:
    shop.pays_with(provider := Redirecting())
    provider.page = None
    secret = await shop.session()
    await shop.press(secret)
    page = await shop.seen(secret)
    assert page.state == "declined"
    assert "No funds. You can try again." in page.text
    provider.charge_answer = ChargeAnswer("succeeded", "pi_2")
    assert "jane@example.com" in page.text  # who buys is settled: the provider was told
    await shop.press(secret, email="other@example.com")
    assert await shop.state(secret) == "done"
    assert [(c.payment_id, c.attempt) for c in provider.charges] == [
        (provider.charges[0].payment_id, 1),
        (provider.charges[0].payment_id, 2),
    ]
    (customer,) = (await shop.api.get("customers")).json["data"]
    assert customer["contact"]["email"] == "jane@example.com"
    assert len(await shop.payments()) == 1


async def test_a_provider_that_is_away_may_be_asked_again(shop: Shop) -> None:
    shop.pays_with(provider := Redirecting())
    provider.down = True
    secret = await shop.session()
    assert (await shop.press(secret)).status == 303
    page = await shop.seen(secret)
    assert page.state == "open"
    assert "Trying again is safe: you pay once." in page.text
    assert [a["name"] for a in page.all("input")] == ["terms"]
    provider.down = False
    await shop.press(secret)
    assert await shop.state(secret) == "paying"
    assert len({(ask.reference, ask.owner_id) for ask in provider.asks}) == 1


async def test_a_session_ends_with_its_time(shop: Shop) -> None:
    secret, begun = await shop.session(), await shop.session()
    await shop.press(begun)
    await fetch(shop.api.database, "UPDATE checkout_sessions SET expires_at = now()")
    reply = await shop.get(secret)
    assert (reply.status, await shop.state(secret)) == (410, "expired")
    assert b"<form" not in reply.body
    form = {"terms": PLAN_TERMS, "email": "a@example.com"}
    assert (await shop.post(secret, form)).status == 303
    assert len(await shop.payments()) == 1
    assert await shop.state(begun) == "paying"  # money on its way is waited for
    page = "UPDATE checkout_sessions SET redirect_url = 'https://pay.example', expires_at = "
    for over, state in (("now()", "paying"), ("now() - interval '25 hours'", "expired")):
        await fetch(shop.api.database, page + over)
        assert await shop.state(begun) == state  # the provider's page is over too
    (payment,) = await shop.payments()
    await shop.api.made(f"payments/{payment['payment_id']}/complete", {})
    assert await shop.state(begun) == "done"


async def test_what_cannot_be_sold_any_more(shop: Shop) -> None:
    customer = await shop.api.customer()
    twice = [await shop.session(test=True, customer_id=customer) for _ in range(2)]
    await shop.press(twice[0])
    reply = await shop.get(twice[1])
    assert (reply.status, await shop.state(twice[1])) == (409, "unavailable")
    assert b"You are on this plan already." in reply.body
    more = await shop.bundle(customer)
    change = {"credit_bundles": [{"credit_bundle_id": shop.bundle_id, "is_deleted": True}]}
    assert (await shop.api.call("PATCH", f"plans/{shop.plan_id}", change)).status == 200
    assert await shop.state(more) == "unavailable"
    other = await shop.api.customer()
    theirs = await shop.session(customer_id=other)
    assert (await shop.api.call("DELETE", f"customers/{other}")).status == 200
    assert await shop.state(theirs) == "unavailable"
    form = {"terms": PLAN_TERMS}
    assert (await shop.post(theirs, form)).status == 303
    assert len(await shop.payments()) == 1


async def test_what_the_provider_cannot_charge_is_not_sold(shop: Shop) -> None:
    secret = await shop.session()
    shop.pays_with(provider := Redirecting())
    provider.least_e10 = 26 * 10**10
    reply = await shop.press(secret)
    assert reply.status == 409
    assert b"Nothing was paid: the price is too low." in reply.body
    app = create_management(shop.api.books, Registry.builtin(), provider)
    body = {"checkout_mode": "subscription", "origin_url": ORIGIN, "plan_id": shop.plan_id}
    refused = await replace(shop.api, app=app).post("checkout_sessions", body)
    assert (refused.status, refused.code) == (409, "conflict")
    assert await shop.payments() == []


async def test_money_for_a_plan_that_ended_is_kept_as_credit(shop: Shop) -> None:
    secret = await shop.session()
    await shop.press(secret)
    assert (await shop.api.call("DELETE", f"plans/{shop.plan_id}")).status == 200
    (payment,) = await shop.payments()
    done = await shop.api.made(f"payments/{payment['payment_id']}/complete", {})
    assert (await shop.api.balance(done["customer_id"]))["available"] == "25.0000000000"
    assert await shop.api.sound()


async def test_nobody_pays_another_price_than_they_saw(shop: Shop) -> None:
    customer = await shop.api.customer()
    await shop.subscribe(customer)
    secret = await shop.bundle(customer)
    change = {"credit_bundles": [{"credit_bundle_id": shop.bundle_id, "cost": "11"}]}
    assert (await shop.api.call("PATCH", f"plans/{shop.plan_id}", change)).status == 200
    refused = await shop.post(secret, {"terms": BUNDLE_TERMS})
    assert refused.status == 409
    assert b"has changed since you opened this page" in refused.body
    assert len(await shop.payments()) == 1
    await shop.press(secret)
    assert (await shop.payments())[0]["amount"] == "11.0000000000"


async def test_nobody_is_given_less_than_they_saw(shop: Shop) -> None:
    customer = await shop.api.customer()
    await shop.subscribe(customer)
    for secret, change in (
        (
            await shop.bundle(customer),
            {"credit_bundles": [{"credit_bundle_id": shop.bundle_id, "credit_amount": "1"}]},
        ),
        (await shop.session(), {"included_credit": "1"}),
    ):
        terms = str((await shop.seen(secret)).one("input", name="terms")["value"])
        assert (await shop.api.call("PATCH", f"plans/{shop.plan_id}", change)).status == 200
        refused = await shop.post(secret, {"terms": terms, "email": "jane@example.com"})
        assert refused.status == 409
        assert b"has changed since you opened this page" in refused.body
    assert len(await shop.payments()) == 1


async def test_mistakes_are_shown_at_their_field(shop: Shop) -> None:
    secret = await shop.session()
    for name, value in (
        ("email", ""),
        ("email", "jane"),
        ("email", "a@" + "b" * 260),
        ("email", "a@b\x00c"),
        ("name", "n" * 256),
        ("name", "a\x00b"),
    ):
        refused = await shop.press(secret, **{"name": "Jane <b>", name: value})
        assert refused.status == 422
        page = Elements(refused.body.decode())
        wrong = page.one("input", name=name)
        assert (wrong["aria-invalid"], wrong["aria-describedby"]) == ("true", f"{name}-wrong")
        page.one("p", id=f"{name}-wrong")
        assert page.one("input", name="name")["value"] == ("Jane <b>" if name != "name" else value)
    assert await shop.payments() == []


async def test_a_payment_that_was_begun_buys_what_its_page_offered(shop: Shop) -> None:
    customer = await shop.api.customer()
    await shop.subscribe(customer)
    shop.pays_with(provider := Redirecting())
    secret = await shop.bundle(customer)
    offered = await shop.seen(secret)
    await shop.press(secret)
    (bundle,) = (await shop.api.get("credit_bundles")).json["data"]
    larger = {"credit_bundle_id": bundle["credit_bundle_id"], "cost": "90", "credit_amount": "99"}
    change = {"credit_bundles": [larger]}
    assert (await shop.api.call("PATCH", f"plans/{shop.plan_id}", change)).status == 200
    before = Decimal((await shop.api.balance(customer))["bundle_remaining"])
    async with shop.api.database.transaction() as conn:
        reference = provider.asks[0].reference
        await store.failed(conn, reference, shop.api.books.now(), Retry(0, 0.0))
    again = await shop.seen(secret)
    assert again.state == "declined"
    for text in ("Credit$", "To pay now$"):  # the price and the credit are both as they were
        figure = offered.text.replace("\n", "").partition(text)[2][:5]
        assert f"{text}{figure}" in again.text.replace("\n", "")
    async with shop.api.database.transaction() as conn:
        await store.succeeded(conn, reference, "pi_1", shop.api.books.now())
    bought = Decimal((await shop.api.balance(customer))["bundle_remaining"]) - before
    assert bought == Decimal(bundle["credit_amount"])


async def test_a_plan_that_was_begun_gives_what_its_page_offered(shop: Shop) -> None:
    customer = await shop.api.customer()
    shop.pays_with(provider := Redirecting())
    secret = await shop.session(customer_id=customer)
    await shop.press(secret)
    change = {"included_credit": "9"}
    assert (await shop.api.call("PATCH", f"plans/{shop.plan_id}", change)).status == 200
    reference = provider.asks[0].reference
    async with shop.api.database.transaction() as conn:
        await store.failed(conn, reference, shop.api.books.now(), Retry(0, 0.0))
    again = await shop.seen(secret)
    assert again.state == "declined"
    assert again.one("input", name="terms")["value"] == PLAN_TERMS
    async with shop.api.database.transaction() as conn:
        await store.succeeded(conn, reference, "pi_1", shop.api.books.now())
    assert Decimal((await shop.api.balance(customer))["cycle_remaining"]) == 20
