"""Stripe's objects as our values, and the marks by which a message finds its payment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import stripe

from lava_proxy.core.money import E10
from lava_proxy.payments.seam import ChargeAnswer, StoredMethod

Facts = Mapping[str, Any]

CENT_E10 = E10 // 100
CURRENCY = "usd"
LEAST_CENTS = 50
"""https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts (USD)"""
MOST_CENTS = 99_999_999
CENTS_MAX = 10**12
"""A figure beyond this is absurd."""

PAYMENT, OWNER = "lava_payment_id", "lava_owner_id"
"""Metadata of ours on everything that we make at Stripe."""


def refusal(amount_e10: int) -> str | None:
    """Stripe moves whole cents, and not too few of them."""
    cents, rest = divmod(amount_e10, CENT_E10)
    if rest:
        return "must be whole cents: payments go through Stripe"
    if amount_e10 and not LEAST_CENTS <= cents <= MOST_CENTS:
        return "must be from 0.50 to 999999.99, or zero: payments go through Stripe"
    return None


def cents(amount_e10: int) -> int:
    """An amount that `refusal` lets pass, as Stripe counts it."""
    amount, rest = divmod(amount_e10, CENT_E10)
    if rest:
        raise ValueError("Stripe moves whole cents only")
    return amount


def marks(payment_id: str | None, owner_id: str) -> dict[str, str]:
    """How a message of Stripe's finds its payment, before we know Stripe's own id of it."""
    return {OWNER: owner_id} if payment_id is None else {PAYMENT: payment_id, OWNER: owner_id}


def answer(intent: stripe.PaymentIntent) -> ChargeAnswer:
    """What the state of a payment intent means to us."""
    facts = plain(intent)
    if intent.status == "succeeded":
        return ChargeAnswer("succeeded", intent.id)
    if intent.status == "requires_action":
        redirect = (facts.get("next_action") or {}).get("redirect_to_url") or {}
        return ChargeAnswer("requires_action", intent.id, redirect_url=redirect.get("url"))
    if intent.status in ("requires_payment_method", "canceled"):
        code, message = error_of(facts)
        return ChargeAnswer("declined", intent.id, code or intent.status, message)
    return ChargeAnswer("pending", intent.id)


def declined(error: stripe.CardError) -> ChargeAnswer:
    """A charge that the card's bank said no to. That it wants to see the payer is no decline for
    good: the same intent can be confirmed with them there."""
    body = error.json_body if isinstance(error.json_body, Mapping) else {}
    facts = body.get("error") or {}
    code = facts.get("decline_code") or error.code
    wants_payer = "authentication_required" in (error.code, code)
    return ChargeAnswer(
        "requires_action" if wants_payer else "declined",
        (facts.get("payment_intent") or {}).get("id"),
        code,
        text(error),
    )


def error_of(intent: Facts) -> tuple[str | None, str | None]:
    """(code, message) of an intent's last failure."""
    error = intent.get("last_payment_error") or {}
    return error.get("decline_code") or error.get("code"), error.get("message")


def stored(card: Facts, default: str | None) -> StoredMethod:
    """A card on file."""
    facts = card["card"]
    return StoredMethod(
        payment_method_id=card["id"],
        brand=facts["brand"],
        last4=facts["last4"],
        expiry_month=f"{int(facts['exp_month']):02d}",
        expiry_year=str(facts["exp_year"]),
        is_default=card["id"] == default,
    )


def default_of(customer: Facts) -> str | None:
    """The card that a Stripe customer chose, if any."""
    default = (customer.get("invoice_settings") or {}).get("default_payment_method")
    return default if isinstance(default, str) else customer.get("default_source")


def id_of(value: object) -> str | None:
    """An id, whether Stripe sends it or the whole object."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) else None


def e10_of(cents: object) -> int:
    """Whole cents; what is absurd is nothing."""
    known = isinstance(cents, int) and not isinstance(cents, bool) and 0 <= cents <= CENTS_MAX
    return cents * CENT_E10 if known else 0  # type: ignore[operator]


def paid_e10(about: Facts, amount: str) -> int:
    """What came in, in USD: nothing that we know of, where it is in another currency."""
    return e10_of(about.get(amount)) if about.get("currency") in (None, CURRENCY) else 0


def plain(made: stripe.StripeObject) -> Facts:
    """Optional members are attributes that may not be there: as a mapping they can be asked for."""
    facts: Facts = made.to_dict()
    return facts


def text(error: stripe.StripeError) -> str:
    """What went wrong, for people. Stripe's texts never hold a key, but for its first letters and
    last four where the key itself is wrong: those are left out."""
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return "the key is refused"
    return (error.user_message or str(error))[:500]
