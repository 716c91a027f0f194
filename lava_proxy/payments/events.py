"""What a payment provider tells us later, whoever it is: facts about one payment, in any order.

A fact says how things stand, not what changed ("this refund is of 5 USD, and it stands"), so
hearing it twice, late or early does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

EventKind = Literal["succeeded", "failed", "requires_action", "ended", "reversed", "card_saved"]
"""ended: where it was to be paid it cannot be any more; how it stands is to be looked up."""


class BadSignature(Exception):
    """The message is not the provider's, or too old to be believed."""


@dataclass(frozen=True, slots=True)
class Reversal:
    """Money that goes back to the payer, or comes from them again."""

    ref: str
    """The provider's id of the refund or dispute; for `total`, of the charge."""
    kind: Literal["refund", "dispute", "total"]
    """total: all that was refunded of a charge by then, for when single refunds are not told."""
    amount_e10: int
    over: bool
    """It came to nothing, for good: a refund that failed, a dispute that was won."""


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """One message. `kind` None: of no interest. `provider_ref` is the provider's id of the payment,
    `payment_id` ours, where the message has it."""

    event_id: str
    at: datetime
    kind: EventKind | None = None
    payment_id: str | None = None
    provider_ref: str | None = None
    owner_id: str | None = None
    """Whose `payer_ref` it is: a customer or, for the wallet, the merchant."""
    payer_ref: str | None = None
    method_ref: str | None = None
    """The means of payment that was charged, or tried."""
    amount_e10: int = 0
    """succeeded: what was paid."""
    reversal: Reversal | None = None
    code: str | None = None
    message: str | None = None
