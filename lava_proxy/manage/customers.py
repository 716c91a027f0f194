"""``/v1/customers``: who pays the merchant; each one has a credit account from the start."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator
from typing_extensions import TypedDict

from lava_proxy.core.ids import PREFIXES, new_id
from lava_proxy.core.money import E10, format_e10
from lava_proxy.core.payment_settings import TOP_UP_MAX_USD
from lava_proxy.manage.call import Answer, Call, Route, Success, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Cost, Name, read_fields, read_query
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.text import exact_json, json_text, time_text
from lava_proxy.rules.contact import EMAIL_MAX_CHARS, NAME_MAX_CHARS, is_email, split_name
from lava_proxy.store import customers as store
from lava_proxy.store import free_plan, outbox, subscriptions
from lava_proxy.store.customers import CustomerRow
from lava_proxy.store.database import Connection
from lava_proxy.store.ledger import announce_credit

METADATA_MAX_BYTES = 16 * 1024

_PHONE = re.compile(r"\+[1-9]\d{1,14}", re.ASCII)


def _reference(text: str) -> str:
    if text.startswith(PREFIXES["customer"]):
        raise ValueError(f"may not start with {PREFIXES['customer']}, which our own ids do")
    return text


def _email(text: str) -> str:
    if not is_email(text):
        raise ValueError("is not an email address")
    return text


def _phone(text: str) -> str:
    if _PHONE.fullmatch(text) is None:
        raise ValueError("must be in E.164 form, such as +14155550100")
    return text


def _metadata(value: object) -> str | None:
    """Any JSON object, as text."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    text = exact_json(value)
    if len(text) > METADATA_MAX_BYTES:
        raise ValueError(f"is over {METADATA_MAX_BYTES} bytes of JSON")
    return text.decode()


def _cap(amount_e10: int) -> int:
    if amount_e10 > TOP_UP_MAX_USD * E10:
        raise ValueError(f"must be at most {TOP_UP_MAX_USD}")
    return amount_e10


class CustomerFields(Body):
    """All optional: ``{}`` is a customer too, and in a change what is left out stays as it is."""

    reference_id: Annotated[Name, AfterValidator(_reference)] | None = None
    name: Annotated[str, Field(max_length=NAME_MAX_CHARS)] | None = None
    email: Annotated[str, Field(max_length=EMAIL_MAX_CHARS), AfterValidator(_email)] | None = None
    phone: Annotated[str, AfterValidator(_phone)] | None = None
    metadata: Annotated[str | None, PlainValidator(_metadata)] = None
    top_up_monthly_max: Annotated[Cost, AfterValidator(_cap)] | None = None


class ContactView(TypedDict):
    """What is not known is empty."""

    phone: str
    email: str
    first_name: str
    last_name: str


class SummaryView(TypedDict):
    """The plan that a customer is on."""

    subscription_id: str
    plan_id: str
    name: str
    status: str


class CustomerView(TypedDict):
    """A customer as the API shows it."""

    customer_id: str
    reference_id: str | None
    contact: ContactView
    subscription: SummaryView | None
    metadata: dict[str, Any] | None
    top_up_monthly_max: str | None
    """Of auto top-ups, in USD; null: `LAVA_TOP_UP_MONTHLY_MAX`."""
    created_at: str


async def create(desk: Desk, call: Call) -> Answer:
    """Make a customer; a reference that is taken answers the customer who has it."""
    body = read_fields(CustomerFields, call)
    first_name, last_name = split_name(body.name)
    wanted = CustomerRow(
        customer_id=new_id("customer", test=call.test),
        reference_id=body.reference_id,
        phone=body.phone or "",
        email=body.email or "",
        first_name=first_name,
        last_name=last_name,
        metadata=body.metadata,
        top_up_max_e10=body.top_up_monthly_max,
        created_at=desk.books.now(),
    )

    async def work(conn: Connection) -> Answer:
        row = await store.create(conn, call.merchant_id, wanted)
        if row.customer_id == wanted.customer_id:
            news = outbox.Event(call.merchant_id, outbox.CREATED, row.customer_id)
            await outbox.emit(conn, [news], wanted.created_at)
            if desk.books.settings.auto_free_plan:
                await free_plan.put_on(conn, call.merchant_id, row.customer_id, wanted.created_at)
                row = await store.find(conn, call.merchant_id, row.customer_id) or row
        return answer(view(row))

    made = await once(desk, call, work)
    desk.books.directory.changed("customers", wanted.customer_id)
    return made


async def update(desk: Desk, call: Call) -> Answer:
    """Change what is given; null empties a field."""
    body = read_fields(CustomerFields, call)
    given = body.model_fields_set
    change = {name: getattr(body, name) for name in given - {"name", "top_up_monthly_max"}}
    if "name" in given:
        change["first_name"], change["last_name"] = split_name(body.name)
    if "top_up_monthly_max" in given:
        change["top_up_max_e10"] = body.top_up_monthly_max
    async with desk.writing() as conn:
        row = await store.update(conn, call.merchant_id, call.params[0], change)
        if row is not None and "top_up_max_e10" in change:
            await announce_credit(conn, row.customer_id)  # who was refused may be able to buy
    if row is None:
        raise no_such("customer")
    desk.books.directory.changed("customers", row.customer_id)
    return answer(view(row))


async def delete(desk: Desk, call: Call) -> Answer:
    """End a customer: its subscription is cancelled, its calls are refused; the books stay."""
    now = desk.books.now()
    async with desk.writing() as conn:
        found = await store.find(conn, call.merchant_id, call.params[0])
        if found is not None:
            await subscriptions.lock_account(conn, found.customer_id)
            # Whichever they are on by now: they may have changed it in this moment.
            await subscriptions.end(conn, found.customer_id, None, now)
        gone = await store.delete(conn, call.merchant_id, call.params[0], now)
        if gone is not None:
            news = outbox.Event(call.merchant_id, outbox.DELETED, gone)
            await outbox.emit(conn, [news], now)
    if gone is None:
        raise no_such("customer")
    desk.books.directory.changed("customers", gone)
    return answer(Success(success=True))


async def retrieve(desk: Desk, call: Call) -> Answer:
    """A customer by id or reference."""
    async with desk.reading() as conn:
        row = await store.find(conn, call.merchant_id, call.params[0])
    if row is None:
        raise no_such("customer")
    return answer(view(row))


async def page(desk: Desk, call: Call) -> Answer:
    """Customers, newest first."""
    page = read_page("customers", read_query(call, PAGE_PARAMETERS))
    async with desk.reading() as conn:
        rows = await store.page(conn, call.merchant_id, page.place, page.most)
    return page.answer(rows, view, _position)


def view(row: CustomerRow) -> CustomerView:
    """A customer as the API shows it."""
    return {
        "customer_id": row.customer_id,
        "reference_id": row.reference_id,
        "contact": {
            "phone": row.phone,
            "email": row.email,
            "first_name": row.first_name,
            "last_name": row.last_name,
        },
        "subscription": _summary(row),
        "metadata": None if row.metadata is None else json_text(row.metadata),
        "top_up_monthly_max": (
            None if row.top_up_max_e10 is None else format_e10(row.top_up_max_e10)
        ),
        "created_at": time_text(row.created_at),
    }


def _summary(row: CustomerRow) -> SummaryView | None:
    if row.subscription_id is None:
        return None
    return {
        "subscription_id": row.subscription_id,
        "plan_id": row.plan_id or "",
        "name": row.plan_name or "",
        "status": row.status or "",
    }


def _position(row: CustomerRow) -> Position:
    return position_at(row.created_at, row.customer_id)


ROUTES = (
    Route("POST", "customers", create, answer=CustomerView, body=CustomerFields),
    Route("GET", "customers", page, answer=PageView[CustomerView], query=PAGE_PARAMETERS),
    Route("GET", "customers/*", retrieve, answer=CustomerView),
    Route("PATCH", "customers/*", update, answer=CustomerView, body=CustomerFields),
    Route("DELETE", "customers/*", delete, answer=Success),
)
