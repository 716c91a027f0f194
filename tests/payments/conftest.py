"""localstripe, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stripe_kit import KEY, run_stand_in

from lava_proxy.payments.stripe import StripePayments


@pytest.fixture(scope="session")
def base() -> Iterator[str]:
    """The address of a running localstripe."""
    with run_stand_in() as address:
        yield address


@pytest.fixture
def payments(base: str) -> Iterator[StripePayments]:
    made = StripePayments(KEY, api_base=base)
    yield made
    made.close()
