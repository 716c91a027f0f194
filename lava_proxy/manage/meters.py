"""``/v1/meters``: how usage becomes a charge, and how strictly credit is enforced."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, PlainValidator
from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import PREFIXES, new_id
from lava_proxy.core.money import format_e10, format_rate_e12
from lava_proxy.manage.call import Answer, Call, Deleted, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Cost, Name, read_fields, read_query, refuse
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.text import time_text
from lava_proxy.rules.settlement import Enforcement, Unpriced
from lava_proxy.rules.tiers import RateType, Tariff, Tier, TierError, Unit, parse_tiers
from lava_proxy.store import meters as store
from lava_proxy.store.database import Connection
from lava_proxy.store.meters import MeterRow

SLUG_WORDS_MAX_CHARS = 64
NUMBERED_SLUGS = 20
"""How many numbers to try behind a made slug before a random end."""

_NOT_IN_SLUGS = re.compile(r"[^a-z0-9]+")


def _slug(text: str) -> str:
    if text.startswith(PREFIXES["meter"]):
        raise ValueError(f"may not start with {PREFIXES['meter']}, which our own ids do")
    return text


def _start(value: object) -> str:
    """A string as documented, or the whole number that we show ourselves."""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise ValueError('must be a whole number of units as a string, such as "1000000"')


class NewTier(Body):
    """From `start` units on, at `rate`."""

    start: Annotated[str, PlainValidator(_start)]
    rate: str


class NewMeter(Body):
    """The unit is given once, for all tiers."""

    name: Name
    rate_type: RateType
    tier_type: Unit
    tiers: list[NewTier]
    meter_slug: Annotated[Name, AfterValidator(_slug)] | None = None
    enforcement: Enforcement = "sliced"
    overdraft: Cost = 0
    unpriced: Unpriced = "refuse"


class MeterFields(Body):
    """What may change: how much, never of what; charges of a cycle could not add up else."""

    name: Name | None = None
    tiers: list[NewTier] | None = None
    enforcement: Enforcement | None = None
    overdraft: Cost | None = None
    unpriced: Unpriced | None = None


class TierView(TypedDict):
    """From `start` units on, at `rate` a unit of `type`."""

    start: int
    rate: str
    type: Unit


class MeterView(TypedDict):
    """A meter as the API shows it."""

    meter_id: str
    meter_slug: str
    name: str
    rate_type: RateType
    tiers: list[TierView]
    enforcement: Enforcement
    overdraft: str
    unpriced: Unpriced
    created_at: str


async def create(desk: Desk, call: Call) -> Answer:
    """Make a meter; without a slug, one is made of its name."""
    body = read_fields(NewMeter, call)
    if body.overdraft and body.enforcement != "soft":
        refuse("overdraft", "is only for the enforcement soft")
    tiers = _tiers(body.tiers)
    wanted = MeterRow(
        meter_id=new_id("meter", test=call.test),
        slug="",
        name=body.name,
        tariff=Tariff(body.rate_type, body.tier_type, tiers),
        enforcement=body.enforcement,
        overdraft_e10=body.overdraft,
        unpriced=body.unpriced,
        created_at=desk.books.now(),
    )
    made_slugs = _slugs(body.name, wanted.meter_id)
    # A slug that somebody takes at the same moment is no fault of ours: the last one nobody takes.
    tries = [[body.meter_slug]] if body.meter_slug else [made_slugs, made_slugs, made_slugs[-1:]]

    async def work(conn: Connection) -> Answer:
        for slugs in tries:
            row = await store.create(conn, call.merchant_id, wanted, slugs)
            if row is not None:
                return answer(view(row))
        raise LavaError("conflict", f"the meter_slug {body.meter_slug!r} is taken")

    made = await once(desk, call, work)
    desk.books.directory.changed("meters", wanted.meter_id)
    return made


async def update(desk: Desk, call: Call) -> Answer:
    """Change what is given. Calls that are on their way keep the tariff that they began with."""
    body = read_fields(MeterFields, call)
    for name in body.model_fields_set:
        if getattr(body, name) is None:
            refuse(name, "must not be null")
    change = store.MeterChange(
        body.name,
        None if body.tiers is None else _tiers(body.tiers),
        body.enforcement,
        body.overdraft,
        body.unpriced,
    )
    async with desk.writing() as conn:
        row = await store.update(conn, call.merchant_id, call.params[0], change)
        if row is None:
            raise no_such("meter")
        if row.overdraft_e10 and row.enforcement != "soft":
            refuse("overdraft", "is only for the enforcement soft")
    desk.books.directory.changed("meters", row.meter_id)
    return answer(view(row))


async def delete(desk: Desk, call: Call) -> Answer:
    """End a meter that no plan has; what it charged stays."""
    async with desk.writing() as conn:
        meter_id = await store.delete(conn, call.merchant_id, call.params[0], desk.books.now())
    if meter_id is None:
        raise no_such("meter")
    desk.books.directory.changed("meters", meter_id)
    return answer(Deleted(id=meter_id, deleted=True))


async def retrieve(desk: Desk, call: Call) -> Answer:
    """A meter by id or slug."""
    async with desk.reading() as conn:
        row = await store.find(conn, call.merchant_id, call.params[0])
    if row is None:
        raise no_such("meter")
    return answer(view(row))


async def page(desk: Desk, call: Call) -> Answer:
    """Meters, newest first."""
    page = read_page("meters", read_query(call, PAGE_PARAMETERS))
    async with desk.reading() as conn:
        rows = await store.page(conn, call.merchant_id, page.place, page.most)
    return page.answer(rows, view, _position)


def view(row: MeterRow) -> MeterView:
    """A meter as the API shows it: other than in the input, every tier names the unit."""
    return {
        "meter_id": row.meter_id,
        "meter_slug": row.slug,
        "name": row.name,
        "rate_type": row.tariff.rate_type,
        "tiers": [
            {
                "start": tier.start,
                "rate": format_rate_e12(tier.rate_e12),
                "type": row.tariff.unit,
            }
            for tier in row.tariff.tiers
        ],
        "enforcement": row.enforcement,
        "overdraft": format_e10(row.overdraft_e10),
        "unpriced": row.unpriced,
        "created_at": time_text(row.created_at),
    }


def _tiers(given: Sequence[NewTier]) -> tuple[Tier, ...]:
    try:
        return parse_tiers([(tier.start, tier.rate) for tier in given])
    except TierError as error:
        refuse(error.path, str(error))


def _slugs(name: str, meter_id: str) -> list[str]:
    """Slugs for a name, the best first; the last one nobody else can have."""
    words = _NOT_IN_SLUGS.sub("-", name.lower())[:SLUG_WORDS_MAX_CHARS].strip("-") or "meter"
    numbered = [f"{words}-{number}" for number in range(2, NUMBERED_SLUGS)]
    return [words, *numbered, f"{words}-{meter_id[-12:].lower()}"]


def _position(row: MeterRow) -> Position:
    return position_at(row.created_at, row.meter_id)


ROUTES = (
    Route("POST", "meters", create, answer=MeterView, body=NewMeter),
    Route("GET", "meters", page, answer=PageView[MeterView], query=PAGE_PARAMETERS),
    Route("GET", "meters/*", retrieve, answer=MeterView),
    Route("PATCH", "meters/*", update, answer=MeterView, body=MeterFields),
    Route("DELETE", "meters/*", delete, answer=Deleted, errors=("conflict",)),
)
