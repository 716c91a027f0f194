"""Stripe's messages: believed only when signed, and read as facts about a payment."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import stripe

from lava_proxy.core.money import E10
from lava_proxy.payments.events import BadSignature, ProviderEvent
from lava_proxy.payments.stripe_events import read_event

SECRET = "whsec_test"
MARKS = {"lava_payment_id": "pay_1", "lava_owner_id": "con_1"}


def signed(body: bytes, *, secret: str = SECRET, age_s: int = 0) -> str:
    stamp = int(time.time()) - age_s
    made: str = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, stamp)
    return made


def message(event_type: str, about: dict[str, Any]) -> bytes:
    event = {"id": "evt_1", "object": "event", "type": event_type, "data": {"object": about}}
    return json.dumps(event).encode()


def read(event_type: str, **about: Any) -> ProviderEvent:
    body = message(event_type, about)
    return read_event(body, signed(body), SECRET, 300)


def test_only_what_is_signed_is_believed() -> None:
    body = message("charge.refunded", {})
    wrong = [
        (body, None),
        (body, ""),
        (body, "t=,v1="),
        (body, signed(body, secret="whsec_other")),
        (body, signed(body, age_s=301)),
        (body + b" ", signed(body)),
        (b"\xff", "t=1,v1=0"),
        (b"{", signed(b"{")),
        (b"[]", signed(b"[]")),
        (b'{"id": 5}', signed(b'{"id": 5}')),
    ]
    for raw, signature in wrong:
        with pytest.raises(BadSignature):
            read_event(raw, signature, SECRET, 300)
    assert read_event(body, signed(body, age_s=200), SECRET, 300).event_id == "evt_1"


def test_a_payment_that_succeeded() -> None:
    found = read(
        "payment_intent.succeeded", id="pi_1", customer="cus_1", amount_received=500, metadata=MARKS
    )
    assert (found.kind, found.payment_id, found.owner_id) == ("succeeded", "pay_1", "con_1")
    assert (found.provider_ref, found.payer_ref, found.amount_e10) == ("pi_1", "cus_1", 5 * E10)


def test_a_payment_that_failed_says_why() -> None:
    error = {"code": "card_declined", "decline_code": "insufficient_funds", "message": "No."}
    found = read("payment_intent.payment_failed", id="pi_1", amount=500, last_payment_error=error)
    assert (found.kind, found.code, found.message) == ("failed", "insufficient_funds", "No.")


@pytest.mark.parametrize(("status", "kind"), [("paid", "succeeded"), ("unpaid", "card_saved")])
def test_a_page_that_was_completed(status: str, kind: str) -> None:
    found = read(
        "checkout.session.completed",
        payment_status=status,
        payment_intent={"id": "pi_1"},
        customer="cus_1",
        metadata=MARKS,
    )
    assert (found.kind, found.provider_ref, found.payer_ref) == (kind, "pi_1", "cus_1")


def test_a_refund_is_what_is_refunded_by_now() -> None:
    found = read("charge.refunded", id="ch_1", payment_intent="pi_1", amount_refunded=123)
    assert (found.kind, found.provider_ref) == ("refunded", "pi_1")
    assert found.amount_e10 == 123 * E10 // 100


@pytest.mark.parametrize(
    ("status", "won", "cents"),
    [("lost", False, 500), ("won", True, 500), ("warning_closed", True, 0)],
)
def test_disputes(status: str, won: bool, cents: int) -> None:
    found = read(
        "charge.dispute.closed", id="dp_1", payment_intent="pi_1", amount=500, status=status
    )
    assert (found.kind, found.dispute_ref, found.won) == ("dispute_closed", "dp_1", won)
    assert found.amount_e10 == cents * E10 // 100


def test_other_messages_mean_nothing_to_us() -> None:
    assert read("customer.created", id="cus_1").kind is None
    body = b'{"id": "evt_2", "type": ["x"], "data": null}'
    assert read_event(body, signed(body), SECRET, 300).kind is None
