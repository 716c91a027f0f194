"""Stripe's webhook messages: who sent them, and what they say about a payment of ours.

The signature covers the raw bytes and their time. Only what decides about money is read; Stripe
sends some 200 other types, which are answered and forgotten. Reference:
https://docs.stripe.com/webhooks#verify-official-libraries, https://docs.stripe.com/api/events/types
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import stripe

from lava_proxy.payments.events import BadSignature, EventKind, ProviderEvent, Reversal
from lava_proxy.payments.stripe_objects import (
    OWNER,
    PAYMENT,
    Facts,
    e10_of,
    error_of,
    id_of,
    paid_e10,
)

VOID_REFUNDS = ("failed", "canceled")
"""A refund that will never be; also one that had succeeded may fail, and stays so."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What every message has."""

    event_id: str
    at: datetime


Reader = Callable[[_Head, Facts], ProviderEvent]


def read_event(body: bytes, signature: str, secret: str, tolerance_s: int) -> ProviderEvent:
    """The message in `body`, or `BadSignature`. A message that is signed but makes no sense to us
    has no kind."""
    if not secret:
        raise BadSignature("no webhook secret is set")
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret, tolerance_s)
        message = json.loads(body)
        head = _Head(message["id"], datetime.fromtimestamp(int(message.get("created", 0)), UTC))
    except (
        stripe.SignatureVerificationError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise BadSignature(str(error)) from None
    if not isinstance(head.event_id, str):
        raise BadSignature("the event has no id")
    event_type, data = message.get("type"), message.get("data")
    about = data.get("object") if isinstance(data, dict) else None
    reader = READERS.get(event_type) if isinstance(event_type, str) else None
    if reader is None or not isinstance(about, dict):
        return ProviderEvent(head.event_id, head.at)
    return reader(head, about)


def _intent(kind: EventKind) -> Reader:
    def read(head: _Head, intent: Facts) -> ProviderEvent:
        code, message = error_of(intent)
        tried = (intent.get("last_payment_error") or {}).get("payment_method")
        return ProviderEvent(
            head.event_id,
            head.at,
            kind,
            **_marks(intent),
            provider_ref=id_of(intent.get("id")),
            payer_ref=id_of(intent.get("customer")),
            method_ref=id_of(tried) if kind == "failed" else id_of(intent.get("payment_method")),
            amount_e10=paid_e10(intent, "amount_received") if kind == "succeeded" else 0,
            code=code,
            message=message,
        )

    return read


def _checkout(head: _Head, session: Facts) -> ProviderEvent:
    """Paid, or only a card left, or (for means of payment that take days) only begun."""
    return ProviderEvent(
        head.event_id,
        head.at,
        "succeeded" if session.get("payment_status") == "paid" else "card_saved",
        **_marks(session),
        provider_ref=id_of(session.get("payment_intent")),
        payer_ref=id_of(session.get("customer")),
        amount_e10=paid_e10(session, "amount_total"),
    )


def _ended_page(head: _Head, session: Facts) -> ProviderEvent:
    return ProviderEvent(head.event_id, head.at, "ended", **_marks(session))


def _setup(head: _Head, setup: Facts) -> ProviderEvent:
    return ProviderEvent(
        head.event_id,
        head.at,
        "card_saved",
        **_marks(setup),
        payer_ref=id_of(setup.get("customer")),
        method_ref=id_of(setup.get("payment_method")),
    )


def _refund(head: _Head, refund: Facts) -> ProviderEvent:
    over = refund.get("status") in VOID_REFUNDS
    return _reversed(head, refund, _reversal("refund", refund.get("id"), refund, "amount", over))


def _charge(head: _Head, charge: Facts) -> ProviderEvent:
    """All that is refunded by then: a net for endpoints that are not told of each refund."""
    found = _reversal("total", charge.get("id"), charge, "amount_refunded", False)
    return _reversed(head, charge, found)


def _dispute(head: _Head, dispute: Facts) -> ProviderEvent:
    """An inquiry ("warning_...") moves no money; a dispute that is won gives it back."""
    status = str(dispute.get("status"))
    inquiry = status.startswith("warning_")
    found = _reversal("dispute", dispute.get("id"), {} if inquiry else dispute, "amount", False)
    if found is not None and status in ("won", "warning_closed"):
        found = Reversal(found.ref, found.kind, found.amount_e10, True)
    return _reversed(head, dispute, found, code=dispute.get("reason"))


def _reversal(kind: Any, ref: object, about: Facts, amount: str, over: bool) -> Reversal | None:
    if not isinstance(ref, str):
        return None
    return Reversal(ref, kind, e10_of(about.get(amount)), over)


def _reversed(
    head: _Head, about: Facts, reversal: Reversal | None, code: str | None = None
) -> ProviderEvent:
    ref = id_of(about.get("payment_intent"))
    if reversal is None or ref is None:  # of a charge without an intent: none of ours
        return ProviderEvent(head.event_id, head.at)
    return ProviderEvent(
        head.event_id, head.at, "reversed", provider_ref=ref, reversal=reversal, code=code
    )


def _many(names: Iterable[str], reader: Reader) -> dict[str, Reader]:
    return dict.fromkeys(names, reader)


READERS: Mapping[str, Reader] = {
    "payment_intent.succeeded": _intent("succeeded"),
    "payment_intent.payment_failed": _intent("failed"),
    "payment_intent.requires_action": _intent("requires_action"),
    "payment_intent.canceled": _intent("ended"),
    "checkout.session.expired": _ended_page,
    "checkout.session.completed": _checkout,
    "checkout.session.async_payment_succeeded": _checkout,
    "setup_intent.succeeded": _setup,
    **_many(("refund.created", "refund.updated", "refund.failed"), _refund),
    "charge.refund.updated": _refund,
    "charge.refunded": _charge,
    **_many((f"charge.dispute.{what}" for what in ("created", "updated", "closed")), _dispute),
    **_many(
        (f"charge.dispute.{what}" for what in ("funds_withdrawn", "funds_reinstated")), _dispute
    ),
}
"""Event type -> how its object is read."""


def _marks(about: Facts) -> dict[str, Any]:
    found = about.get("metadata")
    marks = found if isinstance(found, dict) else {}
    return {"payment_id": id_of(marks.get(PAYMENT)), "owner_id": id_of(marks.get(OWNER))}
