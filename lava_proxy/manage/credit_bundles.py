"""``/v1/credit_bundles``: credit that a plan sells beside its cycles. Plans change them."""

from __future__ import annotations

from typing_extensions import TypedDict

from lava_proxy.core.money import format_e10
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import read_query
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.text import time_text
from lava_proxy.store import plans as store
from lava_proxy.store.plans import BundleRow

PARAMETERS = PAGE_PARAMETERS | {"plan_id"}


class CreditBundleView(TypedDict):
    """A bundle as the API shows it: `cost` is paid, `credit_amount` is granted."""

    credit_bundle_id: str
    plan_id: str
    name: str
    cost: str
    credit_amount: str
    created_at: str


async def retrieve(desk: Desk, call: Call) -> Answer:
    """A bundle by id."""
    async with desk.reading() as conn:
        row = await store.find_bundle(conn, call.merchant_id, call.params[0])
    if row is None:
        raise no_such("credit bundle")
    return answer(view(row))


async def page(desk: Desk, call: Call) -> Answer:
    """The merchant's bundles, newest first."""
    query = read_query(call, PARAMETERS)
    page = read_page("credit_bundles", query)
    plan_id = query.get("plan_id")
    async with desk.reading() as conn:
        rows = await store.page_of_bundles(conn, call.merchant_id, plan_id, page.place, page.most)
        unknown = not rows and plan_id and not await store.find(conn, call.merchant_id, plan_id)
    if unknown:
        raise no_such("plan")
    return page.answer(rows, view, _position)


def view(row: BundleRow) -> CreditBundleView:
    """A bundle as the API shows it."""
    return {
        "credit_bundle_id": row.credit_bundle_id,
        "plan_id": row.plan_id,
        "name": row.name,
        "cost": format_e10(row.cost_e10),
        "credit_amount": format_e10(row.credit_e10),
        "created_at": time_text(row.created_at),
    }


def _position(row: BundleRow) -> Position:
    return position_at(row.created_at, row.credit_bundle_id)


ROUTES = (
    Route(
        "GET",
        "credit_bundles",
        page,
        answer=PageView[CreditBundleView],
        query=PARAMETERS,
        errors=("not_found",),
    ),
    Route("GET", "credit_bundles/*", retrieve, answer=CreditBundleView),
)
