"""What the bundled data list for a provider's models, to be shown; `catalog.py` is what is charged.

Reading the list costs a microsecond a model, compiling a price hundreds; nothing here is money of
anybody's. A price with tiers shows its first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from genai_prices.types import TieredPrices

from lava_proxy.rules.bundled import lists_of


@dataclass(frozen=True, slots=True)
class Listed:
    """A model and its list prices, in USD per million tokens; None: not listed."""

    model: str
    input: Decimal | None
    output: Decimal | None
    cache_read: Decimal | None
    cache_write: Decimal | None


def listed(prices: str, at: datetime) -> Iterator[Listed]:
    """The models of a provider of the data that have a price per token and are not given up."""
    for provider, suffix in lists_of(prices):
        for info in provider.models:
            price = info.get_prices(at)
            row = Listed(
                info.id + suffix,
                _base(price.input_mtok),
                _base(price.output_mtok),
                _base(price.cache_read_mtok),
                _base(price.cache_write_mtok),
            )
            if row.input is not None and not info.deprecated:
                yield row


def _base(price: Decimal | TieredPrices | None) -> Decimal | None:
    return price.base if isinstance(price, TieredPrices) else price
