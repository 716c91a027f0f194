"""The settings of webhooks; `settings.py` has the others."""

from __future__ import annotations

from pydantic import Field

from lava_proxy.core.payment_settings import PaymentSettings


class WebhookSettings(PaymentSettings):
    """A part of `Settings`."""

    webhook_timeout_s: float = Field(
        10.0, gt=0, description="Longest that one delivery of a webhook may take."
    )
    webhook_sends_max: int = Field(
        20, ge=1, le=1000, description="Deliveries under way at once, per process."
    )
    webhook_sends_per_endpoint: int = Field(
        2, ge=1, le=100, description="Of these, to one webhook; one while it fails."
    )
    webhook_interval_s: float = Field(
        1.0,
        gt=0,
        description="How often the outbox is looked at; a change of balance waits so "
        "long for others of its customer.",
    )
    webhook_retry_s: float = Field(
        259_200.0, gt=0, description="A delivery that has not succeeded for so long is dead."
    )
    webhook_keep_s: float = Field(
        2_592_000.0, gt=0, description="Events are kept for so long, for lists and resending."
    )
    webhook_disable_s: float = Field(
        432_000.0,
        ge=0,
        description="A webhook whose tries have all failed for so long is disabled; 0: never.",
    )
    webhook_rotation_overlap_s: int = Field(
        86_400,
        ge=0,
        le=30 * 86_400,
        description="A webhook's rotated secret goes on signing beside the new one for so long.",
    )
    webhook_credit_low: str = Field(
        "1.00", description="customer.credit.low is sent below so much credit, in USD."
    )
    webhook_allow_private: bool = Field(
        False,
        description="For development: webhooks may be http, on any port, at private addresses.",
    )
