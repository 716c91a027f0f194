"""The filters that requests and usage share: whose, by which meter, with which metadata."""

from __future__ import annotations

from collections.abc import Mapping

from lava_proxy.core.errors import LavaError
from lava_proxy.manage.call import Call
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import customer_named, refuse
from lava_proxy.store import usage
from lava_proxy.wire.problem import strict_json

FILTERS_MAX = 100


async def narrowed(
    desk: Desk, call: Call, query: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """The ids of the customer and the meter that a query names. What was deleted is found by its
    id: its rows stay."""
    customer, meter = customer_named(query), query.get("meter_id")
    customer_id = None if customer is None else await _customer(desk, call, customer)
    return customer_id, None if meter is None else await _meter(desk, call, meter)


async def _customer(desk: Desk, call: Call, name: str) -> str:
    known = await desk.books.directory.customer(call.merchant_id, name)
    if known is not None:
        return known.customer_id
    async with desk.reading() as conn:
        if not await usage.had_customer(conn, call.merchant_id, name):
            raise no_such("customer")
    return name


async def _meter(desk: Desk, call: Call, name: str) -> str:
    known = await desk.books.directory.meter(call.merchant_id, name)
    if known is not None:
        return known.meter_id
    async with desk.reading() as conn:
        if not await usage.had_meter(conn, call.merchant_id, name):
            raise no_such("meter")
    return name


def metadata_filters(text: str | None) -> dict[str, str] | None:
    """``[["feature","chat"],...]`` -> what rows must have; None where no row can have it all."""
    if text is None:
        return {}
    try:
        pairs = strict_json(text.encode())
    except LavaError:
        pairs = None
    if not isinstance(pairs, list) or len(pairs) > FILTERS_MAX:
        refuse(
            "metadata_filters", f"must be a JSON array of at most {FILTERS_MAX} [key, value] pairs"
        )
    wanted: dict[str, str] = {}
    possible = True
    for index, pair in enumerate(pairs):
        match pair:
            case [str(key), str(value)]:
                possible = possible and wanted.setdefault(key, value) == value
            case _:
                refuse(f"metadata_filters[{index}]", "must be a [key, value] pair of strings")
    return wanted if possible else None
