"""What we ask of a payment provider, whoever it is.

The books decide what a payment is for and when it counts (`store/payments.py`); a provider only
moves money. Every ask names our payment id, which is its idempotency key there: asking twice, after
a crash or a time-out, charges once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from lava_proxy.payments.events import ProviderEvent

Outcome = Literal["succeeded", "declined", "requires_action", "pending"]
"""`pending`: the provider will tell us later (its webhook), or nobody knows yet; ask again."""
State = Literal["succeeded", "declined", "waits", "pending", "over"]
"""How a payment stands: it waits for its payer, is pending at their bank, or is over, so that it
cannot be made any more."""


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
    page_ref: str | None = None
    """The provider's id of the page at `redirect_url`, where it is one to pay on."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A payment whose end nobody told us."""

    payment_id: str
    owner_id: str
    """Who pays: a customer, one who will be made by this payment, or the merchant."""
    payer_ref: str | None
    provider_ref: str | None
    page_ref: str | None
    paged: bool
    """Whether it may be on a page of the provider's, under an id that we did not get to keep."""
    created_at: datetime
    answered: bool
    """Whether the provider's answer to the ask was written down."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a payment stands at the provider."""

    state: State
    provider_ref: str | None = None
    payer_ref: str | None = None
    amount_e10: int = 0
    """succeeded: what was paid."""
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class PayerAsk:
    """Make somebody known to the provider: a customer or, for its wallet, a merchant."""

    owner_id: str
    email: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class CheckoutAsk:
    """A page of the provider's own, where the payer pays and leaves a means of payment for later;
    without an amount they only leave it."""

    reference: str
    """The payment's id; without an amount an id of the caller's. The same one, the same page."""
    owner_id: str
    """Whose means of payment it becomes: a customer or, for its wallet, a merchant."""
    payer_ref: str | None
    """None: the provider makes a payer, and tells us with the event of the page's end."""
    amount_e10: int | None
    description: str
    success_url: str
    cancel_url: str
    email: str | None = None
    attempt: int = 1
    """Counts up when the page before ended unpaid: then it is another page."""


@dataclass(frozen=True, slots=True)
class CheckoutAnswer:
    """Where to send the payer; None where the provider has no page and somebody says by hand that
    the money is there. `provider_ref` is the page's id at the provider."""

    redirect_url: str | None = None
    provider_ref: str | None = None
    payer_gone: bool = False
    """The provider does not know the asked payer any more: the page makes another one."""


@dataclass(frozen=True, slots=True)
class StoredMethod:
    """A means of payment that the provider keeps. Months and years as text: "07", "2027"."""

    payment_method_id: str
    brand: str
    last4: str
    expiry_month: str
    expiry_year: str
    is_default: bool


class PaymentsDown(Exception):
    """The provider cannot be reached or is at fault: nothing is known, ask again later."""


class Payments(Protocol):
    """A payment provider. Methods raise `PaymentsDown` and nothing else of the provider's own."""

    name: str

    def refusal(self, amount_e10: int) -> str | None:
        """Why an amount can never be charged; None where it can. Free is always fine."""
        ...

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        """Charge; the same payment id again answers the same charge."""
        ...

    async def open_payer(self, ask: PayerAsk) -> str | None:
        """Who somebody is at the provider, the same one for the same owner; None where the provider
        keeps nothing."""
        ...

    async def checkout(self, ask: CheckoutAsk) -> CheckoutAnswer:
        """A page to pay on, or to leave a means of payment on."""
        ...

    async def look_up(self, ask: Lookup) -> Standing | None:
        """What became of a payment; nobody is asked for money. None: there is no such."""
        ...

    async def call_off(self, ask: Lookup) -> Standing | None:
        """As `look_up`, and where it is not made by then, it never will be (`over`)."""
        ...

    async def methods(self, payer_ref: str) -> Sequence[StoredMethod]:
        """The payer's means of payment, the default first."""
        ...

    async def payer_of(self, payment_method_id: str) -> str | None:
        """Whose means of payment it is; None where there is no such, or nobody's."""
        ...

    async def make_default(self, payer_ref: str, payment_method_id: str) -> None:
        """Charge this one from now on. It is the payer's."""
        ...

    async def forget(self, payment_method_id: str) -> None:
        """Never charge this one again."""
        ...

    def read_event(self, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> ProviderEvent:
        """What a message of the provider's says. Raises `BadSignature`."""
        ...

    def close(self) -> None:
        """No more asks."""
        ...
