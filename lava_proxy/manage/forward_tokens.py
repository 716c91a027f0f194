"""``/v1/forward_tokens``: opaque stand-ins for a secret key, to be handed to what calls models.

The public forward token is the merchant's secret key in base64. This one names a customer and a
meter, can do nothing else, ends when it is told to, and says nothing to whoever reads it in a log.
"""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from lava_proxy.core.ids import hash_secret, hint_of, new_id, new_secret
from lava_proxy.core.money import format_e10
from lava_proxy.manage.call import Answer, Call, Deleted, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import (
    Body,
    Date,
    Name,
    customer_named,
    read_fields,
    read_query,
    refuse,
)
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.spend_key_fields import MoneyLimit, MoneyLimitView, money_limit
from lava_proxy.manage.text import time_text
from lava_proxy.store import tokens as store
from lava_proxy.store.database import Connection
from lava_proxy.store.tokens import TokenRow


class NewToken(Body):
    """Without customer and meter it is the merchant's own traffic, as with the bare key."""

    customer_id: Name | None = None
    connection_id: Name | None = None
    meter_slug: Name | None = None
    disable_billing: bool = False
    expires_at: Date | None = None
    spend_limit: MoneyLimit | None = None


class TokenView(TypedDict):
    """A forward token as the API shows it."""

    forward_token_id: str
    token_hint: str
    customer_id: str | None
    meter_slug: str | None
    disable_billing: bool
    expires_at: str | None
    spend_limit: MoneyLimitView | None
    current_spend: str
    """Provider cost in the limit's running cycle; zero where there is none."""
    created_at: str
    token: NotRequired[str]
    """In the answer that makes it, and never again."""


async def create(desk: Desk, call: Call) -> Answer:
    """Make a token for one customer and meter."""
    body = read_fields(NewToken, call)
    name = customer_named({"customer_id": body.customer_id, "connection_id": body.connection_id})
    now = desk.books.now()
    if name is not None and body.meter_slug is None:
        refuse("meter_slug", "is required with customer_id")
    if body.expires_at is not None and body.expires_at <= now:
        refuse("expires_at", "must be in the future")
    customer = await desk.customer(call, name) if name is not None else None
    meter = await desk.meter(call, body.meter_slug) if body.meter_slug is not None else None
    token = new_secret("lava_ft_")
    wanted = TokenRow(
        forward_token_id=new_id("forward_token", test=call.test),
        merchant_id=call.merchant_id,
        hint=hint_of(token),
        test=call.test,
        customer_id=customer.customer_id if customer else None,
        meter_slug=meter.slug if meter else None,
        meter_id=meter.meter_id if meter else None,
        disable_billing=body.disable_billing,
        expires_at=body.expires_at,
        spend_limit_e10=body.spend_limit.amount if body.spend_limit else None,
        spend_cycle=body.spend_limit.cycle if body.spend_limit else None,
        created_at=now,
    )

    async def work(conn: Connection) -> Answer:
        await store.create(conn, wanted, hash_secret(token))
        shown = view(wanted)
        shown["token"] = token
        return answer(shown, once="token")

    made = await once(desk, call, work)
    desk.books.directory.changed("forward_tokens", wanted.forward_token_id)
    return made


async def page(desk: Desk, call: Call) -> Answer:
    """Tokens that are not revoked, newest first; also those past their time."""
    page = read_page("forward_tokens", read_query(call, PAGE_PARAMETERS))
    async with desk.reading() as conn:
        rows = await store.page(conn, call.merchant_id, page.place, page.most, desk.books.now())
    return page.answer(rows, view, _position)


async def revoke(desk: Desk, call: Call) -> Answer:
    """End a token. Calls that run are not cut off."""
    token = call.params[0]
    async with desk.writing() as conn:
        if not await store.revoke(conn, call.merchant_id, token):
            raise no_such("forward token")
    desk.books.directory.changed("forward_tokens", token)
    return answer(Deleted(id=token, deleted=True))


def view(row: TokenRow) -> TokenView:
    """A token as the API shows it."""
    return {
        "forward_token_id": row.forward_token_id,
        "token_hint": row.hint,
        "customer_id": row.customer_id,
        "meter_slug": row.meter_slug,
        "disable_billing": row.disable_billing,
        "expires_at": None if row.expires_at is None else time_text(row.expires_at),
        "spend_limit": money_limit(row.spend_limit_e10, row.spend_cycle),
        "current_spend": format_e10(row.used_e10),
        "created_at": time_text(row.created_at),
    }


def _position(row: TokenRow) -> Position:
    return position_at(row.created_at, row.forward_token_id)


ROUTES = (
    Route("POST", "forward_tokens", create, answer=TokenView, body=NewToken),
    Route("GET", "forward_tokens", page, answer=PageView[TokenView], query=PAGE_PARAMETERS),
    Route("DELETE", "forward_tokens/*", revoke, answer=Deleted),
)
