"""Payments by hand: in test mode every charge succeeds, in live mode the operator says so.

Live charges stay pending until ``POST /v1/payments/{id}/complete`` or, where they are for a wallet,
``lava-proxy wallet complete``.
"""

from __future__ import annotations

from collections.abc import Sequence

from lava_proxy.core.ids import is_test
from lava_proxy.payments.events import BadSignature, ProviderEvent
from lava_proxy.payments.seam import (
    ChargeAnswer,
    ChargeAsk,
    CheckoutAnswer,
    CheckoutAsk,
    Lookup,
    PayerAsk,
    Standing,
    StoredMethod,
)


class Manual:
    """No provider at all."""

    name = "manual"

    def refusal(self, amount_e10: int) -> str | None:
        """Any amount can be paid by hand."""
        return None

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        """Decided by the payment's own mode: a test session may be about a live customer."""
        return ChargeAnswer("succeeded" if is_test(ask.payment_id) else "pending")

    async def open_payer(self, ask: PayerAsk) -> str | None:
        """Nobody is known."""
        return None

    async def checkout(self, ask: CheckoutAsk) -> CheckoutAnswer:
        """There is nowhere to send the payer."""
        return CheckoutAnswer()

    async def look_up(self, ask: Lookup) -> Standing | None:
        """An order stands, once its payer was told of it, until the operator says something."""
        return Standing("pending") if ask.answered else None

    async def call_off(self, ask: Lookup) -> Standing | None:
        """Only the operator knows whether somebody pays."""
        return await self.look_up(ask)

    async def methods(self, payer_ref: str) -> Sequence[StoredMethod]:
        """Nothing is kept."""
        return ()

    async def payer_of(self, payment_method_id: str) -> str | None:
        """Nothing is kept."""
        return None

    async def make_default(self, payer_ref: str, payment_method_id: str) -> None:
        """Nothing is kept."""

    async def forget(self, payment_method_id: str) -> None:
        """Nothing is kept."""

    def read_event(self, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> ProviderEvent:
        """Nobody sends us messages."""
        raise BadSignature("payments are made by hand")

    def close(self) -> None:
        """Nothing is open."""
