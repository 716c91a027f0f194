"""``/v1/ledger``: every movement of money; the entries of a transaction sum to zero."""

from __future__ import annotations

from typing_extensions import TypedDict

from lava_proxy.core.money import format_e10
from lava_proxy.manage.call import Answer, Call, Route
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import read_query
from lava_proxy.manage.filters import narrowed
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, read_page
from lava_proxy.manage.text import time_text
from lava_proxy.store import ledger as store
from lava_proxy.store.ledger import LedgerRow

PARAMETERS = PAGE_PARAMETERS | {"customer_id", "connection_id", "request_id"}


class EntryView(TypedDict):
    """One side of a transaction, as the API shows it."""

    entry_id: str
    transaction_id: str
    account: str
    amount: str
    kind: str
    request_id: str | None
    created_at: str


async def page(desk: Desk, call: Call) -> Answer:
    """Entries, newest first. A request id that nobody used has none; an unknown customer is 404."""
    query = read_query(call, PARAMETERS)
    page = read_page("ledger", query)
    customer_id, _ = await narrowed(desk, call, query)
    async with desk.reading() as conn:
        rows = await store.page(
            conn,
            call.merchant_id,
            customer_id=customer_id,
            request_id=query.get("request_id"),
            before=page.number,
            most=page.most,
        )
    return page.answer(rows, view, _position)


def view(row: LedgerRow) -> EntryView:
    """An entry as the API shows it."""
    return {
        "entry_id": str(row.entry_id),
        "transaction_id": row.transaction_id,
        "account": row.account,
        "amount": format_e10(row.amount_e10),
        "kind": row.kind,
        "request_id": row.request_id,
        "created_at": time_text(row.created_at),
    }


def _position(row: LedgerRow) -> Position:
    return row.entry_id, ""


ROUTES = (
    Route(
        "GET",
        "ledger",
        page,
        answer=PageView[EntryView],
        query=PARAMETERS,
        errors=("not_found",),
    ),
)
