"""Short words for tests with Stripe: localstripe as a process, payers, cards, signed messages."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import stripe

KEY = "sk_test_local"
SECRET = "whsec_test"
GOOD, DECLINED, ASKS = "4242424242424242", "4000000000000341", "4000002500003155"
"""Cards that pay, that can be kept but not charged, and whose bank asks for the payer."""


@contextmanager
def run_stand_in() -> Iterator[str]:
    """The address of a running localstripe."""
    program = Path(__file__).with_name("stripe_stand_in.py")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(program)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


def client(base: str) -> httpx.Client:
    """Stripe as anybody asks it."""
    return httpx.Client(base_url=base, auth=(KEY, ""))


def payer(base: str, *numbers: str) -> str:
    """A Stripe customer with these cards."""
    with client(base) as there:
        customer = str(there.post("/v1/customers", data={"name": "A"}).json()["id"])
    for number in numbers:
        add_card(base, customer, number)
    return customer


def add_card(base: str, customer: str, number: str) -> str:
    """Attach a card."""
    card = {"number": number, "exp_month": "7", "exp_year": "2031", "cvc": "123"}
    fields = {"type": "card", **{f"card[{name}]": value for name, value in card.items()}}
    with client(base) as there:
        method = str(there.post("/v1/payment_methods", data=fields).json()["id"])
        there.post(f"/v1/payment_methods/{method}/attach", data={"customer": customer})
    return method


def signed(body: bytes, *, secret: str = SECRET, age_s: int = 0) -> str:
    """A signature as Stripe makes it."""
    stamp = int(time.time()) - age_s
    made: str = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, stamp)
    return made


def message(event_type: str, about: dict[str, Any], *, event_id: str = "evt_1") -> bytes:
    """A webhook message as Stripe sends it."""
    event = {"id": event_id, "object": "event", "created": 1_800_000_000, "type": event_type}
    return json.dumps({**event, "data": {"object": about}}).encode()
