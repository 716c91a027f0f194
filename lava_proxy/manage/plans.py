"""``/v1/plans``: what a cycle costs and grants, which meters it covers, which bundles it sells."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from lava_proxy.core.ids import new_id
from lava_proxy.core.money import E10, format_e10
from lava_proxy.manage.call import Answer, Call, Deleted, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Cost, Name, read_fields, read_query, refuse
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.text import time_text
from lava_proxy.rules.cycle import Interval
from lava_proxy.store import plans as store
from lava_proxy.store.database import Connection
from lava_proxy.store.plans import BundleChange, BundleRow, PlanChange, PlanRow, Rollover

PRICE_MAX_E10 = 10_000 * E10
CREDIT_MAX_E10 = 1_000_000 * E10
BUNDLES_MAX = 50
METERS_MAX = 200


def _price(amount_e10: int) -> int:
    if amount_e10 > PRICE_MAX_E10:
        raise ValueError(f"must be at most {PRICE_MAX_E10 // E10} USD")
    return amount_e10


def _credit(amount_e10: int) -> int:
    if amount_e10 > CREDIT_MAX_E10:
        raise ValueError(f"must be at most {CREDIT_MAX_E10 // E10} USD")
    return amount_e10


def _some_credit(amount_e10: int) -> int:
    if not amount_e10:
        raise ValueError("must be more than zero")
    return _credit(amount_e10)


Price = Annotated[Cost, AfterValidator(_price)]
Credit = Annotated[Cost, AfterValidator(_credit)]
SomeCredit = Annotated[Cost, AfterValidator(_some_credit)]
MeterIds = Annotated[list[Name], Field(max_length=METERS_MAX)]


class NewBundle(Body):
    """`cost` is what is paid, `credit_amount` what is granted; they may differ."""

    name: Name
    cost: Price
    credit_amount: SomeCredit


class NewPlan(Body):
    """`included_credit` is the price where it is left out. The default auto top-up is named by its
    place in `credit_bundles`, whose ids nobody knows yet."""

    name: Name
    period_amount: Price
    billing_interval: Interval
    rollover_type: Rollover = "none"
    bundle_rollover_type: Rollover = "full"
    included_credit: Credit | None = None
    default_auto_top_up_bundle_index: int | None = None
    default_auto_top_up_bundle_id: str | None = None
    meter_ids: MeterIds = Field(default_factory=list)
    credit_bundles: list[NewBundle] = Field(default_factory=list, max_length=BUNDLES_MAX)


class BundleFields(Body):
    """With an id a bundle that is there: changed, or taken away; without one, a new bundle."""

    credit_bundle_id: Name | None = None
    name: Name | None = None
    cost: Price | None = None
    credit_amount: SomeCredit | None = None
    is_deleted: bool = False


class PlanFields(Body):
    """What may change; price and interval may not. `meter_ids` replaces, bundles that are not named
    stay."""

    name: Name | None = None
    rollover_type: Rollover | None = None
    bundle_rollover_type: Rollover | None = None
    included_credit: Credit | None = None
    default_auto_top_up_bundle_id: Name | None = None
    meter_ids: MeterIds | None = None
    credit_bundles: Annotated[list[BundleFields], Field(max_length=BUNDLES_MAX)] | None = None


class LinkedMeterView(TypedDict):
    """A meter that the plan covers."""

    meter_id: str
    name: str


class PlanBundleView(TypedDict):
    """A bundle that the plan sells."""

    credit_bundle_id: str
    name: str
    cost: str
    credit_amount: str


class PlanView(TypedDict):
    """A plan as the API shows it."""

    plan_id: str
    merchant_id: str
    name: str
    period_amount: str
    included_credit: str
    billing_interval: Interval
    rollover_type: Rollover
    bundle_rollover_type: Rollover
    default_auto_top_up_bundle_id: str | None
    linked_meters: list[LinkedMeterView]
    credit_bundles: list[PlanBundleView]
    created_at: str


async def create(desk: Desk, call: Call) -> Answer:
    """Make a plan with its bundles."""
    body = read_fields(NewPlan, call)
    desk.payable([("period_amount", body.period_amount), *_costs(body.credit_bundles)])
    now, plan_id = desk.books.now(), new_id("plan", test=call.test)
    bundles = tuple(
        _bundle(call, plan_id, b.name, b.cost, b.credit_amount, now) for b in body.credit_bundles
    )
    wanted = PlanRow(
        plan_id=plan_id,
        merchant_id=call.merchant_id,
        name=body.name,
        period_amount_e10=body.period_amount,
        included_credit_e10=(
            body.period_amount if body.included_credit is None else body.included_credit
        ),
        billing_interval=body.billing_interval,
        rollover_type=body.rollover_type,
        bundle_rollover_type=body.bundle_rollover_type,
        default_top_up_bundle_id=_default(body, bundles),
        created_at=now,
        bundles=bundles,
    )

    async def work(conn: Connection) -> Answer:
        return answer(view(await store.create(conn, wanted, body.meter_ids)))

    return await once(desk, call, work)


async def update(desk: Desk, call: Call) -> Answer:
    """Change what is given; credit and rollover from each customer's next cycle on."""
    body = read_fields(PlanFields, call)
    for name in body.model_fields_set - {"default_auto_top_up_bundle_id"}:
        if getattr(body, name) is None:
            refuse(name, "must not be null")
    desk.payable(_costs(body.credit_bundles or ()))
    now = desk.books.now()
    change = PlanChange(
        name=body.name,
        included_credit_e10=body.included_credit,
        rollover_type=body.rollover_type,
        bundle_rollover_type=body.bundle_rollover_type,
        meters=body.meter_ids,
        bundles=_changed(body.credit_bundles or ()),
        new_bundles=_added(call, body.credit_bundles or (), now),
        set_default="default_auto_top_up_bundle_id" in body.model_fields_set,
        default_bundle_id=body.default_auto_top_up_bundle_id,
    )
    async with desk.writing() as conn:
        row = await store.update(conn, call.merchant_id, call.params[0], change, now)
        if row is not None and len(row.bundles) > BUNDLES_MAX:
            refuse("credit_bundles", f"a plan has at most {BUNDLES_MAX}")
    if row is None:
        raise no_such("plan")
    desk.books.directory.changed("plans", row.plan_id)
    return answer(view(row))


async def delete(desk: Desk, call: Call) -> Answer:
    """End a plan that no customer is on."""
    async with desk.writing() as conn:
        gone = await store.delete(conn, call.merchant_id, call.params[0], desk.books.now())
    if not gone:
        raise no_such("plan")
    return answer(Deleted(id=call.params[0], deleted=True))


async def retrieve(desk: Desk, call: Call) -> Answer:
    """A plan by id."""
    async with desk.reading() as conn:
        row = await store.find(conn, call.merchant_id, call.params[0])
    if row is None:
        raise no_such("plan")
    return answer(view(row))


async def page(desk: Desk, call: Call) -> Answer:
    """Plans, newest first."""
    page = read_page("plans", read_query(call, PAGE_PARAMETERS))
    async with desk.reading() as conn:
        rows = await store.page(conn, call.merchant_id, page.place, page.most)
    return page.answer(rows, view, _position)


def view(row: PlanRow) -> PlanView:
    """A plan as the API shows it."""
    return {
        "plan_id": row.plan_id,
        "merchant_id": row.merchant_id,
        "name": row.name,
        "period_amount": format_e10(row.period_amount_e10),
        "included_credit": format_e10(row.included_credit_e10),
        "billing_interval": row.billing_interval,
        "rollover_type": row.rollover_type,
        "bundle_rollover_type": row.bundle_rollover_type,
        "default_auto_top_up_bundle_id": row.default_top_up_bundle_id,
        "linked_meters": [{"meter_id": m.meter_id, "name": m.name} for m in row.meters],
        "credit_bundles": [
            {
                "credit_bundle_id": b.credit_bundle_id,
                "name": b.name,
                "cost": format_e10(b.cost_e10),
                "credit_amount": format_e10(b.credit_e10),
            }
            for b in row.bundles
        ],
        "created_at": time_text(row.created_at),
    }


def _default(body: NewPlan, bundles: Sequence[BundleRow]) -> str | None:
    if body.default_auto_top_up_bundle_id is not None:
        refuse("default_auto_top_up_bundle_id", "names a bundle that is not this plan's")
    index = body.default_auto_top_up_bundle_index
    if index is None:
        return None
    if not 0 <= index < len(bundles):
        refuse("default_auto_top_up_bundle_index", "is not the place of one of credit_bundles")
    return bundles[index].credit_bundle_id


def _costs(given: Sequence[NewBundle | BundleFields]) -> list[tuple[str, int | None]]:
    return [(f"credit_bundles[{place}].cost", bundle.cost) for place, bundle in enumerate(given)]


def _changed(given: Sequence[BundleFields]) -> list[BundleChange]:
    return [
        BundleChange(b.credit_bundle_id, b.name, b.cost, b.credit_amount, b.is_deleted)
        for b in given
        if b.credit_bundle_id is not None
    ]


def _added(call: Call, given: Sequence[BundleFields], now: datetime) -> list[BundleRow]:
    made = []
    for place, b in enumerate(given):
        if b.credit_bundle_id is not None:
            continue
        if b.name is None or b.cost is None or b.credit_amount is None or b.is_deleted:
            refuse(f"credit_bundles[{place}]", "needs name, cost and credit_amount, or an id")
        made.append(_bundle(call, call.params[0], b.name, b.cost, b.credit_amount, now))
    return made


def _bundle(
    call: Call, plan_id: str, name: str, cost_e10: int, credit_e10: int, now: datetime
) -> BundleRow:
    bundle_id = new_id("credit_bundle", test=call.test)
    return BundleRow(bundle_id, plan_id, name, cost_e10, credit_e10, now)


def _position(row: PlanRow) -> Position:
    return position_at(row.created_at, row.plan_id)


ROUTES = (
    Route("POST", "plans", create, answer=PlanView, body=NewPlan, errors=("not_found",)),
    Route("GET", "plans", page, answer=PageView[PlanView], query=PAGE_PARAMETERS),
    Route("GET", "plans/*", retrieve, answer=PlanView),
    Route("PATCH", "plans/*", update, answer=PlanView, body=PlanFields),
    Route("DELETE", "plans/*", delete, answer=Deleted, errors=("conflict",)),
)
