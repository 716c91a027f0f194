"""The price book, and the prices' history, as the database has them now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta

from lava_proxy.rules.catalog import Override, compile_override
from lava_proxy.rules.pricebook import NO_NAMES, PriceBook
from lava_proxy.rules.pricehistory import Dated, PriceHistory
from lava_proxy.rules.rates import RateError
from lava_proxy.store import prices as store
from lava_proxy.store.database import Database
from lava_proxy.store.prices import PriceRow

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
        try:
            compile_override(_override(row))
        except RateError as error:
            log.error("price %s is ignored: %s", row.price_id, error)
            continue
        good.append((row.merchant_id, _override(row)))
    return PriceBook(good, until, bundled)


async def load_history(
    database: Database,
    now: datetime,
    bundled: Mapping[str, str] = NO_NAMES,
    *,
    known_for: timedelta = timedelta(),
) -> PriceHistory:
    """Prices in force and those that they took over from, for requests that came before them; only
    those that somebody could take back for so long."""
    async with database.connection() as conn:
        rows = await store.in_force(conn, now)
    dated = [
        Dated(row.merchant_id, row.effective_from, _override(row))
        for row in rows
        if max(row.created_at, row.effective_from) + known_for <= now
    ]
    return PriceHistory(dated, now, bundled)


def _override(row: PriceRow) -> Override:
    return Override(row.price_id, row.provider, row.match, row.model, tuple(row.rates.items()))
