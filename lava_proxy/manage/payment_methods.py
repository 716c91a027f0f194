"""``/v1/payment_methods``: the cards that the payment provider keeps, of the merchant (its wallet)
or of a customer. Numbers are given on the provider's own page and never come here."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import id_from, new_id
from lava_proxy.manage.call import Answer, Call, Deleted, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Name, PageUrl, customer_named, read_fields, read_query
from lava_proxy.manage.idempotency import once_apart
from lava_proxy.manage.text import time_text
from lava_proxy.payments.seam import CheckoutAsk, PayerAsk, StoredMethod
from lava_proxy.store import customers
from lava_proxy.store import payers as store
from lava_proxy.store.payers import MethodError

PARAMETERS = frozenset({"customer_id", "connection_id"})


class NewPaymentMethod(Body):
    """Whose card it is to be (without a customer the merchant's), and where the page leads to."""

    customer_id: Name | None = None
    connection_id: Name | None = None
    return_url: PageUrl


class PaymentMethodFields(Body):
    """Another one is charged from now on by choosing that one."""

    is_default: Literal[True]


class PaymentMethodView(TypedDict):
    """A card as the API shows it; its error is that of its last charge."""

    payment_method_id: str
    brand: str
    last4: str
    expiry_month: str
    expiry_year: str
    is_default: bool
    has_error: bool
    error_code: str | None
    error_message: str | None
    error_at: str | None


class PaymentMethodList(TypedDict):
    """All of them, the default first."""

    data: list[PaymentMethodView]


class LeaveCardView(TypedDict):
    """Where the payer leaves a card; it is there when they have done so."""

    redirect_url: str


async def page(desk: Desk, call: Call) -> Answer:
    """The merchant's means of payment, or a customer's, the default first."""
    name = customer_named(read_query(call, PARAMETERS))
    owner_id = call.merchant_id if name is None else (await desk.customer(call, name)).customer_id
    async with desk.reading() as conn:
        payer_ref = await store.payer_ref(conn, owner_id, desk.payments.name)
    shown = [] if payer_ref is None else await _views(desk, payer_ref)
    return answer(PaymentMethodList(data=shown))


async def create(desk: Desk, call: Call) -> Answer:
    """Send the payer to this page: there they leave a card, which is charged later."""
    body = read_fields(NewPaymentMethod, call)
    name = customer_named({"customer_id": body.customer_id, "connection_id": body.connection_id})
    owner_id = call.merchant_id if name is None else (await desk.customer(call, name)).customer_id

    async def work(seed: str | None) -> Answer:
        if seed is None:
            reference = new_id("setup", test=call.test)
        else:
            reference = id_from("setup", seed, test=call.test)
        payer_ref = await _payer(desk, call, owner_id)
        made = await desk.payments.checkout(
            CheckoutAsk(
                reference=reference,
                owner_id=owner_id,
                payer_ref=payer_ref,
                amount_e10=None,
                description="Means of payment",
                success_url=body.return_url,
                cancel_url=body.return_url,
            )
        )
        if made.payer_gone:
            async with desk.writing() as conn:
                await store.forget_payer(conn, owner_id, desk.payments.name, payer_ref)
        if made.redirect_url is None:
            raise LavaError("conflict", "no payment provider keeps means of payment here")
        return answer(LeaveCardView(redirect_url=made.redirect_url))

    return await once_apart(desk, call, work)


async def update(desk: Desk, call: Call) -> Answer:
    """Charge this one from now on, for whoever's it is."""
    read_fields(PaymentMethodFields, call)
    method_id = call.params[0]
    payer_ref = await _holder(desk, call, method_id)
    await desk.payments.make_default(payer_ref, method_id)
    for shown in await _views(desk, payer_ref):
        if shown["payment_method_id"] == method_id:
            return answer(shown)
    raise no_such("payment method")


async def delete(desk: Desk, call: Call) -> Answer:
    """Never charge this one again. Renewals and top-ups take another one, or are declined."""
    method_id = call.params[0]
    await _holder(desk, call, method_id)
    await desk.payments.forget(method_id)
    return answer(Deleted(id=method_id, deleted=True))


async def _holder(desk: Desk, call: Call, method_id: str) -> str:
    """The payer whose means of payment it is, one of the caller's; or 404."""
    payer_ref = await desk.payments.payer_of(method_id)
    if payer_ref is not None:
        async with desk.reading() as conn:
            if await store.owner_of(conn, payer_ref, desk.payments.name, call.merchant_id):
                return payer_ref
    raise no_such("payment method")


async def _payer(desk: Desk, call: Call, owner_id: str) -> str | None:
    """Who the owner is at the provider; made known there if need be."""
    provider = desk.payments.name
    async with desk.reading() as conn:
        known = await store.payer_ref(conn, owner_id, provider)
        row = await customers.find(conn, call.merchant_id, owner_id)
    if known is not None:
        return known
    name = None if row is None else f"{row.first_name} {row.last_name}".strip()
    made = await desk.payments.open_payer(PayerAsk(owner_id, row.email if row else None, name))
    if made is None:
        return None
    async with desk.writing() as conn:
        await store.save_payer(conn, owner_id, provider, made, desk.books.now())
        return await store.payer_ref(conn, owner_id, provider)


async def _views(desk: Desk, payer_ref: str) -> list[PaymentMethodView]:
    found = await desk.payments.methods(payer_ref)
    async with desk.reading() as conn:
        failed = await store.failed_methods(
            conn, desk.payments.name, [method.payment_method_id for method in found]
        )
    return [_view(method, failed.get(method.payment_method_id)) for method in found]


def _view(method: StoredMethod, failed: MethodError | None) -> PaymentMethodView:
    return {
        "payment_method_id": method.payment_method_id,
        "brand": method.brand,
        "last4": method.last4,
        "expiry_month": method.expiry_month,
        "expiry_year": method.expiry_year,
        "is_default": method.is_default,
        "has_error": failed is not None,
        "error_code": failed.code if failed else None,
        "error_message": failed.message if failed else None,
        "error_at": time_text(failed.at) if failed else None,
    }


ROUTES = (
    Route(
        "GET",
        "payment_methods",
        page,
        answer=PaymentMethodList,
        query=PARAMETERS,
        errors=("not_found",),
    ),
    Route(
        "POST",
        "payment_methods",
        create,
        answer=LeaveCardView,
        body=NewPaymentMethod,
        errors=("not_found", "conflict"),
    ),
    Route("PATCH", "payment_methods/*", update, answer=PaymentMethodView, body=PaymentMethodFields),
    Route("DELETE", "payment_methods/*", delete, answer=Deleted),
)
