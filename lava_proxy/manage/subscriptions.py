"""``/v1/subscriptions``: who is on which plan. Paid plans are bought through checkout."""

from __future__ import annotations

from typing_extensions import TypedDict

from lava_proxy.manage.call import Answer, Call, Route, Success, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Name, customer_named, read_fields, read_query, refuse
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.store import subscribed
from lava_proxy.store import subscriptions as store
from lava_proxy.store.database import Connection
from lava_proxy.store.subscribed import SubscriptionRow
from lava_proxy.store.subscription_view import SubscriptionView, view

PARAMETERS = PAGE_PARAMETERS | {"status", "customer_id", "connection_id"}
STATUSES = {"active": "active", "cancelled": "cancelled", "all": None}


class NewSubscription(Body):
    """A customer, by id or reference, and a free plan, or the one that they are on."""

    customer_id: Name | None = None
    connection_id: Name | None = None
    plan_id: Name


class SubscriptionFields(Body):
    """null turns auto top-up off."""

    auto_top_up_bundle_id: Name | None = None


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
    """Put a customer on a free plan; from a paid one the change waits for the cycle's end. The plan
    that they are on takes back a change that waits."""
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
                now=desk.books.now(),
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
