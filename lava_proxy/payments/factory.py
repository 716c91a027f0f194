"""Which payment provider the settings name."""

from __future__ import annotations

from lava_proxy.core.settings import Settings
from lava_proxy.payments.manual import Manual
from lava_proxy.payments.seam import Payments


def make_payments(settings: Settings) -> Payments:
    """The provider that `LAVA_PAYMENTS` names."""
    match settings.payments:
        case "manual":
            return Manual()
