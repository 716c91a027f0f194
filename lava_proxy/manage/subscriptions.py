"""``/v1/subscriptions``: who is on which plan. Paid plans are bought through checkout."""

from __future__ import annotations

from datetime import datetime
from typing import NotRequired

from typing_extensions import TypedDict

from lava_proxy.core.money import format_e10
from lava_proxy.manage.call import Answer, Call, Route, Success, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Name, customer_named, read_fields, read_query, refuse
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.text import time_text
from lava_proxy.store import subscribed
from lava_proxy.store import subscriptions as store
from lava_proxy.store.database import Connection
from lava_proxy.store.subscribed import SubscriptionRow

PARAMETERS = PAGE_PARAMETERS | {"status", "customer_id", "connection_id"}
STATUSES = {"active": "active", "cancelled": "cancelled", "all": None}


class NewSubscription(Body):
    """A customer, by id or reference, and a free plan."""

    customer_id: Name | None = None
    connection_id: Name | None = None
    plan_id: Name


class SubscriptionFields(Body):
    """null turns auto top-up off."""

    auto_top_up_bundle_id: Name | None = None


class TermsView(TypedDict):
    """What the plan gives, and for how much."""

    name: str
    period_amount: str
    included_credit: str
    billing_interval: str
    rollover_type: str
    bundle_rollover_type: str


class CreditsView(TypedDict):
    """What is left, held by workers included."""

    total_remaining: str
    cycle_remaining: str
    bundle_remaining: str


class ChangeView(TypedDict):
    """What happens at the cycle's end."""

    type: str
    effective_at: str | None
    plan_id: NotRequired[str]
    name: NotRequired[str]
    period_amount: NotRequired[str]
    included_credit: NotRequired[str]


class SubscriptionView(TypedDict):
    """A subscription as the API shows it."""

    subscription_id: str
    plan_id: str
    status: str
    auto_top_up_bundle_id: str | None
    started_at: str
    cancelled_at: str | None
    cycle_start_at: str | None
    cycle_end_at: str | None
    plan: TermsView
    credits: CreditsView
    pending_change: ChangeView | None


class SubscriberView(TypedDict):
    """The customer of a subscription in a list."""

    phone: str
    email: str
    first_name: str
    last_name: str


class ListedView(SubscriptionView):
    """A subscription in a list, with its customer."""

    customer_id: str
    customer: SubscriberView


class OneView(TypedDict):
    """The subscription of a customer; null when there is none."""

    subscription: SubscriptionView | None


async def create(desk: Desk, call: Call) -> Answer:
    """Put a customer on a free plan; from a paid one the change waits for the cycle's end."""
    body = read_fields(NewSubscription, call)
    name = customer_named({"customer_id": body.customer_id, "connection_id": body.connection_id})
    if name is None:
        refuse("customer_id", "is required")
    customer_id = (await desk.customer(call, name)).customer_id
    now = desk.books.now()

    async def work(conn: Connection) -> Answer:
        await store.subscribe_free(
            conn,
            customer_id=customer_id,
            plan_id=body.plan_id,
            merchant_id=call.merchant_id,
            now=now,
        )
        row = await subscribed.active(conn, call.merchant_id, customer_id)
        shown: OneView = {"subscription": None if row is None else view(row)}
        return answer(shown)

    made = await once(desk, call, work)
    desk.books.directory.changed("customers", customer_id)
    desk.books.leases.credit_changed(customer_id)
    return made


async def of_customer(desk: Desk, call: Call) -> Answer:
    """The subscription that a customer is on, or null."""
    customer_id = (await desk.customer(call, call.params[0])).customer_id
    async with desk.reading() as conn:
        row = await subscribed.active(conn, call.merchant_id, customer_id)
    shown: OneView = {"subscription": None if row is None else view(row)}
    return answer(shown)


async def page(desk: Desk, call: Call) -> Answer:
    """Subscriptions, newest first; the active ones unless `status` says otherwise."""
    query = read_query(call, PARAMETERS)
    page = read_page("subscriptions", query)
    status = query.get("status", "active")
    if status not in STATUSES:
        refuse("status", f"must be one of {', '.join(STATUSES)}")
    name = customer_named(query)
    customer_id = None if name is None else (await desk.customer(call, name)).customer_id
    async with desk.reading() as conn:
        rows = await subscribed.page(
            conn,
            call.merchant_id,
            customer_id=customer_id,
            status=STATUSES[status],
            behind=page.place,
            most=page.most,
        )
    return page.answer(rows, _listed, _position)


async def update(desk: Desk, call: Call) -> Answer:
    """Choose the bundle that is bought when credit runs low, or none."""
    body = read_fields(SubscriptionFields, call)
    changed = True
    async with desk.writing() as conn:
        if await store.owner(conn, call.params[0], call.merchant_id) is None:
            raise no_such("subscription")
        if "auto_top_up_bundle_id" in body.model_fields_set:
            changed = await store.set_top_up(
                conn,
                subscription_id=call.params[0],
                merchant_id=call.merchant_id,
                bundle_id=body.auto_top_up_bundle_id,
            )
    if not changed:
        refuse("auto_top_up_bundle_id", "must be a bundle of the plan of an active subscription")
    return answer(Success(success=True))


async def cancel(desk: Desk, call: Call) -> Answer:
    """Cancel with the end of the cycle; its credit can be used until then."""
    async with desk.writing() as conn:
        customer_id = await store.cancel(
            conn,
            subscription_id=call.params[0],
            merchant_id=call.merchant_id,
            now=desk.books.now(),
        )
    if customer_id is None:
        raise no_such("subscription")
    desk.books.directory.changed("customers", customer_id)
    return answer(Success(success=True))


def view(row: SubscriptionRow) -> SubscriptionView:
    """A subscription as the API shows it."""
    return {
        "subscription_id": row.subscription_id,
        "plan_id": row.plan_id,
        "status": row.status,
        "auto_top_up_bundle_id": row.top_up_bundle_id,
        "started_at": time_text(row.started_at),
        "cancelled_at": _time(row.cancelled_at),
        "cycle_start_at": time_text(row.cycle_start_at),
        "cycle_end_at": time_text(row.cycle_end_at),
        "plan": {
            "name": row.name,
            "period_amount": format_e10(row.period_amount_e10),
            "included_credit": format_e10(row.included_credit_e10),
            "billing_interval": row.billing_interval,
            "rollover_type": row.rollover_type,
            "bundle_rollover_type": row.bundle_rollover_type,
        },
        "credits": {
            "total_remaining": format_e10(row.total_e10),
            "cycle_remaining": format_e10(row.cycle_e10),
            "bundle_remaining": format_e10(row.bundle_e10),
        },
        "pending_change": _change(row),
    }


def _change(row: SubscriptionRow) -> ChangeView | None:
    if row.pending_type is None or row.status != "active":
        return None
    shown: ChangeView = {"type": row.pending_type, "effective_at": time_text(row.cycle_end_at)}
    if row.pending_plan_id is not None and row.next_name is not None:
        shown["plan_id"] = row.pending_plan_id
        shown["name"] = row.next_name
        shown["period_amount"] = format_e10(row.next_amount_e10 or 0)
        shown["included_credit"] = format_e10(row.next_credit_e10 or 0)
    return shown


def _listed(row: SubscriptionRow) -> ListedView:
    return {
        **view(row),
        "customer_id": row.customer_id,
        "customer": {
            "phone": row.phone,
            "email": row.email,
            "first_name": row.first_name,
            "last_name": row.last_name,
        },
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else time_text(at)


def _position(row: SubscriptionRow) -> Position:
    return position_at(row.started_at, row.subscription_id)


ROUTES = (
    Route(
        "POST",
        "subscriptions",
        create,
        answer=OneView,
        body=NewSubscription,
        errors=("not_found", "conflict"),
    ),
    Route(
        "GET",
        "subscriptions",
        page,
        answer=PageView[ListedView],
        query=PARAMETERS,
        errors=("not_found",),
    ),
    Route("PATCH", "subscriptions/*", update, answer=Success, body=SubscriptionFields),
    Route("DELETE", "subscriptions/*", cancel, answer=Success, errors=("conflict",)),
    Route("GET", "customers/*/subscription", of_customer, answer=OneView),
)
