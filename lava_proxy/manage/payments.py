"""``/v1/payments``: what was charged or is to be. With the provider `manual` the operator says when
the money is there."""

from __future__ import annotations

from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.core.money import format_e10
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import customer_named, read_query
from lava_proxy.manage.idempotency import once_apart
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.text import time_text
from lava_proxy.payments.manual import Manual
from lava_proxy.rules.limits import wallet_account
from lava_proxy.store import payments as store
from lava_proxy.store.payments import PaymentRow

PARAMETERS = PAGE_PARAMETERS | {"customer_id", "connection_id"}


class PaymentView(TypedDict):
    """A payment as the API shows it."""

    payment_id: str
    customer_id: str | None
    purpose: str
    amount: str
    status: str
    provider: str
    plan_id: str | None
    subscription_id: str | None
    credit_bundle_id: str | None
    refunded_amount: str
    disputed_at: str | None
    error_code: str | None
    error_message: str | None
    created_at: str
    settled_at: str | None


async def retrieve(desk: Desk, call: Call) -> Answer:
    """A payment by id."""
    async with desk.reading() as conn:
        row = await store.find(conn, call.merchant_id, call.params[0])
    if row is None:
        raise no_such("payment")
    return answer(view(row))


async def page(desk: Desk, call: Call) -> Answer:
    """Payments, newest first. An unknown customer is 404."""
    query = read_query(call, PARAMETERS)
    page = read_page("payments", query)
    name = customer_named(query)
    customer_id = None if name is None else (await desk.customer(call, name)).customer_id
    async with desk.reading() as conn:
        rows = await store.page(conn, call.merchant_id, customer_id, page.place, page.most)
    return page.answer(rows, view, _position)


async def complete(desk: Desk, call: Call) -> Answer:
    """The money of a manual payment is there: do what it pays for. Said twice, it works once."""
    return await once_apart(desk, call, lambda _: _complete(desk, call))


async def _complete(desk: Desk, call: Call) -> Answer:
    now = desk.books.now()
    async with desk.writing() as conn:
        row = await store.find(conn, call.merchant_id, call.params[0])
        if row is None:
            raise no_such("payment")
        if row.provider != Manual.name:
            raise LavaError("conflict", f"{row.provider} itself says when this payment is made")
        if row.purpose == "wallet" and desk.books.settings.wallet_enforced:
            raise LavaError("conflict", "the operator says when money for the wallet is there")
        await store.succeeded(conn, row.payment_id, None, now)
        row = await store.find(conn, call.merchant_id, call.params[0])
    if row is None:
        raise no_such("payment")
    if row.customer_id is not None:
        desk.books.directory.changed("customers", row.customer_id)
    desk.books.leases.credit_changed(row.customer_id or wallet_account(call.merchant_id))
    return answer(view(row))


def view(row: PaymentRow) -> PaymentView:
    """A payment as the API shows it."""
    return {
        "payment_id": row.payment_id,
        "customer_id": row.customer_id,
        "purpose": row.purpose,
        "amount": format_e10(row.amount_e10),
        "status": row.status,
        "provider": row.provider,
        "plan_id": row.plan_id,
        "subscription_id": row.subscription_id,
        "credit_bundle_id": row.credit_bundle_id,
        "refunded_amount": format_e10(row.refunded_e10),
        "disputed_at": None if row.disputed_at is None else time_text(row.disputed_at),
        "error_code": row.error_code,
        "error_message": row.error_message,
        "created_at": time_text(row.created_at),
        "settled_at": None if row.settled_at is None else time_text(row.settled_at),
    }


def _position(row: PaymentRow) -> Position:
    return position_at(row.created_at, row.payment_id)


ROUTES = (
    Route(
        "GET",
        "payments",
        page,
        answer=PageView[PaymentView],
        query=PARAMETERS,
        errors=("not_found",),
    ),
    Route("GET", "payments/*", retrieve, answer=PaymentView),
    Route("POST", "payments/*/complete", complete, answer=PaymentView, errors=("conflict",)),
)
