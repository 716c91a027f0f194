"""``POST /v1/checkout_sessions``: a page to buy a plan or a bundle on, as a token for the browser.

The token is base64 of JSON with the session's secret and the base address of the page; whoever has
it may pay, and nothing else. Only the secret's hash is stored, so it is shown once.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime, timedelta
from typing import Literal, NotRequired

import orjson
from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import hash_secret, new_id, new_secret
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Name, PageUrl, customer_named, read_fields, refuse
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.text import time_text
from lava_proxy.rules.checkout import refusal
from lava_proxy.store import checkout_sessions as store
from lava_proxy.store.checkout_sessions import NewSession, Terms
from lava_proxy.store.database import Connection
from lava_proxy.wire.asgi import public_base


class NewCheckoutSession(Body):
    """A plan for anybody, or a bundle for a customer whose plan sells it."""

    checkout_mode: Literal["subscription", "credit_bundle"]
    origin_url: PageUrl
    """Where the page is shown: it frames us, and gets our messages."""
    plan_id: Name | None = None
    customer_id: Name | None = None
    connection_id: Name | None = None
    credit_bundle_id: Name | None = None


class CheckoutSession(TypedDict):
    """A session as the API shows it."""

    checkout_session_id: str
    checkout_session_token: NotRequired[str]
    """In the answer that makes it, and never again."""
    checkout_mode: Literal["subscription", "credit_bundle"]
    origin_url: str
    created_at: str
    plan_id: NotRequired[str]


async def create(desk: Desk, call: Call) -> Answer:
    """Open a session; nothing is sold yet."""
    body = read_fields(NewCheckoutSession, call)
    customer = customer_named(
        {"customer_id": body.customer_id, "connection_id": body.connection_id}
    )
    _check_fields(body, customer)
    base = public_base(desk.books.settings.public_url, call.headers)
    secret = new_secret("css_test_" if call.test else "css_live_")
    session_id, now = new_id("checkout_session", test=call.test), desk.books.now()

    async def work(conn: Connection) -> Answer:
        terms = await store.terms(
            conn,
            call.merchant_id,
            customer=customer,
            plan_id=body.plan_id,
            credit_bundle_id=body.credit_bundle_id,
            now=now,
        )
        _check_terms(body, customer, terms)
        unpayable = desk.payments.refusal(terms.price_e10)
        if unpayable is not None:
            raise LavaError("conflict", f"the price {unpayable}")
        await store.create(
            conn,
            NewSession(
                checkout_session_id=session_id,
                merchant_id=call.merchant_id,
                secret_hash=hash_secret(secret),
                test=call.test,
                checkout_mode=body.checkout_mode,
                origin_url=body.origin_url,
                customer_id=terms.customer_id,
                plan_id=terms.plan_id,
                credit_bundle_id=terms.credit_bundle_id,
                created_at=now,
                expires_at=now + timedelta(seconds=desk.books.settings.checkout_session_s),
            ),
        )
        shown = _view(body, session_id, _token(secret, base), now)
        return answer(shown, once="checkout_session_token")

    return await once(desk, call, work)


def _check_fields(body: NewCheckoutSession, customer: str | None) -> None:
    """Each mode has fields that it needs, and the other's mean a mistake."""
    if body.checkout_mode == "subscription":
        if body.plan_id is None:
            refuse("plan_id", "is required for checkout_mode subscription")
        if body.credit_bundle_id is not None:
            refuse("credit_bundle_id", "is for checkout_mode credit_bundle")
        return
    if customer is None:
        refuse("customer_id", "is required for checkout_mode credit_bundle")
    if body.credit_bundle_id is None:
        refuse("credit_bundle_id", "is required for checkout_mode credit_bundle")
    if body.plan_id is not None:
        refuse("plan_id", "is for checkout_mode subscription")


def _check_terms(body: NewCheckoutSession, customer: str | None, terms: Terms) -> None:
    """Everything named is the merchant's, and may be sold to this customer."""
    if customer is not None and terms.customer_id is None:
        raise no_such("customer")
    why = refusal(
        body.checkout_mode,
        plan_id=terms.plan_id,
        credit_bundle_id=terms.credit_bundle_id,
        bundle_plan_id=terms.bundle_plan_id,
        active_plan_id=terms.active_plan_id,
        plan_ends=terms.plan_ends,
    )
    match why:
        case "no_plan":
            raise no_such("plan")
        case "no_bundle":
            raise no_such("credit bundle")
        case "on_plan":
            raise LavaError("conflict", "the customer is on this plan already")
        case "without_plan":
            raise LavaError("conflict", "the customer has no plan; bundles are sold to a plan's")
        case "other_plan":
            refuse("credit_bundle_id", "is a bundle of another plan than the customer's")


def _token(secret: str, base: str) -> str:
    return b64encode(orjson.dumps({"secret": secret, "base": base})).decode()


def _view(
    body: NewCheckoutSession, session_id: str, token: str, created_at: datetime
) -> CheckoutSession:
    view: CheckoutSession = {
        "checkout_session_id": session_id,
        "checkout_session_token": token,
        "checkout_mode": body.checkout_mode,
        "origin_url": body.origin_url,
        "created_at": time_text(created_at),
    }
    if body.plan_id is not None:
        view["plan_id"] = body.plan_id
    return view


ROUTES = (
    Route(
        "POST",
        "checkout_sessions",
        create,
        answer=CheckoutSession,
        body=NewCheckoutSession,
        errors=("not_found", "conflict", "validation_error", "idempotency_conflict"),
    ),
)
