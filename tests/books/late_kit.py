"""Requests that were booked without a price, prices that come late, and what becomes of both."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from books_kit import Shop, meter, row

from lava_proxy.books.prices import load_history
from lava_proxy.books.share import Share
from lava_proxy.core.ids import new_id
from lava_proxy.rules.price import Cost
from lava_proxy.rules.settlement import Meter, Settlement
from lava_proxy.store import prices as price_store
from lava_proxy.store.corrections import Change
from lava_proxy.store.database import Database
from lava_proxy.store.prices import PriceRow
from lava_proxy.store.reratings import rerate

PERCENT = 10**12
PASSED_ON = meter((0, 100 * PERCENT), rate_type="percentage")
"""Charges what the provider takes."""


def unpriced(
    shop: Shop,
    owner: str,
    tokens: int = 1000,
    *,
    model: str = "newest",
    asked: str | None = None,
    assumed_e10: int | None = None,
    at: datetime | None = None,
    by: Meter | None = PASSED_ON,
    budgets: tuple[tuple[str, str], ...] = (),
    customer: bool = True,
    cycle: str = "2026-11",
    request_id: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Settlement:
    """A call for a model that nobody knows a price of; `assumed_e10`: booked at so much."""
    made = row(
        owner,
        tokens,
        shop=shop,
        by=by,
        model=model,
        customer=customer,
        cycle=cycle,
        cost_e10=assumed_e10,
        request_id=request_id,
        metadata=metadata,
    )
    call = replace(made.call, budgets=budgets, created_at=at or shop.now, model=asked or model)
    if assumed_e10 is None:
        return replace(made, call=call, flags=("unpriced",))
    return replace(
        made,
        call=call,
        cost=Cost(assumed_e10, 0, assumed_e10),
        flags=("price_assumed",),
        price_version="genai-prices/0 dearest big",
    )


async def priced(
    shop: Shop,
    usd_1m: str,
    *,
    model: str = "newest",
    match: str = "exact",
    since: datetime | None = None,
    known_at: datetime | None = None,
    operator: bool = False,
) -> str:
    """A price of so many USD per million input tokens, in force; answers its version on rows."""
    price_id = new_id("price")
    wanted = PriceRow(
        price_id,
        None if operator else shop.merchant_id,
        "openai",
        match,  # type: ignore[arg-type]
        "" if match == "default" else model,
        {"input_1m": usd_1m},
        since or shop.now,
        known_at or since or shop.now,
    )
    async with shop.database.transaction() as conn:
        await price_store.create(conn, wanted)
    return f"override/{price_id}"


async def rerated(
    database: Database, now: datetime, *, merchant_id: str | None = None, dry: bool = False
) -> list[Change]:
    """All that a pass changes."""
    prices = await load_history(database, now)
    return [
        change
        async for change in rerate(
            Share(database, 1), prices, now, merchant_id=merchant_id, dry=dry
        )
    ]
