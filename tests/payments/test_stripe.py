"""Charging through Stripe, against localstripe as a process of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import stripe
from pydantic import SecretStr
from stripe_kit import ASKS, DECLINED, GOOD, KEY, add_card, client, payer

from lava_proxy.cli.tools import ask_payments
from lava_proxy.core.ids import new_id
from lava_proxy.core.money import E10
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.payments import stripe_objects as objects
from lava_proxy.payments.factory import make_payments
from lava_proxy.payments.seam import (
    ChargeAsk,
    CheckoutAsk,
    Lookup,
    PayerAsk,
    PaymentsDown,
    Standing,
)
from lava_proxy.payments.stripe import StripePayments


def ask(payer_ref: str | None, **fields: object) -> ChargeAsk:
    known = {"payment_id": new_id("payment"), "merchant_id": "mer_1", "customer_id": "con_1"}
    return ChargeAsk(
        **{  # type: ignore[arg-type]
            **known,
            "payer_ref": payer_ref,
            "amount_e10": 5 * E10,
            "description": "Pro",
            **fields,
        }
    )


def charges(base: str, customer: str) -> list[tuple[str, int]]:
    """(status, cents) of what a customer was charged."""
    with client(base) as there:
        found = there.get("/v1/charges", params={"customer": customer}).json()["data"]
    return sorted((charge["status"], charge["amount"]) for charge in found)


async def test_a_card_on_file_is_charged(base: str, payments: StripePayments) -> None:
    asked = ask(payer(base, GOOD))
    answer = await payments.charge(asked)
    assert answer.outcome == "succeeded"
    with client(base) as there:
        intent = there.get(f"/v1/payment_intents/{answer.provider_ref}").json()
    assert (intent["amount"], intent["currency"]) == (500, "usd")
    assert intent["metadata"] == {
        "lava_payment_id": asked.payment_id,
        "lava_owner_id": "con_1",
    }


@pytest.mark.parametrize("what", ["known", "forgotten", "another attempt", "another card"])
async def test_a_payment_is_charged_once(base: str, payments: StripePayments, what: str) -> None:
    """Asked for again with its intent known, after a crash that lost it, after the day that an
    idempotency key is kept for, and with another card than the first time."""
    customer = payer(base, GOOD)
    asked = ask(customer)
    first = await payments.charge(asked)
    if what == "known":
        asked = replace(asked, provider_ref=first.provider_ref)
    elif what == "another attempt":
        asked = replace(asked, attempt=2)
    elif what == "another card":
        await payments.make_default(customer, add_card(base, customer, GOOD))
    assert await payments.charge(asked) == first
    assert charges(base, customer) == [("succeeded", 500)]


async def test_many_who_ask_at_once_charge_once(base: str, payments: StripePayments) -> None:
    customer = payer(base, GOOD)
    asked = ask(customer)
    answers = await asyncio.gather(*(payments.charge(asked) for _ in range(5)))
    assert {answer.outcome for answer in answers} == {"succeeded"}
    assert len({answer.provider_ref for answer in answers}) == 1
    assert charges(base, customer) == [("succeeded", 500)]


async def test_a_decline_is_an_answer_and_may_be_tried_again(
    base: str, payments: StripePayments
) -> None:
    customer = payer(base, DECLINED)
    asked = ask(customer)
    answer = await payments.charge(asked)
    assert (answer.outcome, answer.code) == ("declined", "card_declined")
    assert answer.message
    await payments.make_default(customer, add_card(base, customer, GOOD))
    again = await payments.charge(replace(asked, attempt=2))
    assert again.outcome == "succeeded"
    assert charges(base, customer) == [("failed", 500), ("succeeded", 500)]


async def test_a_card_that_asks_for_its_owner(base: str, payments: StripePayments) -> None:
    """Off-session nobody can answer; with the payer there, the same intent has a page for them."""
    asked = ask(payer(base, ASKS))
    answer = await payments.charge(asked)
    assert (answer.outcome, answer.redirect_url) == ("requires_action", None)
    present = replace(asked, payer_present=True, return_url="https://shop.test/back")
    page = await payments.charge(present)
    assert (page.outcome, page.provider_ref) == ("requires_action", answer.provider_ref)
    assert page.redirect_url == f"https://bank.test/{answer.provider_ref}"
    assert await payments.charge(present) == page
    with client(base) as there:
        intent = there.get(f"/v1/payment_intents/{page.provider_ref}").json()
        confirmed = {"client_secret": intent["client_secret"], "success": "true"}
        there.post(f"/v1/payment_intents/{page.provider_ref}/_authenticate", data=confirmed)
    assert (await payments.charge(asked)).outcome == "succeeded"
    assert charges(base, str(asked.payer_ref)) == [("succeeded", 500)]


@pytest.mark.parametrize("known", [True, False])
async def test_nobody_to_charge(base: str, payments: StripePayments, known: bool) -> None:
    answer = await payments.charge(ask(payer(base) if known else None))
    assert (answer.outcome, answer.code) == ("declined", "no_payment_method")


async def test_the_cards_of_a_payer(base: str, payments: StripePayments) -> None:
    customer = payer(base, GOOD)
    (card,) = await payments.methods(customer)
    assert (card.brand, card.last4, card.is_default) == ("visa", "4242", True)
    assert (card.expiry_month, card.expiry_year) == ("07", "2031")
    second = add_card(base, customer, GOOD)
    assert await payments.payer_of(second) == customer
    await payments.make_default(customer, second)
    cards = await payments.methods(customer)
    assert [(c.payment_method_id, c.is_default) for c in cards] == [
        (second, True),
        (card.payment_method_id, False),
    ]
    await payments.forget(second)
    assert await payments.payer_of(second) is None
    assert await payments.methods(customer) == [card]
    assert await payments.payer_of("pm_none") is None


async def test_a_payer_is_made_once(payments: StripePayments) -> None:
    asked = PayerAsk(new_id("customer"), email="a@b.test")
    assert await payments.open_payer(asked) == await payments.open_payer(asked)


PAGE = CheckoutAsk(
    reference="pay_2",
    owner_id="con_1",
    payer_ref=None,
    amount_e10=5 * E10,
    description="Pro",
    email="a@b.test",
    success_url="http://gateway.test/done",
    cancel_url="http://gateway.test/left",
)


async def test_a_page_of_stripes_own(payments: StripePayments) -> None:
    page = await payments.checkout(PAGE)
    assert page.redirect_url == "https://stripe.test/payment/pay_2"
    assert (page.provider_ref or "").startswith("cs_test_")
    assert await payments.checkout(PAGE) == page
    assert (await payments.checkout(replace(PAGE, attempt=2))).provider_ref != page.provider_ref


async def test_a_payer_whom_stripe_does_not_know_any_more(
    base: str, payments: StripePayments
) -> None:
    """Removed there by hand, or of the account that was used before this one."""
    assert await payments.methods("cus_gone") == ()
    answer = await payments.charge(ask("cus_gone", provider_ref="pi_gone"))
    assert (answer.outcome, answer.code) == ("declined", "no_payment_method")
    for amount_e10 in (5 * E10, None):
        asked = replace(PAGE, reference=new_id("payment"), amount_e10=amount_e10)
        page = await payments.checkout(replace(asked, payer_ref="cus_gone"))
        assert page.payer_gone
        with client(base) as there:
            made = there.get(f"/v1/checkout/sessions/{page.provider_ref}").json()
        assert (made["customer"], made["metadata"]["lava_owner_id"]) == (None, "con_1")
        assert not (await payments.checkout(asked)).payer_gone


async def test_a_page_that_only_keeps_a_card(payments: StripePayments) -> None:
    page = await payments.checkout(
        replace(PAGE, reference="set_1", amount_e10=None, payer_ref="cus_1")
    )
    assert page.redirect_url == "https://stripe.test/setup/set_1"


async def test_a_charge_that_somebody_cancelled_at_stripe_is_made_anew_once(
    base: str, payments: StripePayments
) -> None:
    customer = payer(base, ASKS)
    asked = ask(customer)
    first = await payments.charge(asked)
    with client(base) as there:
        there.post(f"/v1/payment_intents/{first.provider_ref}/cancel")
    await payments.make_default(customer, add_card(base, customer, GOOD))
    again = replace(asked, attempt=2, provider_ref=first.provider_ref)
    for _ in range(2):  # the second time as after a crash that lost the answer
        made = await payments.charge(again)
        assert made.outcome == "succeeded"
        assert made.provider_ref != first.provider_ref
    later = replace(again, attempt=3)  # and as after the day that keys are kept for
    assert await payments.charge(later) == made
    assert charges(base, customer) == [("succeeded", 500)]


def looked(payment_id: str, **known: object) -> Lookup:
    facts = {"owner_id": "con_1", "payer_ref": None, "provider_ref": None, "page_ref": None}
    facts |= {"paged": False, "created_at": datetime.now(UTC), "answered": True, **known}
    return Lookup(payment_id, **facts)  # type: ignore[arg-type]


async def test_what_became_of_a_charge(base: str, payments: StripePayments) -> None:
    """By the intent's id, or by our mark on it; what is made cannot be called off, others can."""
    for number, state, then in (
        (GOOD, "succeeded", "succeeded"),
        (DECLINED, "declined", "over"),
        (ASKS, "waits", "over"),
    ):
        asked = ask(payer(base, number))
        made = await payments.charge(asked)
        by_mark = {"payer_ref": asked.payer_ref}
        found = await payments.look_up(looked(asked.payment_id, **by_mark))
        assert found is not None
        by_id = {"provider_ref": found.provider_ref}
        assert made.provider_ref in (None, found.provider_ref)
        for known in (by_id, by_mark):
            assert await payments.look_up(looked(asked.payment_id, **known)) == found
            assert (found.state, found.payer_ref) == (state, asked.payer_ref)
            assert found.amount_e10 == (5 * E10 if state == "succeeded" else 0)
            assert found.code == ("card_declined" if state == "declined" else None)
        ended = await payments.call_off(looked(asked.payment_id, **by_id))
        assert ended is not None
        assert ended.state == then
    for known in ({"provider_ref": "pi_none"}, {"payer_ref": payer(base, GOOD)}, {}):
        assert await payments.look_up(looked("pay_none", **known)) is None
        assert await payments.call_off(looked("pay_none", **known)) is None


async def test_what_became_of_a_page(base: str, payments: StripePayments) -> None:
    """By its id, or by our mark on it."""
    for what, state in (("pay", "succeeded"), ("expire", "over"), (None, "over")):
        asked = replace(PAGE, reference=new_id("payment"))
        page = str((await payments.checkout(asked)).provider_ref)
        by_id = looked(asked.reference, page_ref=page, paged=True)
        by_mark = looked(asked.reference, paged=True)
        assert await payments.look_up(by_id) == await payments.look_up(by_mark)
        assert await payments.look_up(by_mark) == Standing("waits")
        if what is not None:
            with client(base) as there:
                there.post(f"/v1/checkout/sessions/{page}/{what}")
        ended = await payments.call_off(by_mark)
        assert ended == await payments.look_up(by_id)
        assert ended is not None
        assert (ended.state, ended.amount_e10) == (state, 5 * E10 if what == "pay" else 0)
    assert await payments.look_up(looked("pay_none", page_ref="cs_none", paged=True)) is None


async def test_a_live_key_leaves_test_mode_alone() -> None:
    """No connection is made at all."""
    payments = StripePayments("sk_live_x", api_base="http://127.0.0.1:9")
    asked = ask("cus_1", payment_id="pay_test_1")
    assert (await payments.charge(asked)).outcome == "succeeded"
    assert (await payments.checkout(replace(PAGE, reference="pay_test_1"))).redirect_url is None
    payments.close()


async def test_no_answer_is_no_decline() -> None:
    payments = StripePayments(KEY, api_base="http://127.0.0.1:9")
    with pytest.raises(PaymentsDown):
        await payments.charge(ask("cus_1", payment_method_id="pm_1"))
    payments.close()


@pytest.mark.parametrize(
    ("amount_e10", "fine"),
    [(0, True), (E10 // 2, True), (E10 // 2 - E10 // 100, False), (E10 + 1, False)],
)
async def test_amounts_that_stripe_can_move(
    payments: StripePayments, amount_e10: int, fine: bool
) -> None:
    assert (payments.refusal(amount_e10) is None) is fine


async def test_an_amount_that_stripe_cannot_move_is_declined(payments: StripePayments) -> None:
    asked = ask("cus_1", amount_e10=E10 + 1)
    assert (await payments.charge(asked)).code == "amount_not_supported"
    assert (await payments.checkout(replace(PAGE, amount_e10=1))).redirect_url is None


async def test_a_payer_who_was_given_nowhere_comes_back_to_us(base: str) -> None:
    payments = StripePayments(KEY, api_base=base, return_url="https://gateway.test")
    page = await payments.charge(ask(payer(base, ASKS), payer_present=True))
    assert page.redirect_url == f"https://bank.test/{page.provider_ref}"
    payments.close()


def test_a_key_that_is_refused_is_not_repeated() -> None:
    error = stripe.AuthenticationError("Invalid API Key provided: sk_live_abc***wxyz")
    assert "sk_" not in objects.text(error)
    settings = Settings(
        payments="stripe",
        stripe_secret_key=SecretStr("sk_live_secret"),
        stripe_webhook_secret=SecretStr("whsec_secret"),
    )
    made = make_payments(settings)
    assert "secret" not in repr(settings).replace("stripe_secret_key", "").replace(
        "stripe_webhook_secret", ""
    )
    assert "sk_live" not in repr(made)
    made.close()


@pytest.mark.parametrize("missing", ["stripe_secret_key", "stripe_webhook_secret"])
def test_nothing_starts_without_both_secrets(missing: str) -> None:
    given = {"stripe_secret_key": SecretStr("x"), "stripe_webhook_secret": SecretStr("y")}
    del given[missing]
    with pytest.raises(ConfigurationError, match="LAVA_STRIPE_SECRET_KEY"):
        make_payments(Settings(payments="stripe", **given))  # type: ignore[arg-type]


async def test_doctor_asks_whether_stripe_answers(base: str) -> None:
    secrets = {"stripe_secret_key": SecretStr(KEY), "stripe_webhook_secret": SecretStr("y")}

    def settings(api_base: str) -> Settings:
        return Settings(payments="stripe", stripe_api_base=api_base, **secrets)  # type: ignore[arg-type]

    assert await ask_payments(settings(base)) == (True, "payments: stripe")
    fine, why = await ask_payments(settings("http://127.0.0.1:9"))
    assert not fine
    assert "Stripe" in why
    assert (await ask_payments(Settings(payments="stripe")))[0] is False
    assert await ask_payments(Settings()) == (True, "payments: manual")
