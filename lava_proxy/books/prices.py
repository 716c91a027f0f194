"""The price book as the database has it now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime

from lava_proxy.rules.catalog import Override, compile_override
from lava_proxy.rules.pricebook import NO_NAMES, PriceBook
from lava_proxy.rules.rates import RateError
from lava_proxy.store import prices as store
from lava_proxy.store.database import Database

log = logging.getLogger(__name__)


async def load_prices(
    database: Database, now: datetime, bundled: Mapping[str, str] = NO_NAMES
) -> PriceBook:
    """The prices in force; one that cannot be used is left out and logged."""
    async with database.connection() as conn:
        rows = await store.in_force(conn, now)
        until = await store.next_change(conn, now)
    good: list[tuple[str | None, Override]] = []
    for row in rows:
        override = Override(
            row.price_id, row.provider, row.match, row.model, tuple(row.rates.items())
        )
        try:
            compile_override(override)
        except RateError as error:
            log.error("price %s is ignored: %s", row.price_id, error)
            continue
        good.append((row.merchant_id, override))
    return PriceBook(good, until, bundled)
