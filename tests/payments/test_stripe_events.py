"""Stripe's messages: believed only when signed, and read as facts about a payment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from stripe_kit import SECRET, message, signed

from lava_proxy.core.money import E10
from lava_proxy.payments.events import BadSignature, ProviderEvent, Reversal
from lava_proxy.payments.stripe_events import READERS, read_event

LATE = b'{"id": "evt_1", "created": 99999999999999999999}'
MARKS = {"lava_payment_id": "pay_1", "lava_owner_id": "con_1"}


def read(event_type: str, **about: Any) -> ProviderEvent:
    body = message(event_type, about)
    return read_event(body, signed(body), SECRET, 300)


def test_only_what_is_signed_is_believed() -> None:
    body = message("charge.refunded", {})
    wrong = [
        (body, ""),
        (body, "t=,v1="),
        (body, signed(body, secret="whsec_other")),
        (body, signed(body, age_s=301)),
        (body + b" ", signed(body)),
        (b"\xff", "t=1,v1=0"),
        (b"{", signed(b"{")),
        (b"[]", signed(b"[]")),
        (b'{"id": 5}', signed(b'{"id": 5}')),
        (LATE, signed(LATE)),
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


@pytest.mark.parametrize(("currency", "amount_e10"), [("usd", 5 * E10), ("jpy", 0)])
def test_money_of_another_currency_is_not_counted_as_ours(currency: str, amount_e10: int) -> None:
    paid = {"currency": currency, "metadata": MARKS}
    intent = read("payment_intent.succeeded", id="pi_1", amount_received=500, **paid)
    page = read("checkout.session.completed", payment_status="paid", amount_total=500, **paid)
    assert (intent.kind, intent.amount_e10) == ("succeeded", amount_e10)
    assert (page.kind, page.amount_e10) == ("succeeded", amount_e10)


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


@pytest.mark.parametrize(
    ("event_type", "status", "over"),
    [
        ("refund.created", "pending", False),
        ("refund.updated", "succeeded", False),
        ("charge.refund.updated", "canceled", True),
        ("refund.failed", "failed", True),
    ],
)
def test_a_refund_stands_or_came_to_nothing(event_type: str, status: str, over: bool) -> None:
    found = read(event_type, id="re_1", payment_intent="pi_1", amount=123, status=status)
    assert (found.kind, found.provider_ref) == ("reversed", "pi_1")
    assert found.reversal == Reversal("re_1", "refund", 123 * E10 // 100, over)


def test_a_charge_says_all_that_is_refunded_by_then() -> None:
    found = read("charge.refunded", id="ch_1", payment_intent={"id": "pi_1"}, amount_refunded=5)
    assert found.reversal == Reversal("ch_1", "total", E10 // 20, False)


@pytest.mark.parametrize(
    ("status", "over", "cents"),
    [
        ("needs_response", False, 500),
        ("lost", False, 500),
        ("won", True, 500),
        ("warning_needs_response", False, 0),
        ("warning_closed", True, 0),
    ],
)
def test_disputes(status: str, over: bool, cents: int) -> None:
    found = read(
        "charge.dispute.closed", id="dp_1", payment_intent="pi_1", amount=500, status=status
    )
    assert found.reversal == Reversal("dp_1", "dispute", cents * E10 // 100, over)


def test_other_messages_mean_nothing_to_us() -> None:
    found = read("customer.created", id="cus_1")
    assert (found.kind, found.at) == (None, datetime.fromtimestamp(1_800_000_000, UTC))
    body = b'{"id": "evt_2", "type": ["x"], "data": null}'
    assert read_event(body, signed(body), SECRET, 300).kind is None


@pytest.mark.parametrize("event_type", sorted(READERS))
def test_whatever_is_missing_or_odd_is_no_fault_of_ours(event_type: str) -> None:
    assert read(event_type).provider_ref is None
    odd = {"id": 5, "payment_intent": [], "metadata": [], "amount": -1, "status": 5}
    more = {"amount_refunded": True, "customer": {}, "last_payment_error": None, "reason": None}
    assert read(event_type, **odd, **more).amount_e10 == 0
