"""What we ask of a payment provider, whoever it is.

The books decide what a payment is for and when it counts (`store/payments.py`); a provider only
moves money. Every ask names our payment id, which is its idempotency key there: asking twice, after
a crash or a time-out, charges once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Outcome = Literal["succeeded", "declined", "requires_action", "pending"]
"""`pending`: the provider will tell us later (its webhook), or nobody knows yet; ask again."""


@dataclass(frozen=True, slots=True)
class ChargeAsk:
    """Charge a stored means of payment, without the payer being there."""

    payment_id: str
    merchant_id: str
    customer_id: str | None
    """None: the merchant's own wallet."""
    payer_ref: str | None
    """Who the payer is at the provider; None where the provider has not met them."""
    amount_e10: int
    description: str
    payment_method_id: str | None = None
    """None: the payer's default."""
    payer_present: bool = False
    provider_ref: str | None = None
    """The charge that an earlier try of this payment made, where it is known."""
    return_url: str | None = None
    """Where a payer who is present comes back to from their bank's page."""
    test: bool = False
    """Of the test mode."""
    attempt: int = 1
    """Counts up with every decline: trying again after one is another charge, so it is part of the
    idempotency key. Asking again after silence keeps the number."""


@dataclass(frozen=True, slots=True)
class ChargeAnswer:
    """What became of a charge. `code` and `message` say why it was declined."""

    outcome: Outcome
    provider_ref: str | None = None
    code: str | None = None
    message: str | None = None
    redirect_url: str | None = None
    """Where the payer confirms (3-D Secure), for `requires_action`."""


class PaymentsDown(Exception):
    """The provider cannot be reached or is at fault: nothing is known, ask again later."""


class Payments(Protocol):
    """A payment provider. Methods raise `PaymentsDown` and nothing else of the provider's own."""

    name: str

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        """Charge; the same payment id again answers the same charge."""
        ...
