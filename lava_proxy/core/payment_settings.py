"""The settings of plans, of who moves money and where; `settings.py` has all others."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field, SecretStr

from lava_proxy.core.provider_keys import KeySettings

TOP_UP_MAX_USD = 10**6
"""The highest cap that a month's top-ups can have."""


class PaymentSettings(KeySettings):
    """A part of `Settings`."""

    payments: Literal["manual", "stripe"] = Field(
        "manual",
        description="Who moves money: manual (by hand; test mode succeeds at once), or stripe.",
    )
    stripe_secret_key: SecretStr | None = Field(
        None, description="Stripe's secret or restricted key (sk_..., rk_...)."
    )
    stripe_webhook_secret: SecretStr | None = Field(
        None, description="Signing secret (whsec_...) of the webhook endpoint set up at Stripe."
    )
    stripe_tolerance_s: int = Field(
        300, ge=1, le=3600, description="A message of Stripe's that is older is not believed."
    )
    stripe_api_base: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="Stripe's API elsewhere, for tests and egress proxies.",
    )
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="Where browsers reach us: checkout pages, and back from a bank's page; absent: "
        "as the API was called.",
    )
    checkout_session_s: float = Field(
        86_400.0, gt=0, le=30 * 86_400, description="How long a checkout session may be paid."
    )
    payment_lookup_s: float = Field(
        600.0,
        ge=10,
        description="A payment whose end nobody told us is looked up at the provider after so "
        "long, then after pauses that double, at most 6 hours.",
    )
    payment_give_up_s: float = Field(
        3600.0,
        ge=60,
        description="A payment that its payer began is ended, at the provider too, so long after "
        "its checkout session's time; one into the wallet so long after it was begun.",
    )
    auto_free_plan: bool = Field(
        False, description="Every new customer is put on its merchant's Free plan, which is made."
    )
    renewal_grace_days: int = Field(
        7, ge=0, le=365, description="A renewal that is declined is tried again for so long."
    )
    top_up_low_percent: int = Field(
        20, ge=0, le=100, description="Auto top-up below so much of the bundle's credit."
    )
    top_up_wait_s: float = Field(
        5.0, ge=0, description="Longest wait of a call or stream for credit being bought."
    )
    top_up_retry_s: float = Field(
        3600.0, gt=0, description="Pause after a declined top-up; doubles up to a day."
    )
    top_up_monthly_max: int = Field(
        500,
        ge=0,
        le=TOP_UP_MAX_USD,
        description="Most USD of top-ups per customer and calendar month, where the customer has "
        "no top_up_monthly_max.",
    )

    def lookup_after(self, now: datetime) -> datetime:
        """When a payment that is asked for now is looked up at the provider."""
        return now + timedelta(seconds=self.payment_lookup_s)
