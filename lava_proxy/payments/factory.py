"""Which payment provider the settings name."""

from __future__ import annotations

from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.payments.manual import Manual
from lava_proxy.payments.seam import Payments


def make_payments(settings: Settings) -> Payments:
    """The provider that `LAVA_PAYMENTS` names. `close` it once."""
    match settings.payments:
        case "manual":
            return Manual()
        case "stripe":
            return _stripe(settings)


def _stripe(settings: Settings) -> Payments:
    key, secret = settings.stripe_secret_key, settings.stripe_webhook_secret
    if key is None or secret is None:
        raise ConfigurationError(
            "LAVA_PAYMENTS=stripe needs LAVA_STRIPE_SECRET_KEY and LAVA_STRIPE_WEBHOOK_SECRET"
        )
    from lava_proxy.payments.stripe import StripePayments  # seconds and megabytes, if not needed

    return StripePayments(
        key.get_secret_value(),
        webhook_secret=secret.get_secret_value(),
        tolerance_s=settings.stripe_tolerance_s,
        api_base=settings.stripe_api_base,
        return_url=settings.public_url,
    )
