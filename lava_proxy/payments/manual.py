"""Payments by hand: in test mode every charge succeeds, in live mode the operator says so.

Live charges stay pending until ``POST /v1/payments/{id}/complete`` or, where they are for a wallet,
``lava-proxy wallet complete``.
"""

from __future__ import annotations

from lava_proxy.core.ids import PREFIXES
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk

TEST_PAYMENT = PREFIXES["payment"] + "test_"


class Manual:
    """No provider at all."""

    name = "manual"

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        """Decided by the payment's own mode: its payer may be of the other one."""
        test = ask.payment_id.startswith(TEST_PAYMENT)
        return ChargeAnswer("succeeded" if test else "pending")
