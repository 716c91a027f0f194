"""``POST /v1/prices/rerate``: the merchant's requests that waited for a price, corrected now.

The same as the worker does by itself a while after a price came, and `lava-proxy prices rerate` for
everybody: each request once, by new ledger rows. A call corrects a bounded number; while there is
more, it is called again.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from lava_proxy.core.money import format_e10
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import Body, read_fields
from lava_proxy.manage.idempotency import once_apart
from lava_proxy.store.corrections import Change
from lava_proxy.store.reratings import rerate

ROWS_MAX = 500
ROWS_USUAL = 100


class NewRerating(Body):
    """`dry_run`: only tell what would change."""

    dry_run: bool = False
    limit: Annotated[int, Field(ge=1, le=ROWS_MAX)] = ROWS_USUAL


class ChangedView(TypedDict):
    """A request that a price came late for, and by how much cost and charge differ now."""

    request_id: str
    customer_id: NotRequired[str]
    model: str
    cost_change: str
    charge_change: str
    price_version: str


class ReratingView(TypedDict):
    """What was changed, or would be."""

    dry_run: bool
    data: list[ChangedView]
    has_more: bool


async def create(desk: Desk, call: Call) -> Answer:
    """Re-rate the merchant's requests whose price came late; each once."""
    body = read_fields(NewRerating, call)
    return await once_apart(desk, call, lambda _: _rerate(desk, call, body))


async def _rerate(desk: Desk, call: Call, body: NewRerating) -> Answer:
    books = desk.books
    prices = await books.price_history()
    changed: list[Change] = []
    one_pass = rerate(desk, prices, books.now(), merchant_id=call.merchant_id, dry=body.dry_run)
    async with aclosing(one_pass) as changes:
        async for change in changes:
            changed.append(change)
            if change.customer_id is not None and change.charge_change_e10 > 0:
                books.spent_free.add(change.customer_id)  # a top-up may be due
            if len(changed) == body.limit:
                break
    view: ReratingView = {
        "dry_run": body.dry_run,
        "data": [_view(change) for change in changed],
        "has_more": len(changed) == body.limit,
    }
    return answer(view)


def _view(change: Change) -> ChangedView:
    shown: ChangedView = {
        "request_id": change.request_id,
        "model": change.model,
        "cost_change": format_e10(change.cost_change_e10),
        "charge_change": format_e10(change.charge_change_e10),
        "price_version": change.version,
    }
    if change.customer_id is not None:
        shown["customer_id"] = change.customer_id
    return shown


ROUTES = (Route("POST", "prices/rerate", create, answer=ReratingView, body=NewRerating),)
