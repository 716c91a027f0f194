"""The settings of who moves money; `settings.py` has all others."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings


class PaymentSettings(BaseSettings):
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
