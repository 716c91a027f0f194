"""``/v1/prices``: what providers take, where the merchant knows better than the bundled list.

A price is never changed: a new one for the same model takes over when it comes into force, so every
booked row's `price_version` still says what it was. The operator's prices hold for all merchants;
they are shown, and only the command line makes them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.manage.call import Answer, Call, Deleted, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Date, read_fields, read_query, refuse
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.text import time_text
from lava_proxy.rules.bundled import MODEL_NAME_MAX
from lava_proxy.rules.catalog import OVERRIDE_UNITS, Match, Override, compile_override
from lava_proxy.rules.rates import RateError
from lava_proxy.store import prices as store
from lava_proxy.store.database import Connection, StoreConflict, StoreDown
from lava_proxy.store.prices import PRICES_MAX, PriceRow

PARAMETERS = PAGE_PARAMETERS | {"provider"}


class NewPrice(Body):
    """`rates`: USD as decimal strings, by the names in docs/metering.md; complete, nothing is taken
    from the bundled price beside them. `model` is left out for a provider's default."""

    provider: Annotated[str, Field(min_length=1, max_length=64)]
    match: Match = "exact"
    model: Annotated[str, Field(max_length=MODEL_NAME_MAX)] = ""
    rates: Annotated[dict[str, str], Field(min_length=1, max_length=len(OVERRIDE_UNITS))]
    effective_from: Date | None = None


class PriceView(TypedDict):
    """A price as the API shows it."""

    price_id: str
    scope: Literal["merchant", "operator"]
    provider: str
    match: Match
    model: str
    rates: dict[str, str]
    effective_from: str
    created_at: str


async def create(desk: Desk, call: Call) -> Answer:
    """Add a price of the merchant's own."""
    body = read_fields(NewPrice, call)
    if desk.registry.by_id(body.provider) is None:
        refuse("provider", f"is not a provider of ours: {body.provider!r}")
    if (body.match == "default") != (not body.model):
        refuse("model", "is for the matches exact and prefix, and needed there")
    now = desk.books.now()
    if body.effective_from is not None and body.effective_from < now:
        refuse("effective_from", "must not be in the past: what is booked stays as it was")
    wanted = PriceRow(
        price_id=new_id("price", test=call.test),
        merchant_id=call.merchant_id,
        provider=body.provider,
        match=body.match,
        model=body.model,
        rates=body.rates,
        effective_from=body.effective_from or now,
        created_at=now,
    )
    try:
        compile_override(
            Override(wanted.price_id, "", body.match, body.model, tuple(body.rates.items()))
        )
    except RateError as error:
        refuse("rates", str(error))

    async def work(conn: Connection) -> Answer:
        if not await store.create(conn, wanted, PRICES_MAX):
            raise LavaError("conflict", f"there are {PRICES_MAX} prices; take some away first")
        return answer(view(wanted))

    made = await once(desk, call, work)
    await _use(desk)
    return made


async def retrieve(desk: Desk, call: Call) -> Answer:
    """A price by id."""
    async with desk.reading() as conn:
        row = await store.find(conn, call.merchant_id, call.params[0])
    if row is None:
        raise no_such("price")
    return answer(view(row))


async def page(desk: Desk, call: Call) -> Answer:
    """The merchant's prices and the operator's, newest first; also those still to come."""
    query = read_query(call, PARAMETERS)
    page = read_page("prices", query)
    async with desk.reading() as conn:
        rows = await store.page(
            conn, call.merchant_id, query.get("provider"), page.place, page.most
        )
    return page.answer(rows, view, _position)


async def remove(desk: Desk, call: Call) -> Answer:
    """Take a price away; the one before it, or the bundled one, holds again."""
    async with desk.writing() as conn:
        gone = await store.remove(conn, call.merchant_id, call.params[0], desk.books.now())
        known = gone or await store.find(conn, call.merchant_id, call.params[0])
    if not gone and known:
        raise LavaError("forbidden", "this price is the operator's")
    if not gone:
        raise no_such("price")
    await _use(desk)
    return answer(Deleted(id=call.params[0], deleted=True))


async def _use(desk: Desk) -> None:
    """This worker uses it at once; where that fails the work is done all the same, and the next
    look at the change feed finds it, as the other workers do."""
    with suppress(StoreDown, StoreConflict):
        await desk.books.refresh_prices()


def view(row: PriceRow) -> PriceView:
    """A price as the API shows it."""
    return {
        "price_id": row.price_id,
        "scope": "operator" if row.merchant_id is None else "merchant",
        "provider": row.provider,
        "match": row.match,
        "model": row.model,
        "rates": dict(row.rates),
        "effective_from": time_text(row.effective_from),
        "created_at": time_text(row.created_at),
    }


def _position(row: PriceRow) -> Position:
    return position_at(row.created_at, row.price_id)


ROUTES = (
    Route("POST", "prices", create, answer=PriceView, body=NewPrice, errors=("conflict",)),
    Route("GET", "prices", page, answer=PageView[PriceView], query=PARAMETERS),
    Route("GET", "prices/*", retrieve, answer=PriceView),
    Route("DELETE", "prices/*", remove, answer=Deleted),
)
