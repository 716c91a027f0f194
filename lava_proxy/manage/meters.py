"""Meters: what usage costs the customer. Input names the unit once; output repeats it per tier."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lava_proxy.core.errors import LavaError
from lava_proxy.core.money import format_e10, format_rate_e12
from lava_proxy.manage.context import JSON, Body, Context, Route, invalid
from lava_proxy.manage.paging import PAGING, cursor_of, limit_of, page
from lava_proxy.manage.shape import amount_of, time_of
from lava_proxy.rules.tiers import Tariff, TierError, parse_tiers
from lava_proxy.store import resources
from lava_proxy.store.resources import Row

SLUG_TRIES = 5
_NOT_SLUG = re.compile(r"[^a-z0-9]+")


class TierIn(Body):
    """One tier; numbers as decimal strings."""

    start: str
    rate: str


class CreateMeter(Body):
    """`POST /v1/meters`. `enforcement` and `overdraft` are ours."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    rate_type: Literal["fixed", "percentage"]
    tier_type: Literal["tokens_1m", "characters_1m", "minutes", "requests"]
    tiers: Annotated[list[TierIn], Field(min_length=1, max_length=50)]
    meter_slug: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None
    ) = None
    enforcement: Literal["sliced", "strict", "soft"] = "sliced"
    overdraft: str = "0"


async def create(ctx: Context) -> JSON:
    """A new meter; a taken slug is 409, a missing one is made from the name."""
    body = ctx.body(CreateMeter)
    try:
        tiers = parse_tiers([(tier.start, tier.rate) for tier in body.tiers])
    except TierError as error:
        raise invalid(error.path, str(error)) from None
    overdraft_e10 = amount_of(body.overdraft, "overdraft")
    if overdraft_e10 < 0 or (overdraft_e10 and body.enforcement != "soft"):
        raise invalid("overdraft", "is for soft enforcement, and not negative")
    slug = body.meter_slug or _NOT_SLUG.sub("-", body.name.lower()).strip("-")[:80] or "meter"
    for attempt in range(SLUG_TRIES):
        tail = f"-{secrets.token_hex(3)}" if attempt else ""
        row = await resources.create_meter(
            ctx.transaction,
            ctx.merchant_id,
            slug=slug + tail,
            name=body.name,
            tariff=Tariff(body.rate_type, body.tier_type, tiers),
            enforcement=body.enforcement,
            overdraft_e10=overdraft_e10,
            now=ctx.now(),
        )
        if row is not None:
            return show(row)
        if body.meter_slug is not None:
            break
    raise LavaError("conflict", f"The meter slug {slug!r} is taken.")


async def retrieve(ctx: Context) -> JSON:
    async with ctx.books.database.connection() as conn:
        row = await resources.find_meter(conn, ctx.merchant_id, ctx.params["meter_id"])
    if row is None:
        raise LavaError("not_found", "There is no such meter.")
    return show(row)


async def list_all(ctx: Context) -> JSON:
    limit = limit_of(ctx.query)
    async with ctx.books.database.connection() as conn:
        rows = await resources.meters_page(conn, ctx.merchant_id, cursor_of(ctx.query), limit + 1)
    return page(rows, limit, "meter_id", show)


def show(row: Row) -> JSON:
    """The public object."""
    return {
        "meter_id": row["meter_id"],
        "meter_slug": row["slug"],
        "name": row["name"],
        "rate_type": row["rate_type"],
        "tiers": [show_tier(start, rate_e12, row["tier_type"]) for start, rate_e12 in row["tiers"]],
        "enforcement": row["enforcement"],
        "overdraft": format_e10(row["overdraft_e10"]),
        "created_at": time_of(row["created_at"]),
    }


def show_tier(start: int, rate_e12: int, tier_type: str) -> JSON:
    """A tier as output shows it."""
    return {"start": start, "rate": format_rate_e12(rate_e12), "type": tier_type}


ROUTES = (
    Route("POST", "/meters", create, transaction=True),
    Route("GET", "/meters", list_all, query=PAGING),
    Route("GET", "/meters/{meter_id}", retrieve),
)
