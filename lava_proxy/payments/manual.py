"""Payments by hand: in test mode every charge succeeds, in live mode the operator says so.

Live charges stay pending until ``POST /v1/payments/{id}/complete`` or, where they are for a wallet,
``lava-proxy wallet complete``.
"""

from __future__ import annotations

from lava_proxy.core.ids import PREFIXES
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk

TEST_CUSTOMER = PREFIXES["customer"] + "test_"


class Manual:
    """No provider at all."""

    name = "manual"

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        """Decided by whose it is."""
        test = ask.test or (ask.customer_id or "").startswith(TEST_CUSTOMER)
        return ChargeAnswer("succeeded" if test else "pending")
