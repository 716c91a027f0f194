"""Charging through Stripe, against localstripe as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from lava_proxy.core.money import E10
from lava_proxy.payments.seam import ChargeAsk, HostedAsk, PaymentsDown
from lava_proxy.payments.stripe import StripePayments

KEY = "sk_test_local"


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """The address of a running localstripe."""
    program = Path(__file__).with_name("stripe_stand_in.py")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(program)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


@pytest.fixture
def payments(base: str) -> Iterator[StripePayments]:
    made = StripePayments(KEY, api_base=base)
    yield made
    made.close()


def payer(base: str, *, number: str | None = "4242424242424242") -> str:
    """A Stripe customer, with a card unless `number` is None."""
    with httpx.Client(base_url=base, auth=(KEY, "")) as client:
        customer = str(client.post("/v1/customers", data={"name": "A"}).json()["id"])
        if number is not None:
            card = {"number": number, "exp_month": "7", "exp_year": "2031", "cvc": "123"}
            fields = {"type": "card", **{f"card[{name}]": value for name, value in card.items()}}
            method = client.post("/v1/payment_methods", data=fields).json()["id"]
            client.post(f"/v1/payment_methods/{method}/attach", data={"customer": customer})
    return customer


def ask(payer_ref: str | None, **fields: object) -> ChargeAsk:
    known = {"payment_id": "pay_1", "merchant_id": "mer_1", "customer_id": "con_1"}
    return ChargeAsk(
        **{  # type: ignore[arg-type]
            **known,
            "payer_ref": payer_ref,
            "amount_e10": 5 * E10,
            "description": "Pro",
            **fields,
        }
    )


async def test_a_card_on_file_is_charged(base: str, payments: StripePayments) -> None:
    answer = await payments.charge(ask(payer(base)))
    assert answer.outcome == "succeeded"
    with httpx.Client(base_url=base, auth=(KEY, "")) as client:
        intent = client.get(f"/v1/payment_intents/{answer.provider_ref}").json()
    assert (intent["amount"], intent["currency"]) == (500, "usd")
    assert intent["metadata"]["lava_payment_id"] == "pay_1"


async def test_a_known_intent_is_never_charged_again(base: str, payments: StripePayments) -> None:
    customer = payer(base)
    first = await payments.charge(ask(customer))
    again = await payments.charge(ask(customer, provider_ref=first.provider_ref))
    assert again == first
    with httpx.Client(base_url=base, auth=(KEY, "")) as client:
        charges = client.get("/v1/charges", params={"customer": customer}).json()["data"]
    assert len(charges) == 1


async def test_a_decline_is_an_answer(base: str, payments: StripePayments) -> None:
    answer = await payments.charge(ask(payer(base, number="4000000000000341")))
    assert (answer.outcome, answer.code) == ("declined", "card_declined")
    assert answer.message


async def test_a_card_that_asks_for_its_owner(base: str, payments: StripePayments) -> None:
    answer = await payments.charge(ask(payer(base, number="4000002500003155")))
    assert answer.outcome == "requires_action"
    assert answer.provider_ref


@pytest.mark.parametrize("known", [True, False])
async def test_nobody_to_charge(base: str, payments: StripePayments, known: bool) -> None:
    answer = await payments.charge(ask(payer(base, number=None) if known else None))
    assert (answer.outcome, answer.code) == ("declined", "no_payment_method")


async def test_the_cards_of_a_payer(base: str, payments: StripePayments) -> None:
    (card,) = await payments.methods(payer(base))
    assert (card.brand, card.last4, card.is_default) == ("visa", "4242", True)
    assert (card.expiry_month, card.expiry_year) == ("07", "2031")


async def test_a_page_of_stripes_own(payments: StripePayments) -> None:
    url = await payments.hosted_page(
        HostedAsk(
            payment_id="pay_2",
            merchant_id="mer_1",
            customer_id="con_1",
            payer_ref=None,
            amount_e10=5 * E10,
            description="Pro",
            email="a@b.test",
            back_url="http://gateway.test/embed/checkout/x",
            expires_at=datetime.now(UTC) + timedelta(hours=1),
        )
    )
    assert url == "https://stripe.test/c/1"


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
