"""What became of a payment at Stripe, for when no message of it reached us.

It is found by what we know of it: the page's id, the intent's, or else the mark that both bear. All
calls here block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

import stripe

from lava_proxy.payments import stripe_objects as objects
from lava_proxy.payments.seam import Lookup, Standing, State

T = TypeVar("T")

LIST_MAX = 100
CANCELLED = "canceled"
PAGES_MOST = 1000
"""Pages that are looked through for one whose id we did not get to keep."""
PAGE_FROM, PAGE_UNTIL = timedelta(minutes=-5), timedelta(hours=1)
"""When such a page was made, counted from when the payment was written down."""

PAGE_STATES: Mapping[str, State] = {"open": "waits", "expired": "over"}
"""Of a page that is not paid; "complete" is one whose payment is under way."""
INTENT_STATES: Mapping[str, State] = {
    "succeeded": "succeeded",
    "canceled": "over",
    "requires_payment_method": "declined",
    "requires_action": "waits",
    "requires_confirmation": "waits",
}


def intent_of(
    client: stripe.StripeClient, payment_id: str, ref: str | None, payer_ref: str | None
) -> stripe.PaymentIntent | None:
    """The payment's intent: by its id, or among the payer's newest the one that bears our mark. One
    that was cancelled counts only where there is no other."""
    intents = client.v1.payment_intents
    found = None if ref is None else known(partial(intents.retrieve, ref))
    if payer_ref is None or (found is not None and found.status != CANCELLED):
        return found
    newest = known(partial(intents.list, {"customer": payer_ref, "limit": LIST_MAX}))
    for intent in newest.data if newest else ():
        marks = objects.plain(intent).get("metadata") or {}
        if marks.get(objects.PAYMENT) == payment_id:
            if intent.status != CANCELLED:
                return intent
            found = found or intent
    return found


def is_missing(error: stripe.InvalidRequestError) -> bool:
    """What was named is not there: removed by hand, or of another account of Stripe's, or of its
    other mode."""
    return error.http_status == 404 or error.code == "resource_missing"


def known(work: Callable[[], T]) -> T | None:
    """What is asked for, if it is there."""
    try:
        return work()
    except stripe.InvalidRequestError as error:
        if is_missing(error):
            return None
        raise


def standing(client: stripe.StripeClient, ask: Lookup) -> Standing | None:
    """How a payment stands; None where Stripe has nothing of it."""
    try:
        page = _page_of(client, ask)
        if page is not None:
            return _of_page(page)
        intent = intent_of(client, ask.payment_id, ask.provider_ref, ask.payer_ref)
        return None if intent is None else _of_intent(intent)
    except stripe.InvalidRequestError as error:
        if is_missing(error):
            return None
        raise


def call_off(client: stripe.StripeClient, ask: Lookup) -> Standing | None:
    """End a payment that is not made; answers how it stands then."""
    try:
        page = _page_of(client, ask)
        if page is not None:
            return _of_page(client.v1.checkout.sessions.expire(page.id))
        intent = intent_of(client, ask.payment_id, ask.provider_ref, ask.payer_ref)
        if intent is not None:
            return _of_intent(client.v1.payment_intents.cancel(intent.id))
    except stripe.InvalidRequestError:  # made, or ended, in this moment
        return standing(client, ask)
    return None


def _page_of(client: stripe.StripeClient, ask: Lookup) -> stripe.checkout.Session | None:
    if ask.page_ref is not None:
        return client.v1.checkout.sessions.retrieve(ask.page_ref)
    if not ask.paged or ask.provider_ref is not None:
        return None
    for page in islice(_pages_then(client, ask), PAGES_MOST):
        if objects.plain(page).get("client_reference_id") == ask.payment_id:
            return page
    return None


def _pages_then(client: stripe.StripeClient, ask: Lookup) -> Iterator[stripe.checkout.Session]:
    """The newest first, so that of a payment's pages the last one counts."""
    since, until = ask.created_at + PAGE_FROM, ask.created_at + PAGE_UNTIL
    return client.v1.checkout.sessions.list(
        {
            "created": {"gte": int(since.timestamp()), "lte": int(until.timestamp())},
            "limit": LIST_MAX,
        }
    ).auto_paging_iter()


def _of_page(page: stripe.checkout.Session) -> Standing:
    facts = objects.plain(page)
    paid = facts.get("payment_status") == "paid"
    state = "succeeded" if paid else PAGE_STATES.get(str(facts.get("status")), "pending")
    return Standing(
        state,
        provider_ref=objects.id_of(facts.get("payment_intent")),
        payer_ref=objects.id_of(facts.get("customer")),
        amount_e10=objects.paid_e10(facts, "amount_total") if paid else 0,
    )


def _of_intent(intent: stripe.PaymentIntent) -> Standing:
    facts = objects.plain(intent)
    state = INTENT_STATES.get(intent.status, "pending")
    code, message = objects.error_of(facts) if state == "declined" else (None, None)
    return Standing(
        state,
        provider_ref=intent.id,
        payer_ref=objects.id_of(facts.get("customer")),
        amount_e10=objects.paid_e10(facts, "amount_received"),
        code=code,
        message=message,
    )
