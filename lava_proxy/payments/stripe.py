"""Stripe: cards on file, charged off-session; Stripe's own hosted page for the first payment.

We use no subscriptions of Stripe's: a renewal is a payment of ours. A payment has one payment
intent there, which succeeds at most once whatever we ask: it is made under our payment id and
attempt as the idempotency key, and where its id is known (`provider_ref`) a further try confirms
the same intent again. So a time-out, a crash between the charge and our commit, or a worker that
runs twice never charges twice.

The library is used through its blocking client in a few threads of our own: its asynchronous one
needs another HTTP client, and nothing here is on the path of a gateway call.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import stripe

from lava_proxy.core.money import E10
from lava_proxy.payments.seam import (
    ChargeAnswer,
    ChargeAsk,
    HostedAsk,
    PaymentsDown,
    StoredMethod,
)

CENT_E10 = E10 // 100
CURRENCY = "usd"
LEAST_CENTS = 50
"""https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts (USD)"""
MOST_CENTS = 99_999_999
TIMEOUT_S = 20.0
THREADS = 8
RETRIES = 1
"""By the library itself, with the same idempotency key, when no answer came."""
CARDS_MAX = 100

T = TypeVar("T")


class StripePayments:
    """Stripe behind our seam. `close` it once."""

    name = "stripe"

    def __init__(self, secret_key: str, *, api_base: str | None = None) -> None:
        bases: Any = {"api": api_base} if api_base else {}
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses=bases,
            max_network_retries=RETRIES,
            http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        )
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="stripe")

    def close(self) -> None:
        """Let calls under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def refusal(self, amount_e10: int) -> str | None:
        """Stripe moves whole cents, and not too few of them."""
        cents, rest = divmod(amount_e10, CENT_E10)
        if rest:
            return "must be whole cents: payments go through Stripe"
        if amount_e10 and not LEAST_CENTS <= cents <= MOST_CENTS:
            return "must be from 0.50 to 999999.99, or zero: payments go through Stripe"
        return None

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        """One payment intent per payment: made and confirmed, or confirmed again."""
        if ask.payer_ref is None:
            return ChargeAnswer("declined", code="no_payment_method", message="no card is on file")
        method = ask.payment_method_id or await self._default_method(ask.payer_ref)
        if method is None:
            return ChargeAnswer("declined", code="no_payment_method", message="no card is on file")
        try:
            intent = await self._run(functools.partial(self._charged, ask, method))
        except stripe.CardError as error:
            return _declined(error)
        except stripe.InvalidRequestError as error:
            # Also "no such payment method": this payment can't be made, the provider is well.
            return ChargeAnswer("declined", code=error.code or "invalid", message=_text(error))
        return _answer(intent)

    async def hosted_page(self, ask: HostedAsk) -> str | None:
        """Stripe Checkout in its payment mode, which also keeps the card for later payments."""
        payer: dict[str, Any] = {"customer_creation": "always"}
        if ask.payer_ref is not None:
            payer = {"customer": ask.payer_ref}
        elif ask.email:
            payer["customer_email"] = ask.email
        marks = _marks(ask.payment_id, ask.customer_id, ask.description)
        params: dict[str, Any] = {
            "mode": "payment",
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": CURRENCY,
                        "unit_amount": _cents(ask.amount_e10),
                        "product_data": {"name": ask.description},
                    },
                }
            ],
            "metadata": marks,
            "payment_intent_data": {"setup_future_usage": "off_session", "metadata": marks},
            "payment_method_types": ["card"],
            "success_url": ask.back_url,
            "cancel_url": ask.back_url,
            "expires_at": int(ask.expires_at.timestamp()),
            **payer,
        }
        made = await self._asked(
            lambda: self._client.v1.checkout.sessions.create(
                params,  # type: ignore[arg-type]
                {"idempotency_key": f"{ask.payment_id}-page"},
            )
        )
        return made.url

    async def methods(self, payer_ref: str) -> Sequence[StoredMethod]:
        """The cards of a Stripe customer, the default one first."""
        customer = await self._asked(lambda: self._client.v1.customers.retrieve(payer_ref))
        default = _default_of(_plain(customer))
        cards = await self._asked(
            lambda: self._client.v1.payment_methods.list(
                {"customer": payer_ref, "type": "card", "limit": CARDS_MAX}
            )
        )
        found = [_stored(_plain(card), default) for card in cards.data]
        if found and not any(card.is_default for card in found):
            found[0] = _stored(_plain(cards.data[0]), found[0].payment_method_id)
        return sorted(found, key=lambda card: not card.is_default)

    def _charged(self, ask: ChargeAsk, method: str) -> stripe.PaymentIntent:
        intents = self._client.v1.payment_intents
        if ask.provider_ref is None:
            return intents.create(
                _intent(ask, method),  # type: ignore[arg-type]
                {"idempotency_key": f"{ask.payment_id}-{ask.attempt}"},
            )
        known = intents.retrieve(ask.provider_ref)
        if known.status not in ("requires_payment_method", "requires_confirmation"):
            return known
        return intents.confirm(
            ask.provider_ref,
            {"payment_method": method, **_presence(ask)},  # type: ignore[arg-type]
        )

    async def _default_method(self, payer_ref: str) -> str | None:
        for card in await self.methods(payer_ref):
            return card.payment_method_id
        return None

    async def _asked(self, work: Callable[[], T]) -> T:
        """As `_run`, where a refusal can only be a fault of ours or of the account."""
        try:
            return await self._run(work)
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            raise PaymentsDown(f"Stripe refuses: {_text(error)}") from error

    async def _run(self, work: Callable[[], T]) -> T:
        """`work` in a thread. Everything but an answer about this payment is `PaymentsDown`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (stripe.CardError, stripe.InvalidRequestError):
            raise
        except stripe.StripeError as error:
            raise PaymentsDown(f"Stripe: {type(error).__name__}: {_text(error)}") from error


def _intent(ask: ChargeAsk, method: str) -> dict[str, Any]:
    return {
        "amount": _cents(ask.amount_e10),
        "currency": CURRENCY,
        "customer": ask.payer_ref,
        "payment_method": method,
        "payment_method_types": ["card"],
        "confirm": True,
        "metadata": _marks(ask.payment_id, ask.customer_id or ask.merchant_id, ask.description),
        **_presence(ask),
    }


def _presence(ask: ChargeAsk) -> dict[str, Any]:
    """Who is there may be sent to their bank's page; who is not may not."""
    if ask.payer_present and ask.return_url:
        return {"return_url": ask.return_url}
    return {"off_session": True}


def _marks(payment_id: str, owner_id: str, description: str) -> dict[str, str]:
    """How a message of Stripe's finds its payment, before we know Stripe's own id of it."""
    return {
        "lava_payment_id": payment_id,
        "lava_owner_id": owner_id,
        "lava_description": description[:500],
    }


def _answer(intent: stripe.PaymentIntent) -> ChargeAnswer:
    """What the state of a payment intent means to us."""
    facts = _plain(intent)
    if intent.status == "succeeded":
        return ChargeAnswer("succeeded", intent.id)
    if intent.status == "requires_action":
        redirect = (facts.get("next_action") or {}).get("redirect_to_url") or {}
        return ChargeAnswer("requires_action", intent.id, redirect_url=redirect.get("url"))
    if intent.status in ("requires_payment_method", "canceled"):
        error = facts.get("last_payment_error") or {}
        return ChargeAnswer(
            "declined", intent.id, error.get("code") or intent.status, error.get("message")
        )
    return ChargeAnswer("pending", intent.id)


def _declined(error: stripe.CardError) -> ChargeAnswer:
    body = error.json_body if isinstance(error.json_body, Mapping) else {}
    intent = (body.get("error") or {}).get("payment_intent") or {}
    decline = (body.get("error") or {}).get("decline_code")
    return ChargeAnswer("declined", intent.get("id"), decline or error.code, _text(error))


def _stored(card: Mapping[str, Any], default: str | None) -> StoredMethod:
    facts = card["card"]
    return StoredMethod(
        payment_method_id=card["id"],
        brand=facts["brand"],
        last4=facts["last4"],
        expiry_month=f"{int(facts['exp_month']):02d}",
        expiry_year=str(facts["exp_year"]),
        is_default=card["id"] == default,
    )


def _default_of(customer: Mapping[str, Any]) -> str | None:
    default = (customer.get("invoice_settings") or {}).get("default_payment_method")
    return default if isinstance(default, str) else customer.get("default_source")


def _plain(made: stripe.StripeObject) -> Mapping[str, Any]:
    """Optional members are attributes that may not be there: as a mapping they can be asked for."""
    facts: Mapping[str, Any] = made.to_dict()
    return facts


def _cents(amount_e10: int) -> int:
    cents, rest = divmod(amount_e10, CENT_E10)
    if rest:
        raise ValueError("Stripe moves whole cents only")
    return cents


def _text(error: stripe.StripeError) -> str:
    return (error.user_message or str(error))[:500]
