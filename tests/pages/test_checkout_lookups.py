"""Checkouts whose messages from Stripe are lost, or that were given up: looked up, ended once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from api_kit import call_app
from books_kit import fetch
from page_kit import Redirecting, Shop
from stripe_kit import KEY, SECRET, client, message, run_stand_in, signed

from lava_adapters.registry import Registry
from lava_proxy.manage.app import create_management
from lava_proxy.payments.manual import Manual
from lava_proxy.payments.seam import CheckoutAnswer, CheckoutAsk, Lookup, Payments, Standing
from lava_proxy.payments.stripe import StripePayments
from lava_proxy.workers import lookups

PLAN = "20.0000000000"


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with run_stand_in() as address:
        yield address


@pytest.fixture
async def stripe(base: str, shop: Shop) -> AsyncIterator[StripePayments]:
    made = StripePayments(KEY, webhook_secret=SECRET, api_base=base)
    shop.pays_with(made)
    yield made
    made.close()


async def begun(shop: Shop) -> tuple[str, str]:
    """A session whose payer was sent to Stripe: (secret, Stripe's id of the page)."""
    secret = await shop.session()
    await shop.press(secret)
    assert await shop.state(secret) == "paying"
    ((page,),) = await fetch(
        shop.api.database, "SELECT page_ref FROM payments ORDER BY created_at DESC LIMIT 1"
    )
    return secret, str(page)


def at_stripe(base: str, page: str, what: str) -> dict[str, Any]:
    """The payer pays there, or the page expires."""
    with client(base) as there:
        found: dict[str, Any] = there.post(f"/v1/checkout/sessions/{page}/{what}").json()
    return found


async def look(shop: Shop, *, hours: float = 1, payments: Payments | None = None) -> None:
    """So much later the workers look, several at once."""
    past = f"interval '{hours} hours'"
    await fetch(shop.api.database, f"UPDATE payments SET look_at = look_at - {past}")
    await fetch(shop.api.database, f"UPDATE checkout_sessions SET expires_at = expires_at - {past}")
    made = payments or shop.provider
    await asyncio.gather(*[lookups.run_once(shop.api.books, made) for _ in range(3)])


async def told_late(
    shop: Shop,
    stripe: StripePayments,
    session: dict[str, Any],
    kind: str = "checkout.session.completed",
) -> None:
    """Stripe's message, after all."""
    body = message(kind, session, event_id=f"evt_{kind}_{session['id']}")
    headers = [("stripe-signature", signed(body))]
    app = create_management(shop.api.books, Registry.builtin(), stripe)
    path = "/v1/payment_events/stripe"
    assert (await call_app(app, "POST", path, headers=headers, pieces=[body])).status == 200


async def credit(shop: Shop) -> list[str]:
    """What each customer has."""
    customers = (await shop.api.get("customers")).json["data"]
    balances = [await shop.api.balance(customer["customer_id"]) for customer in customers]
    return [str(balance["available"]) for balance in balances]


async def test_a_message_that_a_page_ended_makes_us_look(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    secret, page = await begun(shop)
    session = at_stripe(base, page, "expire")
    await told_late(shop, stripe, session, "checkout.session.expired")
    await lookups.run_once(shop.api.books, stripe)
    assert await shop.state(secret) == "declined"
    assert [payment["error_code"] for payment in await shop.payments()] == ["expired"]
    await told_late(shop, stripe, session, "payment_intent.canceled")
    await lookups.run_once(shop.api.books, stripe)
    assert await shop.state(secret) == "declined"


async def test_a_page_that_ended_after_its_session_is_given_up(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    _, page = await begun(shop)
    at_stripe(base, page, "expire")
    await look(shop, hours=24.5)
    assert [payment["status"] for payment in await shop.payments()] == ["cancelled"]


@pytest.mark.parametrize("known", [True, False], ids=["page known", "page by its mark"])
async def test_a_payment_whose_messages_are_lost_is_found(
    shop: Shop, base: str, stripe: StripePayments, known: bool
) -> None:
    secret, page = await begun(shop)
    await lookups.run_once(shop.api.books, stripe)  # too early
    session = at_stripe(base, page, "pay")
    if not known:
        await fetch(shop.api.database, "UPDATE payments SET page_ref = NULL")
    assert await shop.state(secret) == "paying"
    await look(shop)
    assert (await shop.state(secret), await credit(shop)) == ("done", [PLAN])
    rows = await fetch(shop.api.database, "SELECT owner_id, payer_ref FROM payers")
    ((owner,),) = await fetch(shop.api.database, "SELECT buyer_id FROM checkout_sessions")
    assert rows == [(owner, session["customer"])]
    await told_late(shop, stripe, session)
    await look(shop, hours=9)
    assert (await credit(shop), len(await shop.payments())) == ([PLAN], 1)
    assert await shop.api.sound()


async def test_a_message_and_a_look_at_once_credit_once(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    secret, page = await begun(shop)
    session = at_stripe(base, page, "pay")
    await asyncio.gather(look(shop), told_late(shop, stripe, session))
    assert (await shop.state(secret), await credit(shop)) == ("done", [PLAN])
    assert await shop.api.sound()


async def test_an_open_page_is_left_alone_at_growing_pauses(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    secret, page = await begun(shop)
    pauses = []
    for _ in range(4):
        await look(shop, hours=5)
        ((pause_s,),) = await fetch(
            shop.api.database, "SELECT extract(epoch FROM look_at - now())::int FROM payments"
        )
        pauses.append(round(int(str(pause_s)) / 600))
    assert (pauses, await shop.state(secret)) == ([1, 2, 4, 8], "paying")
    at_stripe(base, page, "pay")
    await look(shop, hours=2)
    assert await shop.state(secret) == "done"


async def test_a_checkout_that_was_given_up_ends_here_and_at_stripe(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    secret, page = await begun(shop)
    await look(shop, hours=24.5)
    assert await shop.state(secret) == "paying"  # its time is over; who is there may still pay
    await look(shop, hours=1)
    (payment,) = await shop.payments()
    assert (payment["status"], payment["error_code"]) == ("cancelled", "expired")
    assert (await shop.state(secret), await credit(shop)) == ("expired", [])
    assert at_stripe(base, page, "pay")["error"]  # nobody can pay there any more
    await look(shop, hours=99)
    assert [payment["status"] for payment in await shop.payments()] == ["cancelled"]


async def test_why_the_last_try_failed_is_kept(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    _, page = await begun(shop)
    (payment,) = await shop.payments()
    about = {
        "id": "pi_x",
        "metadata": {"lava_payment_id": payment["payment_id"]},
        "last_payment_error": {"code": "card_declined", "message": "No."},
    }
    await told_late(shop, stripe, about, "payment_intent.payment_failed")
    await look(shop, hours=26)
    (payment,) = await shop.payments()
    assert (payment["status"], payment["error_code"]) == ("cancelled", "card_declined")
    assert at_stripe(base, page, "pay")["error"]


async def test_who_pays_as_it_is_given_up_is_credited(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    class Late(StripePayments):
        """The payer pays between our look and our calling it off."""

        async def call_off(self, ask: Lookup) -> Standing | None:
            sessions.append(at_stripe(base, page, "pay"))
            return await super().call_off(ask)

    sessions: list[dict[str, Any]] = []
    secret, page = await begun(shop)
    await look(shop, hours=26, payments=(late := Late(KEY, api_base=base)))
    late.close()
    assert (await shop.state(secret), await credit(shop)) == ("done", [PLAN])
    await told_late(shop, stripe, sessions[0])
    assert (await credit(shop), len(sessions)) == ([PLAN], 1)
    assert await shop.api.sound()


async def test_money_that_comes_for_one_that_was_given_up_counts(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    _, page = await begun(shop)
    with client(base) as there:
        session = there.get(f"/v1/checkout/sessions/{page}").json()
    await look(shop, hours=26)
    paid = {"payment_status": "paid", "payment_intent": "pi_odd", "customer": "cus_odd"}
    await told_late(shop, stripe, session | paid)
    assert await credit(shop) == [PLAN]
    assert await shop.api.sound()


async def test_a_page_of_stripes_that_ends_first_is_followed_by_another(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    secret, page = await begun(shop)
    at_stripe(base, page, "expire")
    await look(shop)
    assert "It was not paid in time." in (await shop.seen(secret)).text
    await shop.press(secret)
    assert await shop.state(secret) == "paying"
    ((second,),) = await fetch(shop.api.database, "SELECT page_ref FROM payments")
    assert second != page
    at_stripe(base, str(second), "pay")
    await look(shop)
    assert (await shop.state(secret), await credit(shop)) == ("done", [PLAN])
    assert len(await shop.payments()) == 1


async def test_a_look_that_is_overtaken_by_another_try_changes_nothing(
    shop: Shop, base: str, stripe: StripePayments
) -> None:
    class Slow(StripePayments):
        """While it looks, the payer is shown that the page is over and gets another."""

        async def look_up(self, ask: Lookup) -> Standing | None:
            found = await super().look_up(ask)
            await look(shop, payments=stripe)
            await shop.press(secret)
            return found

    secret, page = await begun(shop)
    at_stripe(base, page, "expire")
    slow = Slow(KEY, api_base=base)
    await fetch(shop.api.database, "UPDATE payments SET look_at = now() - interval '1 hour'")
    await lookups.run_once(shop.api.books, slow)
    slow.close()
    assert await shop.state(secret) == "paying"


async def test_by_hand_an_order_stands_and_what_was_never_asked_for_ends(shop: Shop) -> None:
    ordered = await shop.session()
    await shop.press(ordered)
    await look(shop, hours=99, payments=Manual())
    assert [payment["status"] for payment in await shop.payments()] == ["pending"]

    class Crashing(Redirecting):
        name = "manual"

        async def checkout(self, ask: CheckoutAsk) -> CheckoutAnswer:
            raise RuntimeError("the process is gone")

    shop.pays_with(Crashing())
    secret = await shop.session()
    await shop.press(secret)
    await look(shop, hours=99, payments=Manual())
    assert [payment["status"] for payment in await shop.payments()] == ["cancelled", "pending"]
