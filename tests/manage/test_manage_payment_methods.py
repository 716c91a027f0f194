"""Cards on file and payments that wait for their payer, with localstripe behind the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvicorn
from api_kit import Api, new_merchant
from books_kit import fetch
from stripe_kit import ASKS, DECLINED, GOOD, KEY, SECRET, add_card, client, payer, run_stand_in

from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.ids import new_id
from lava_proxy.manage.app import Management, create_management
from lava_proxy.payments.seam import ChargeAsk
from lava_proxy.payments.stripe import StripePayments
from lava_proxy.store import payers, subscriptions
from lava_proxy.store.database import Database
from lava_proxy.workers import renewals, top_ups

BACK = {"return_url": "https://shop.test/back"}


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The address of a running localstripe."""
    with run_stand_in() as address:
        yield address


@pytest.fixture
async def stripe(base: str) -> AsyncIterator[StripePayments]:
    made = StripePayments(KEY, webhook_secret=SECRET, api_base=base)
    yield made
    made.close()


@pytest.fixture
def app(books: Books, stripe: StripePayments) -> Management:
    return create_management(books, Registry.builtin(), stripe)


async def known(api: Api, base: str, owner_id: str, *numbers: str) -> str:
    """Whoever it is has these cards."""
    ref = payer(base, *numbers)
    async with api.database.transaction() as conn:
        await payers.save_payer(conn, owner_id, "stripe", ref, api.books.now())
    return ref


async def test_the_cards_of_a_customer_and_of_the_wallet(api: Api, base: str) -> None:
    customer = await api.customer(reference_id="jane")
    assert (await api.get("payment_methods")).json == {"data": []}
    ref = await known(api, base, customer, GOOD)
    await known(api, base, api.merchant_id, DECLINED)
    (card,) = (await api.get("payment_methods", customer_id="jane")).json["data"]
    assert card | {"payment_method_id": ""} == {
        "payment_method_id": "",
        "brand": "visa",
        "last4": "4242",
        "expiry_month": "07",
        "expiry_year": "2031",
        "is_default": True,
        "has_error": False,
        "error_code": None,
        "error_message": None,
        "error_at": None,
    }
    (own,) = (await api.get("payment_methods")).json["data"]
    assert own["last4"] == "0341"
    second = add_card(base, ref, GOOD)
    changed = await api.call("PATCH", f"payment_methods/{second}", {"is_default": True})
    assert (changed.json["payment_method_id"], changed.json["is_default"]) == (second, True)
    gone = await api.call("DELETE", f"payment_methods/{second}")
    assert gone.json == {"id": second, "deleted": True}
    assert (await api.get("payment_methods", customer_id="jane")).json["data"] == [card]
    assert (await api.call("DELETE", f"payment_methods/{second}")).status == 404


async def test_nobody_touches_anothers_cards(api: Api, other: Api, base: str) -> None:
    ref = await known(other, base, await other.customer(), GOOD)
    stray = add_card(base, payer(base), GOOD)  # of a payer at Stripe that is nobody's here
    for method in (add_card(base, ref, GOOD), stray, "pm_none", "..%2Fcustomers"):
        for verb, body in (("PATCH", {"is_default": True}), ("DELETE", None)):
            reply = await api.call(verb, f"payment_methods/{method}", body)
            assert (reply.status, reply.code) == (404, "not_found"), method
    with client(base) as there:
        assert there.get(f"/v1/payment_methods/{stray}").json()["customer"] is not None


async def test_what_a_card_last_failed_with(api: Api, base: str) -> None:
    customer = await api.customer()
    await known(api, base, customer, GOOD)
    (card,) = (await api.get("payment_methods", customer_id=customer)).json["data"]
    told = ((4, "stolen_card"), (3, None), (2, "expired_card"))  # the newest comes first
    for day, code in told:
        at = datetime(2030, 1, day, tzinfo=UTC)
        async with api.database.transaction() as conn:
            await payers.note_method(
                conn, "stripe", card["payment_method_id"], at, code=code, message="no"
            )
    (shown,) = (await api.get("payment_methods", customer_id=customer)).json["data"]
    assert (shown["has_error"], shown["error_code"]) == (True, "stolen_card")
    assert shown["error_at"] == "2030-01-04T00:00:00.000Z"


async def test_a_page_to_leave_a_card_on(api: Api, base: str) -> None:
    customer = await api.customer(email="jane@shop.test", name="Jane Smith")
    made = await api.made("payment_methods", {"customer_id": customer, **BACK}, key="k")
    assert made["redirect_url"].startswith("https://stripe.test/setup/set_")
    again = await api.post("payment_methods", {"customer_id": customer, **BACK}, key="k")
    assert (again.json, again.headers["idempotent-replayed"]) == (made, "true")
    ((ref,),) = await fetch(api.database, "SELECT payer_ref FROM payers")
    with client(base) as there:
        found = there.get(f"/v1/customers/{ref}").json()
    assert (found["email"], found["name"]) == ("jane@shop.test", "Jane Smith")
    assert found["metadata"] == {"lava_owner_id": customer}
    await api.made("payment_methods", BACK)  # the wallet's
    owners = await fetch(api.database, "SELECT owner_id FROM payers ORDER BY owner_id")
    assert owners == [(customer,), (api.merchant_id,)]
    for wrong in ("javascript:alert(1)", "https://a b", "//x", "https://u:p@x.test/"):
        assert (await api.post("payment_methods", {"return_url": wrong})).paths == ["return_url"]


async def test_by_hand_no_card_is_kept(books: Books, database: Database) -> None:
    api = await new_merchant(create_management(books, Registry.builtin()), books, database, "m")
    reply = await api.post("payment_methods", BACK)
    assert (reply.status, reply.code) == (409, "conflict")
    assert (await api.get("payment_methods")).json == {"data": []}


async def test_stripe_away_is_no_fault_of_the_callers(books: Books, database: Database) -> None:
    away = StripePayments(KEY, api_base="http://127.0.0.1:9")
    app = create_management(books, Registry.builtin(), away)
    api = await new_merchant(app, books, database, "m")
    reply = await api.post("payment_methods", BACK)
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "unavailable", "5")
    away.close()


async def test_nothing_is_sold_that_stripe_cannot_charge(api: Api) -> None:
    plan = {"name": "p", "period_amount": "0.125", "billing_interval": "month"}
    assert (await api.post("plans", plan)).paths == ["period_amount"]
    bundle = {"name": "b", "cost": "0.49", "credit_amount": "1"}
    plan |= {"period_amount": "0.50", "credit_bundles": [bundle]}  # type: ignore[dict-item]
    assert (await api.post("plans", plan)).paths == ["credit_bundles[0].cost"]
    made = await api.made("plans", plan | {"credit_bundles": []})
    change = {"credit_bundles": [bundle]}
    reply = await api.call("PATCH", f"plans/{made['plan_id']}", change)
    assert reply.paths == ["credit_bundles[0].cost"]
    assert (await api.post("wallet/fund", {"amount": "10.001"})).paths == ["amount"]


async def top_up(api: Api, customer: str) -> str:
    """A top-up of 10 that is due."""
    plan = {"name": "p", "period_amount": "0", "billing_interval": "month"}
    bundle = {"name": "b", "cost": "10", "credit_amount": "15"}
    made = await api.made("plans", plan | {"credit_bundles": [bundle]})
    payment_id = new_id("payment")
    await fetch(
        api.database,
        "INSERT INTO payments (payment_id, merchant_id, customer_id, purpose, amount_e10, status, "
        "provider, credit_bundle_id, next_attempt_at) "
        "VALUES ($1, $2, $3, 'top_up', 100000000000, 'pending', '', $4, now())",
        payment_id,
        api.merchant_id,
        customer,
        made["credit_bundles"][0]["credit_bundle_id"],
    )
    return payment_id


async def _payment(api: Api, payment_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get(f"payments/{payment_id}")).json
    return found


async def test_a_top_up_that_waits_for_its_payer(
    api: Api, base: str, stripe: StripePayments
) -> None:
    """The worker cannot; the payer confirms at their bank; the worker's next try finds it paid."""
    customer = await api.customer()
    ref = await known(api, base, customer, ASKS)
    payment_id = await top_up(api, customer)
    await top_ups.run_once(api.books, stripe)
    assert (await _payment(api, payment_id))["status"] == "requires_action"
    reply = (await api.post(f"payments/{payment_id}/confirm", BACK)).json
    intent = reply["redirect_url"].removeprefix("https://bank.test/")
    assert reply["status"] == "requires_action"
    with client(base) as there:
        secret = there.get(f"/v1/payment_intents/{intent}").json()["client_secret"]
        confirmed = {"client_secret": secret, "success": "true"}
        there.post(f"/v1/payment_intents/{intent}/_authenticate", data=confirmed)
    reply = (await api.post(f"payments/{payment_id}/confirm", BACK)).json
    assert reply == {"payment_id": payment_id, "status": "succeeded"}
    assert (await api.post(f"payments/{payment_id}/confirm", BACK)).json == reply
    assert (await api.balance(customer))["total_remaining"] == "15.0000000000"
    with client(base) as there:
        found = there.get("/v1/charges", params={"customer": ref}).json()["data"]
    assert [charge["amount"] for charge in found] == [1000]
    assert await api.sound()


async def test_a_payer_and_a_worker_at_the_same_moment_charge_once(
    api: Api, base: str, stripe: StripePayments
) -> None:
    """The first try found no card, so there is no charge yet that both could find."""
    customer = await api.customer()
    ref = await known(api, base, customer)
    payment_id = await top_up(api, customer)
    await fetch(api.database, "UPDATE payments SET provider = 'stripe', attempts = 1")
    add_card(base, ref, GOOD)
    await asyncio.gather(
        top_ups.run_once(api.books, stripe), api.post(f"payments/{payment_id}/confirm", BACK)
    )
    made = await api.made(f"payments/{payment_id}/confirm", BACK)  # either was told to come again
    assert made["status"] == "succeeded"
    await top_ups.run_once(api.books, stripe)
    with client(base) as there:
        found = there.get("/v1/charges", params={"customer": ref}).json()["data"]
    assert [charge["amount"] for charge in found] == [1000]
    assert (await api.balance(customer))["total_remaining"] == "15.0000000000"


async def test_a_payer_may_take_another_card(api: Api, base: str, stripe: StripePayments) -> None:
    customer = await api.customer()
    ref = await known(api, base, customer, DECLINED)
    payment_id = await top_up(api, customer)
    assert (await api.post(f"payments/{payment_id}/confirm", BACK)).code == "conflict"
    await fetch(api.database, "UPDATE payments SET provider = 'stripe'")
    refused = await api.post(f"payments/{payment_id}/confirm", BACK)
    assert (refused.status, refused.code) == (402, "payment_declined")
    assert refused.json["error"]["details"]["reason"] == "card_declined"
    other = {**BACK, "payment_method_id": add_card(base, ref, GOOD)}
    assert (await api.made(f"payments/{payment_id}/confirm", other))["status"] == "succeeded"
    await top_ups.run_once(api.books, stripe)
    assert (await api.balance(customer))["total_remaining"] == "15.0000000000"


async def test_stripe_itself_tells_us(api: Api, app: Management, base: str) -> None:
    """A worker dies between the charge and its commit: localstripe's own signed message, over HTTP,
    is what delivers."""
    customer = await api.customer()
    payment_id = await top_up(api, customer)
    await fetch(api.database, "UPDATE payments SET provider = 'stripe'")
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1/payment_events/stripe"
    with client(base) as there:
        there.post("/_config/webhooks/us", json={"url": url, "secret": SECRET})
    stripe = StripePayments(KEY, api_base=base)
    asked = ChargeAsk(
        payment_id=payment_id,
        merchant_id=api.merchant_id,
        customer_id=customer,
        payer_ref=payer(base, GOOD),
        amount_e10=10 * 10**10,
        description="Auto top-up",
    )
    assert (await stripe.charge(asked)).outcome == "succeeded"
    stripe.close()
    async with asyncio.timeout(20):
        while (await _payment(api, payment_id))["status"] != "succeeded":
            await asyncio.sleep(0.05)
    server.should_exit = True
    await serving
    assert (await api.balance(customer))["total_remaining"] == "15.0000000000"
    ((owner, ref),) = await fetch(api.database, "SELECT owner_id, payer_ref FROM payers")
    assert (owner, ref) == (customer, asked.payer_ref)


async def test_renewals_are_charged_and_a_declined_one_is_tried_again(
    api: Api, base: str, stripe: StripePayments
) -> None:
    """With a card that pays, and with one that does not until another is there: one intent each."""
    plan = {"name": "p", "period_amount": "20", "billing_interval": "month"}
    plan_id = (await api.made("plans", plan))["plan_id"]
    month_ago = api.books.now() - timedelta(days=32)
    payers_at_stripe = []
    for number in (GOOD, DECLINED):
        customer = await api.customer()
        payers_at_stripe.append((customer, await known(api, base, customer, number)))
        async with api.database.transaction() as conn:
            await subscriptions.start(conn, customer_id=customer, plan_id=plan_id, now=month_ago)
    (fine, _), (late, ref) = payers_at_stripe
    await renewals.run_once(api.books, stripe)
    assert (await api.balance(fine))["total_remaining"] == "20.0000000000"
    (payment,) = (await api.get("payments", customer_id=late)).json["data"]
    assert (payment["status"], payment["error_code"]) == ("pending", "card_declined")
    assert (await api.balance(late))["total_remaining"] == "0.0000000000"
    await stripe.make_default(ref, add_card(base, ref, GOOD))
    await fetch(
        api.database, "UPDATE payments SET next_attempt_at = now() WHERE status = 'pending'"
    )
    await renewals.run_once(api.books, stripe)
    await renewals.run_once(api.books, stripe)
    assert (await _payment(api, payment["payment_id"]))["status"] == "succeeded"
    assert (await api.balance(late))["total_remaining"] == "20.0000000000"
    with client(base) as there:
        found = there.get("/v1/charges", params={"customer": ref}).json()["data"]
    assert sorted(charge["status"] for charge in found) == ["failed", "succeeded"]
    assert await api.sound()
