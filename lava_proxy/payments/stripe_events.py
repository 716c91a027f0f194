"""Stripe's webhook messages: who sent them, and what they say about a payment of ours.

The signature covers the raw bytes and their time. Only what decides about money is read; Stripe
sends some 200 other types, which are answered and forgotten. Reference:
https://docs.stripe.com/webhooks#verify-official-libraries and https://docs.stripe.com/api/events/types
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import stripe

from lava_proxy.payments.events import BadSignature, EventKind, ProviderEvent
from lava_proxy.payments.stripe import CENT_E10

Facts = Mapping[str, Any]


def read_event(body: bytes, signature: str | None, secret: str, tolerance_s: int) -> ProviderEvent:
    """The message in `body`, or `BadSignature`. A message that is signed but makes no sense to us
    has no kind."""
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret, tolerance_s)
        message = json.loads(body)
        event_id = message["id"]
    except (stripe.SignatureVerificationError, ValueError, TypeError, KeyError) as error:
        raise BadSignature(str(error)) from None
    event_type, about = message.get("type"), (message.get("data") or {}).get("object")
    if not isinstance(event_id, str):
        raise BadSignature("the event has no id")
    reader = READERS.get(event_type) if isinstance(event_type, str) else None
    if reader is None or not isinstance(about, dict):
        return ProviderEvent(event_id, None)
    return reader(event_id, about)


def _intent(kind: EventKind) -> Callable[[str, Facts], ProviderEvent]:
    def read(event_id: str, intent: Facts) -> ProviderEvent:
        error = intent.get("last_payment_error") or {}
        return ProviderEvent(
            event_id,
            kind,
            **_marks(intent),
            provider_ref=intent.get("id"),
            payer_ref=_id(intent.get("customer")),
            amount_e10=_e10(intent.get("amount_received") or intent.get("amount")),
            code=error.get("decline_code") or error.get("code"),
            message=error.get("message"),
        )

    return read


def _checkout(event_id: str, session: Facts) -> ProviderEvent:
    """Paid, or (for means of payment that take days) only begun; the card is kept either way."""
    return ProviderEvent(
        event_id,
        "succeeded" if session.get("payment_status") == "paid" else "card_saved",
        **_marks(session),
        provider_ref=_id(session.get("payment_intent")),
        payer_ref=_id(session.get("customer")),
        amount_e10=_e10(session.get("amount_total")),
    )


def _refunded(event_id: str, charge: Facts) -> ProviderEvent:
    return ProviderEvent(
        event_id,
        "refunded",
        **_marks(charge),
        provider_ref=_id(charge.get("payment_intent")),
        payer_ref=_id(charge.get("customer")),
        amount_e10=_e10(charge.get("amount_refunded")),
    )


def _dispute(kind: EventKind) -> Callable[[str, Facts], ProviderEvent]:
    def read(event_id: str, dispute: Facts) -> ProviderEvent:
        # "warning_*": an inquiry, no money moves; "won" and "warning_closed" give it back.
        status = dispute.get("status") or ""
        inquiry = status.startswith("warning_")
        return ProviderEvent(
            event_id,
            kind,
            provider_ref=_id(dispute.get("payment_intent")),
            amount_e10=0 if inquiry else _e10(dispute.get("amount")),
            dispute_ref=dispute.get("id"),
            won=status == "won" or inquiry,
            code=dispute.get("reason"),
        )

    return read


def _setup(event_id: str, setup: Facts) -> ProviderEvent:
    return ProviderEvent(
        event_id, "card_saved", **_marks(setup), payer_ref=_id(setup.get("customer"))
    )


READERS: Mapping[str, Callable[[str, Facts], ProviderEvent]] = {
    "payment_intent.succeeded": _intent("succeeded"),
    "payment_intent.payment_failed": _intent("failed"),
    "payment_intent.requires_action": _intent("requires_action"),
    "checkout.session.completed": _checkout,
    "checkout.session.async_payment_succeeded": _checkout,
    "charge.refunded": _refunded,
    "charge.dispute.created": _dispute("disputed"),
    "charge.dispute.closed": _dispute("dispute_closed"),
    "setup_intent.succeeded": _setup,
}
"""Event type -> how its object is read."""


def _marks(about: Facts) -> dict[str, Any]:
    marks = about.get("metadata") or {}
    return {"payment_id": marks.get("lava_payment_id"), "owner_id": marks.get("lava_owner_id")}


def _id(value: object) -> str | None:
    """An id, whether Stripe sends it or the whole object."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) else None


def _e10(cents: object) -> int:
    return cents * CENT_E10 if isinstance(cents, int) else 0
