"""Stripe: cards on file, charged off-session; Stripe's own pages to pay and to leave a card on.

We use no subscriptions of Stripe's: a renewal is a payment of ours. A payment has one payment
intent there, which succeeds at most once whatever we ask:

* it is made under our payment id and attempt as the idempotency key;
* Stripe forgets such keys after a day, and refuses one that comes with another card, so the payer's
  intents are looked through first for one that bears our payment id;
* where there is one, a further try confirms it again.

So a time-out, a crash between the charge and our commit, or a worker that runs twice never charges
twice. With a live key, nobody is asked for payments of the test mode: no money moves in test mode.

The library is used through its blocking client in a few threads of our own: its asynchronous one
needs another HTTP client, and nothing here is on the path of a gateway call.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import stripe

from lava_proxy.core.ids import is_test
from lava_proxy.payments import stripe_asks as asks
from lava_proxy.payments import stripe_lookups as lookups
from lava_proxy.payments import stripe_objects as objects
from lava_proxy.payments.events import ProviderEvent
from lava_proxy.payments.seam import (
    ChargeAnswer,
    ChargeAsk,
    CheckoutAnswer,
    CheckoutAsk,
    Lookup,
    PayerAsk,
    PaymentsDown,
    Standing,
    StoredMethod,
)
from lava_proxy.payments.stripe_events import read_event

TIMEOUT_S = 20.0
THREADS = 8
RETRIES = 1
"""By the library itself, with the same idempotency key, when no answer came."""
OPEN = ("requires_payment_method", "requires_confirmation")
"""An intent that waits for a means of payment."""
NO_CARD = ChargeAnswer("declined", code="no_payment_method", message="no card is on file")
OWN_FAULTS = frozenset({"payment_intent_unexpected_state", "idempotency_key_in_use"})
"""Somebody else is at the same payment: what became of it is known in a moment."""

T = TypeVar("T")


class StripePayments:
    """Stripe behind our seam. `close` it once."""

    name = "stripe"

    def __init__(
        self,
        secret_key: str,
        *,
        webhook_secret: str = "",
        tolerance_s: int = 300,
        api_base: str | None = None,
        return_url: str | None = None,
    ) -> None:
        """`return_url`: where payers come back to who were given nowhere else."""
        bases: Any = {"api": api_base} if api_base else {}
        self._live = "_live_" in secret_key
        self._webhook_secret = webhook_secret
        self._tolerance_s = tolerance_s
        self._return_url = return_url
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
        return objects.refusal(amount_e10)

    def read_event(self, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> ProviderEvent:
        """Believed with a recent signature of the raw bytes."""
        signature = dict(headers).get(b"stripe-signature", b"").decode("latin-1")
        return read_event(body, signature, self._webhook_secret, self._tolerance_s)

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        """One payment intent per payment: made and confirmed, or confirmed again."""
        if self._live and is_test(ask.payment_id):
            return ChargeAnswer("succeeded")
        why = objects.refusal(ask.amount_e10)
        if why is not None:  # of a plan that is older than Stripe is here
            return ChargeAnswer("declined", code="amount_not_supported", message=why)
        payer_ref = ask.payer_ref
        if payer_ref is None:
            return NO_CARD
        if ask.return_url is None:
            ask = replace(ask, return_url=self._return_url)
        method, known = await asyncio.gather(
            self._method(ask, payer_ref), self._known_intent(ask, payer_ref)
        )
        if known is not None and known.status == lookups.CANCELLED:
            known = None  # by hand, at Stripe: it can never be made, so a further try is another
        if known is not None and not _may_confirm(ask, known):
            return objects.answer(known)
        if method is None:
            return NO_CARD
        try:
            intent = await self._run(functools.partial(self._charged, ask, method, known))
        except stripe.CardError as error:
            return objects.declined(error)
        except stripe.InvalidRequestError as error:
            if error.code in OWN_FAULTS:
                raise PaymentsDown(f"Stripe: {error.code}") from error
            # Also "no such payment method": this payment can't be made, the provider is well.
            return ChargeAnswer(
                "declined", code=error.code or "invalid", message=objects.text(error)
            )
        return objects.answer(intent)

    async def open_payer(self, ask: PayerAsk) -> str | None:
        """A Stripe customer; asked twice within a day, the same one."""
        facts = {"email": ask.email, "name": ask.name}
        params: dict[str, Any] = {name: value for name, value in facts.items() if value}
        params["metadata"] = objects.marks(None, ask.owner_id)
        made = await self._asked(
            lambda: self._client.v1.customers.create(
                params,  # type: ignore[arg-type]
                {"idempotency_key": f"{ask.owner_id}-payer"},
            )
        )
        return made.id

    async def checkout(self, ask: CheckoutAsk) -> CheckoutAnswer:
        """Stripe Checkout: in its payment mode, which also keeps the card for later payments, or in
        its setup mode. No page where `charge` does not ask Stripe either."""
        if (self._live and is_test(ask.reference)) or objects.refusal(ask.amount_e10 or 0):
            return CheckoutAnswer()
        key = f"{ask.reference}-page" + (f"-{ask.attempt}" if ask.attempt > 1 else "")
        made, payer_gone = await self._asked(lambda: self._page(ask, key))
        return CheckoutAnswer(made.url, made.id, payer_gone)

    async def look_up(self, ask: Lookup) -> Standing | None:
        """Its page, or else its intent, by their ids or by the marks that they bear."""
        if self._live and is_test(ask.payment_id):
            return None
        return await self._asked(lambda: lookups.standing(self._client, ask))

    async def call_off(self, ask: Lookup) -> Standing | None:
        """Its page expires, or its intent is cancelled; Stripe does neither to one that is made."""
        return await self._asked(lambda: lookups.call_off(self._client, ask))

    async def methods(self, payer_ref: str) -> Sequence[StoredMethod]:
        """The cards of a Stripe customer, the default one first; none where there is none such."""
        v1 = self._client.v1
        which: Any = {"customer": payer_ref, "type": "card", "limit": lookups.LIST_MAX}
        customer, cards = await asyncio.gather(
            self._asked(lambda: lookups.known(lambda: v1.customers.retrieve(payer_ref))),
            self._asked(lambda: lookups.known(lambda: v1.payment_methods.list(which))),
        )
        if customer is None or cards is None:
            return ()
        default = objects.default_of(objects.plain(customer))
        known = [objects.plain(card) for card in cards.data]
        if known and not any(card["id"] == default for card in known):
            default = known[0]["id"]
        found = [objects.stored(card, default) for card in known]
        return sorted(found, key=lambda card: not card.is_default)

    async def payer_of(self, payment_method_id: str) -> str | None:
        """The Stripe customer that a card is attached to."""
        try:
            card = await self._run(
                lambda: self._client.v1.payment_methods.retrieve(payment_method_id)
            )
        except stripe.InvalidRequestError:
            return None
        payer = objects.plain(card).get("customer")
        return payer if isinstance(payer, str) else None

    async def make_default(self, payer_ref: str, payment_method_id: str) -> None:
        """Off-session charges take it from now on."""
        await self._asked(
            lambda: self._client.v1.customers.update(
                payer_ref, {"invoice_settings": {"default_payment_method": payment_method_id}}
            )
        )

    async def forget(self, payment_method_id: str) -> None:
        """A card that is detached can never be charged again."""
        await self._asked(lambda: self._client.v1.payment_methods.detach(payment_method_id))

    async def _known_intent(self, ask: ChargeAsk, payer_ref: str) -> stripe.PaymentIntent | None:
        return await self._asked(
            lambda: lookups.intent_of(self._client, ask.payment_id, ask.provider_ref, payer_ref)
        )

    def _page(self, ask: CheckoutAsk, key: str) -> tuple[stripe.checkout.Session, bool]:
        """The page, and whether it makes another payer, because the one that we knew is gone."""
        create: Any = self._client.v1.checkout.sessions.create
        if ask.payer_ref is None:
            return create(asks.page(ask), {"idempotency_key": key}), False
        made = lookups.known(lambda: create(asks.page(ask), {"idempotency_key": key}))
        if made is not None:
            return made, False
        anew = asks.page(replace(ask, payer_ref=None))
        return create(anew, {"idempotency_key": f"{key}-anew"}), True

    async def _method(self, ask: ChargeAsk, payer_ref: str) -> str | None:
        if ask.payment_method_id is not None:
            return ask.payment_method_id
        for card in await self.methods(payer_ref):
            return card.payment_method_id
        return None

    def _charged(
        self, ask: ChargeAsk, method: str, known: stripe.PaymentIntent | None
    ) -> stripe.PaymentIntent:
        intents = self._client.v1.payment_intents
        if known is not None:
            return intents.confirm(
                known.id,
                {"payment_method": method, **asks.presence(ask)},  # type: ignore[arg-type]
            )
        return intents.create(
            asks.intent(ask, method),  # type: ignore[arg-type]
            {"idempotency_key": f"{ask.payment_id}-{ask.attempt}"},
        )

    async def _asked(self, work: Callable[[], T]) -> T:
        """As `_run`, where a refusal can only be a fault of ours or of the account."""
        try:
            return await self._run(work)
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            raise PaymentsDown(f"Stripe refuses: {objects.text(error)}") from error

    async def _run(self, work: Callable[[], T]) -> T:
        """`work` in a thread. Everything but an answer about this payment is `PaymentsDown`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (stripe.CardError, stripe.InvalidRequestError):
            raise
        except stripe.StripeError as error:
            raise PaymentsDown(f"Stripe: {type(error).__name__}: {objects.text(error)}") from error


def _may_confirm(ask: ChargeAsk, known: stripe.PaymentIntent) -> bool:
    """Whether there is something to ask of an intent, or it has its answer. One that waits for its
    payer is confirmed again for a payer who is there now and has no page to go to."""
    waits = known.status == "requires_action" and ask.payer_present
    return known.status in OPEN or (waits and objects.answer(known).redirect_url is None)
