"""What a payment provider tells us later, whoever it is: facts about one payment, in any order.

A fact says how things stand, not what changed ("of this payment, 5 USD are refunded by now"), so
hearing it twice, late or early does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EventKind = Literal[
    "succeeded", "failed", "requires_action", "refunded", "disputed", "dispute_closed", "card_saved"
]


class BadSignature(Exception):
    """The message is not the provider's, or too old to be believed."""


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """One message. `kind` None: of no interest. `provider_ref` is the provider's id of the payment,
    `payment_id` ours, where the message has it."""

    event_id: str
    kind: EventKind | None
    payment_id: str | None = None
    provider_ref: str | None = None
    payer_ref: str | None = None
    owner_id: str | None = None
    """Whose `payer_ref` it is: a customer or, for the wallet, the merchant."""
    amount_e10: int = 0
    """refunded: all that is refunded by now; disputed: what the dispute is about."""
    dispute_ref: str | None = None
    won: bool = False
    code: str | None = None
    message: str | None = None
