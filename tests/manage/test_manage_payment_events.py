"""What Stripe tells us: believed only when signed, counted once, and the same in every order."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from api_kit import Api, Reply, call_app, new_merchant
from books_kit import fetch
from stripe_kit import SECRET, message, signed

from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.ids import new_id
from lava_proxy.core.money import E10
from lava_proxy.manage.app import Management, create_management
from lava_proxy.payments.stripe import StripePayments
from lava_proxy.store import credit, payments, plans, reversals
from lava_proxy.store.database import Database
from lava_proxy.store.plans import BundleRow, PlanRow

CENT_E10 = E10 // 100
WAITING = """SELECT 1 FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'"""
Event = tuple[str, dict[str, Any]]


@pytest.fixture
async def app(books: Books) -> AsyncIterator[Management]:
    """The application with Stripe behind it; nothing here asks Stripe anything."""
    stripe = StripePayments("sk_test_x", webhook_secret=SECRET, api_base="http://127.0.0.1:9")
    yield create_management(books, Registry.builtin(), stripe)
    stripe.close()


@pytest.fixture
async def shop(app: Management, books: Books, database: Database) -> Shop:
    api = await new_merchant(app, books, database, "first")
    now, plan_id, bundle_id = books.now(), new_id("plan"), new_id("credit_bundle")
    bundle = BundleRow(bundle_id, plan_id, "b", 10 * E10, 15 * E10, now)
    plan = PlanRow(
        plan_id=plan_id,
        merchant_id=api.merchant_id,
        name="p",
        period_amount_e10=20 * E10,
        included_credit_e10=20 * E10,
        billing_interval="month",
        rollover_type="none",
        bundle_rollover_type="full",
        default_top_up_bundle_id=bundle_id,
        created_at=now,
        bundles=(bundle,),
    )
    meter = (await api.meter("m"))["meter_id"]
    async with database.transaction() as conn:
        await plans.create(conn, plan, (meter,))
    return Shop(api, plan_id, bundle_id)


@dataclass
class Shop:
    """A merchant whose bundle costs 10 and gives 15, on a plan of 20."""

    api: Api
    plan_id: str
    bundle_id: str
    told: int = 0

    async def buyer(self, purpose: str = "bundle", *, provider: str = "stripe") -> Buyer:
        """A customer who is about to pay."""
        customer, payment_id = await self.api.customer(), new_id("payment")
        what = {"plan_id": self.plan_id}
        if purpose != "subscription":
            what = {"credit_bundle_id": self.bundle_id}
        async with self.api.database.transaction() as conn:
            await payments.open_payment(
                conn,
                payment_id=payment_id,
                merchant_id=self.api.merchant_id,
                customer_id=customer,
                purpose=purpose,  # type: ignore[arg-type]
                amount_e10=(20 if purpose == "subscription" else 10) * E10,
                provider=provider,
                now=self.api.books.now(),
                **what,
            )
        return Buyer(self, customer, payment_id)

    async def tell(self, event_type: str, about: dict[str, Any], **fields: Any) -> Reply:
        """A signed message of Stripe's."""
        self.told += 1
        event_id = fields.pop("event_id", f"evt_{self.told}")
        body = message(event_type, about, event_id=event_id)
        return await self.send(body, signed(body, **fields))

    async def send(self, body: bytes, signature: str, provider: str = "stripe") -> Reply:
        headers = [("stripe-signature", signature)]
        path = f"/v1/payment_events/{provider}"
        return await call_app(self.api.app, "POST", path, headers=headers, pieces=[body])


@dataclass
class Buyer:
    """A customer, a payment, and what Stripe says about it."""

    shop: Shop
    customer: str
    payment_id: str
    refs: dict[str, str] = field(default_factory=dict)

    @property
    def intent(self) -> str:
        return self.payment_id.replace("pay_", "pi_")

    @property
    def marks(self) -> dict[str, str]:
        return {"lava_payment_id": self.payment_id, "lava_owner_id": self.customer}

    def paid(self, cents: int = 1000) -> Event:
        return "payment_intent.succeeded", {
            "id": self.intent,
            "metadata": self.marks,
            "amount_received": cents,
            "customer": f"cus_{self.customer}",
        }

    def page_done(self, cents: int = 1000) -> Event:
        return "checkout.session.completed", {
            "id": "cs_1",
            "payment_intent": self.intent,
            "metadata": self.marks,
            "payment_status": "paid",
            "amount_total": cents,
            "customer": f"cus_{self.customer}",
        }

    def declined(self) -> Event:
        return "payment_intent.payment_failed", {
            "id": self.intent,
            "metadata": self.marks,
            "last_payment_error": {"code": "card_declined", "payment_method": {"id": "pm_1"}},
        }

    def refund(self, name: str, cents: int, status: str = "succeeded") -> Event:
        kind = {"pending": "created", "failed": "failed"}.get(status, "updated")
        return f"refund.{kind}", {
            "id": f"re_{self.payment_id}_{name}",
            "payment_intent": self.intent,
            "amount": cents,
            "status": status,
        }

    def refunded(self, cents: int) -> Event:
        return "charge.refunded", {
            "id": f"ch_{self.payment_id}",
            "payment_intent": self.intent,
            "amount_refunded": cents,
        }

    def dispute(self, kind: str, status: str, cents: int = 1000) -> Event:
        return f"charge.dispute.{kind}", {
            "id": f"dp_{self.payment_id}",
            "payment_intent": self.intent,
            "amount": cents,
            "status": status,
        }

    async def hear(self, *events: Event) -> None:
        for event in events:
            assert (await self.shop.tell(*event)).json == {"received": True}

    async def spend(self, dollars: int) -> None:
        """A report of usage: 2 USD per million tokens."""
        usage = {"request_id": new_id("request"), "input_tokens": dollars * 500_000}
        who = {"customer_id": self.customer, "meter_slug": "m"}
        await self.shop.api.made("requests", usage | who)

    async def left(self) -> str:
        found = (await self.shop.api.balance(self.customer))["total_remaining"]
        return str(found).removesuffix("0" * 8)

    async def payment(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.shop.api.get(f"payments/{self.payment_id}")).json
        return found

    async def books(self) -> tuple[object, ...]:
        """All that must not depend on the order of messages."""
        shown = await self.payment()
        account = f"customer:{self.customer}"
        (ledger,) = await fetch(
            self.shop.api.database,
            "SELECT sum(amount_e10)::bigint FROM ledger_entries WHERE account = $1",
            account,
        )
        state = (shown["status"], shown["refunded_amount"], shown["disputed_at"] is not None)
        return (await self.left(), *state, shown["error_code"], ledger[0])


async def test_nothing_is_believed_without_a_signature(shop: Shop) -> None:
    buyer = await shop.buyer()
    body = message(*buyer.paid())
    for signature in ("", "t=1,v1=0", signed(body, secret="whsec_other"), signed(body, age_s=301)):
        reply = await shop.send(body, signature)
        assert (reply.status, reply.code) == (400, "invalid_signature")
    assert (await shop.send(body + b" ", signed(body))).code == "invalid_signature"
    assert (await shop.send(body, signed(body), provider="other")).status == 404
    assert (await buyer.payment())["status"] == "pending"
    assert (await shop.send(body, signed(body))).status == 200
    assert (await buyer.payment())["status"] == "succeeded"


async def test_without_stripe_there_is_nobody_to_hear(books: Books, database: Database) -> None:
    app = create_management(books, Registry.builtin())
    body = message("payment_intent.succeeded", {})
    for provider, status in (("stripe", 404), ("manual", 400)):
        headers = [("stripe-signature", signed(body))]
        path = f"/v1/payment_events/{provider}"
        reply = await call_app(app, "POST", path, headers=headers, pieces=[body])
        assert reply.status == status


async def test_what_is_paid_is_delivered_once(shop: Shop) -> None:
    buyer = await shop.buyer()
    await shop.tell(*buyer.paid(), event_id="evt_same")
    before = await buyer.books()
    await shop.tell(*buyer.paid(), event_id="evt_same")
    await buyer.hear(buyer.paid(), buyer.page_done(), buyer.declined())
    assert await buyer.books() == before
    assert await buyer.left() == "15.00"
    assert await shop.api.sound()


async def test_many_tellers_at_once_deliver_once(shop: Shop) -> None:
    buyer = await shop.buyer()
    told = [shop.tell(*event) for event in (buyer.paid(), buyer.page_done()) * 4]
    told += [shop.tell(*buyer.refund("a", 400)) for _ in range(4)]
    replies = await asyncio.gather(*told)
    assert {reply.status for reply in replies} <= {200, 503}  # busy: Stripe tells it again
    await buyer.hear(buyer.paid(), buyer.refund("a", 400))
    assert (await buyer.left(), (await buyer.payment())["refunded_amount"][:4]) == ("9.00", "4.00")
    assert await shop.api.sound()


async def test_a_refund_told_while_its_payment_is_made_waits_for_it(shop: Shop) -> None:
    buyer = await shop.buyer()
    now = shop.api.books.now()
    async with shop.api.database.transaction() as conn:
        await payments.succeeded(conn, buyer.payment_id, buyer.intent, now)
        telling = asyncio.create_task(buyer.hear(buyer.refund("a", 400)))
        await asyncio.sleep(0.1)
        assert not telling.done()
    await telling
    assert await buyer.left() == "9.00"
    assert await shop.api.sound()


async def test_a_payment_made_while_its_refund_is_told_waits_for_it(shop: Shop) -> None:
    buyer = await shop.buyer()
    _, about = buyer.refund("a", 400)
    async with shop.api.database.transaction() as conn:
        await reversals.one_at_a_time(conn, "stripe", buyer.intent)
        paying = asyncio.create_task(buyer.hear(buyer.paid()))
        await asyncio.sleep(0.1)
        assert not paying.done()
        await reversals.note(
            conn,
            provider="stripe",
            ref=about["id"],
            payment_ref=buyer.intent,
            kind="refund",
            amount_e10=4 * E10,
            over=False,
        )
    await paying
    assert await buyer.left() == "9.00"
    assert await shop.api.sound()


async def _ends(shop: Shop, orders: Sequence[Sequence[Any]], *, spent: int = 0) -> set[object]:
    """What the books are after each order of the same messages."""
    ends: set[object] = set()
    for order in orders:
        buyer = await shop.buyer()
        await buyer.spend(spent)
        await buyer.hear(*(make(buyer) for make in order))
        ends.add(await buyer.books())
    assert await shop.api.sound()
    return ends


async def test_the_order_of_messages_does_not_matter(shop: Shop) -> None:
    told = (
        Buyer.paid,
        Buyer.declined,
        lambda buyer: buyer.refund("a", 400, "pending"),
        lambda buyer: buyer.refunded(400),
    )
    (end,) = await _ends(shop, list(itertools.permutations(told)), spent=12)
    assert end[:3] == ("-3.00", "succeeded", "4.0000000000")  # type: ignore[index]


async def test_nor_does_it_with_many_of_them_and_twice(shop: Shop) -> None:
    """Two refunds, one of which fails in the end, and a dispute that is won."""
    told = [
        Buyer.paid,
        Buyer.page_done,
        lambda buyer: buyer.refund("a", 250, "pending"),
        lambda buyer: buyer.refund("a", 250),
        lambda buyer: buyer.refund("b", 300, "pending"),
        lambda buyer: buyer.refund("b", 300, "failed"),
        lambda buyer: buyer.refunded(550),
        lambda buyer: buyer.dispute("created", "needs_response", 700),
        lambda buyer: buyer.dispute("funds_withdrawn", "needs_response", 700),
        lambda buyer: buyer.dispute("closed", "won", 700),
    ]
    shuffle = random.Random(7).sample
    orders = [shuffle(told * 2, 20) for _ in range(12)]
    (end,) = await _ends(shop, orders, spent=1)
    assert end[:4] == ("10.25", "succeeded", "2.5000000000", False)  # type: ignore[index]


@pytest.mark.parametrize(
    ("status", "left", "disputed"), [("lost", "-2.00", True), ("won", "13.00", False)]
)
async def test_a_dispute_ends(shop: Shop, status: str, left: str, disputed: bool) -> None:
    told = (
        Buyer.paid,
        lambda buyer: buyer.dispute("created", "needs_response"),
        lambda buyer: buyer.dispute("closed", status),
    )
    (end,) = await _ends(shop, list(itertools.permutations(told)), spent=2)
    assert (end[0], end[3]) == (left, disputed)  # type: ignore[index]


async def test_an_inquiry_takes_nothing(shop: Shop) -> None:
    buyer = await shop.buyer()
    await buyer.hear(buyer.paid(), buyer.dispute("created", "warning_needs_response"))
    assert await buyer.left() == "15.00"
    await buyer.hear(buyer.dispute("updated", "needs_response"))
    assert await buyer.left() == "0.00"


async def test_more_than_was_paid_never_goes_back(shop: Shop) -> None:
    buyer = await shop.buyer()
    await buyer.hear(buyer.paid(), buyer.refund("a", 1000), buyer.dispute("created", "lost"))
    assert await buyer.left() == "0.00"
    assert await shop.api.sound()


async def test_other_credit_pays_for_what_was_spent(shop: Shop) -> None:
    """14 of 15 are spent and 3 come from elsewhere: all goes back, 11 are owed, and what comes then
    pays that first."""
    buyer = await shop.buyer()
    await buyer.hear(buyer.paid())
    await buyer.spend(14)
    await shop.api.made(f"customers/{buyer.customer}/credit", {"amount": "3"})
    await buyer.hear(buyer.refund("a", 1000))
    assert await buyer.left() == "-11.00"
    await shop.api.made(f"customers/{buyer.customer}/credit", {"amount": "12"})
    assert await buyer.left() == "1.00"
    assert await shop.api.sound()


async def test_what_workers_hold_is_owed_until_it_comes_back(shop: Shop) -> None:
    buyer = await shop.buyer()
    await buyer.hear(buyer.paid())
    books, now = shop.api.books, shop.api.books.now()
    ask = credit.LeaseAsk("lea_1", buyer.customer, "hld_1", 1, 6 * E10, 0, 0, 300.0)
    async with shop.api.database.transaction() as conn:
        assert (await credit.lease(conn, ask, now)).amount_e10 == 6 * E10
    await buyer.hear(buyer.refund("a", 1000))
    query = "SELECT debt_e10 FROM accounts WHERE owner_id = $1"
    assert await fetch(books.database, query, buyer.customer) == [(6 * E10,)]
    async with shop.api.database.transaction() as conn:
        await credit.give_back(conn, buyer.customer, "hld_1", None, now)
    assert await fetch(books.database, query, buyer.customer) == [(0,)]
    assert await buyer.left() == "0.00"
    assert await shop.api.sound()


async def test_what_expired_unused_is_not_taken_again(shop: Shop) -> None:
    """Of the cycle's 20, 8 were used and 12 expired: a full refund is owed 8."""
    buyer = await shop.buyer("subscription")
    await buyer.hear(buyer.paid(2000))
    await buyer.spend(8)
    later = shop.api.books.now() + timedelta(days=40)
    async with shop.api.database.transaction() as conn:
        await credit.expire(conn, buyer.customer, shop.api.merchant_id, later)
    assert await buyer.left() == "0.00"
    await buyer.hear(buyer.refund("a", 1000))
    assert await buyer.left() == "0.00"  # half of the credit, all of it expired
    await buyer.hear(buyer.refund("b", 1000))
    assert await buyer.left() == "-8.00"
    await buyer.hear(buyer.refund("b", 1000, "failed"))
    assert await buyer.left() == "0.00"
    assert await shop.api.sound()


async def test_a_subscription_is_paid_for_and_tops_up_no_more_once_refunded(shop: Shop) -> None:
    buyer = await shop.buyer("subscription")
    await buyer.hear(buyer.refund("a", 100), buyer.paid(2000))
    shown = (await shop.api.get(f"customers/{buyer.customer}/subscription")).json["subscription"]
    assert (shown["plan_id"], shown["status"]) == (shop.plan_id, "active")
    assert shown["auto_top_up_bundle_id"] is None
    assert await buyer.left() == "19.00"


async def test_a_payer_is_known_from_the_first_page_on(shop: Shop) -> None:
    buyer = await shop.buyer()
    nobody = {"lava_owner_id": "con_nobody"}
    await shop.tell("setup_intent.succeeded", {"customer": "cus_2", "metadata": nobody})
    await buyer.hear(buyer.page_done())
    found = await fetch(shop.api.database, "SELECT owner_id, payer_ref, merchant_id FROM payers")
    assert found == [(buyer.customer, f"cus_{buyer.customer}", shop.api.merchant_id)]


async def test_messages_about_nothing_of_ours_are_answered(shop: Shop) -> None:
    stranger = Buyer(shop, "con_x", "pay_x")
    await stranger.hear(stranger.paid(), stranger.refund("a", 5), ("customer.created", {}))
    elsewhere = await shop.buyer(provider="manual")
    await elsewhere.hear(elsewhere.paid())
    assert (await elsewhere.payment())["status"] == "pending"


async def test_too_little_is_not_paid(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    buyer = await shop.buyer()
    await buyer.hear(buyer.paid(999))
    assert (await buyer.payment())["status"] == "pending"
    assert "instead of" in caplog.text


async def test_a_second_charge_for_the_same_is_cried_out(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    buyer = await shop.buyer()
    kind, about = buyer.paid()
    await buyer.hear((kind, about), (kind, {**about, "id": "pi_second"}))
    assert "refund pi_second" in caplog.text
    assert await buyer.left() == "15.00"


async def test_a_second_charge_at_the_same_moment_is_cried_out_too(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    buyer = await shop.buyer()
    kind, about = buyer.paid()
    async with shop.api.database.transaction() as conn:
        await payments.succeeded(conn, buyer.payment_id, "pi_first", shop.api.books.now())
        second = asyncio.create_task(buyer.hear((kind, about)))
        while not await fetch(shop.api.database, WAITING):
            await asyncio.sleep(0.01)
    await second
    assert f"refund {buyer.intent}" in caplog.text
    assert await buyer.left() == "15.00"


async def test_a_try_that_failed_says_why_until_another_succeeds(shop: Shop) -> None:
    buyer = await shop.buyer()
    waits = ("payment_intent.requires_action", {"id": buyer.intent, "metadata": buyer.marks})
    for order in itertools.permutations([buyer.declined(), waits]):
        await buyer.hear(*order)
        shown = await buyer.payment()
        assert (shown["status"], shown["error_code"]) == ("failed", "card_declined")
    await buyer.hear(buyer.paid())
    shown = await buyer.payment()
    assert (shown["status"], shown["error_code"]) == ("succeeded", None)


async def test_a_decline_that_a_worker_hears_itself_counts_once(shop: Shop) -> None:
    """The worker is between its tries: the message adds none, but names the charge."""
    buyer = await shop.buyer("top_up")
    await fetch(
        shop.api.database,
        "UPDATE payments SET next_attempt_at = now() WHERE payment_id = $1",
        buyer.payment_id,
    )
    await buyer.hear(buyer.declined())
    query = "SELECT attempts, status, provider_ref FROM payments WHERE payment_id = $1"
    (found,) = await fetch(shop.api.database, query, buyer.payment_id)
    assert found == (0, "pending", buyer.intent)


async def test_a_refund_leaves_the_wallet(shop: Shop) -> None:
    """What goes back was paid in no more; a wallet has no credit and no debt."""
    payment_id = new_id("payment")
    async with shop.api.database.transaction() as conn:
        await payments.open_payment(
            conn,
            payment_id=payment_id,
            merchant_id=shop.api.merchant_id,
            customer_id=None,
            purpose="wallet",
            amount_e10=20 * E10,
            provider="stripe",
            now=shop.api.books.now(),
        )
    buyer = Buyer(shop, shop.api.merchant_id, payment_id)
    balances = []
    for told in (
        buyer.refund("a", 500),
        buyer.paid(2000),
        buyer.refund("a", 500),
        buyer.dispute("created", "needs_response", 1500),
        buyer.dispute("closed", "won", 1500),
    ):
        await buyer.hear(told)
        balances.append((await shop.api.get("wallet")).json["balance"].partition(".")[0])
    assert balances == ["0", "15", "15", "0", "15"]
    assert await shop.api.sound()
