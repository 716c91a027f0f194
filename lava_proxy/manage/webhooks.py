"""``/v1/webhooks``: who is told what happens to the merchant's customers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, NotRequired
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id, new_webhook_secret
from lava_proxy.core.settings import ConfigurationError
from lava_proxy.core.vault import open_vault
from lava_proxy.manage.call import Answer, Call, Deleted, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Name, read_fields, read_query, refuse
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.text import time_text
from lava_proxy.store import webhooks as store
from lava_proxy.store.database import Connection
from lava_proxy.store.outbox import KNOWN, USUAL
from lava_proxy.store.webhooks import WebhookRow

URL_MAX_CHARS = 2048
_PORTS = {"http": 80, "https": 443}


def _event(name: str) -> str:
    if name not in KNOWN:
        raise ValueError(f"must be one of {', '.join(KNOWN)}")
    return name


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.fragment:
        raise ValueError("must be an absolute http(s) URL without a fragment")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or a password")
    if not text.isascii() or " " in text or port is None:
        raise ValueError("must be ASCII, percent-encoded")
    return text


Url = Annotated[str, Field(max_length=URL_MAX_CHARS), AfterValidator(_url)]
Events = Annotated[
    list[Annotated[str, AfterValidator(_event)]], Field(min_length=1, max_length=len(KNOWN))
]


class NewWebhook(Body):
    """`events` is ours: without it, the three that the public service knows."""

    name: Name
    url: Url
    events: Events | None = None


class WebhookFields(Body):
    """What is left out stays as it is."""

    name: Name | None = None
    url: Url | None = None
    events: Events | None = None
    status: Literal["active"] | None = None


class Rotation(Body):
    """How long the old secret goes on signing: `LAVA_WEBHOOK_ROTATION_OVERLAP_S`, or less."""

    overlap_s: Annotated[int, Field(ge=0)] | None = None


class WebhookView(TypedDict):
    """A webhook as the API shows it."""

    webhook_id: str
    name: str
    url: str
    events: list[str]
    status: Literal["active", "disabled"]
    disabled_at: str | None
    """Since when nothing is sent to it, because all it did was fail."""
    old_secret_until: str | None
    """Until when a rotated secret signs beside the present one."""
    created_at: str
    webhook_secret: NotRequired[str]
    """In the answer that makes it, and never again."""


async def create(desk: Desk, call: Call) -> Answer:
    """Make a webhook; a merchant has three at most."""
    body = read_fields(NewWebhook, call)
    _check_scheme(desk, body.url)
    wanted = WebhookRow(
        new_id("webhook", test=call.test),
        body.name,
        body.url,
        tuple(dict.fromkeys(body.events or USUAL)),
        desk.books.now(),
    )
    secret = new_webhook_secret()
    sealed = _sealed(desk, secret, wanted.webhook_id)

    async def work(conn: Connection) -> Answer:
        made = await store.create(conn, call.merchant_id, wanted, sealed)
        if made is None:
            raise LavaError("conflict", f"a merchant has at most {store.MOST} webhooks")
        return _shown_once(made, secret)

    return await once(desk, call, work)


async def rotate(desk: Desk, call: Call) -> Answer:
    """Put another secret in the place of a webhook's; the old one signs beside it for a while."""
    overlap_s = _overlap_s(desk, read_fields(Rotation, call).overlap_s)
    secret = new_webhook_secret()

    async def work(conn: Connection) -> Answer:
        row = await store.rotate(
            conn,
            call.merchant_id,
            call.params[0],
            lambda: _sealed(desk, secret, call.params[0]),
            overlap=timedelta(seconds=overlap_s),
            now=desk.books.now(),
        )
        if row is None:
            raise no_such("webhook")
        return _shown_once(row, secret)

    return await once(desk, call, work)


async def retrieve(desk: Desk, call: Call) -> Answer:
    """A webhook by id."""
    async with desk.reading() as conn:
        row = await store.find(conn, call.merchant_id, call.params[0], desk.books.now())
    if row is None:
        raise no_such("webhook")
    return answer(view(row))


async def page(desk: Desk, call: Call) -> Answer:
    """Webhooks, newest first."""
    page = read_page("webhooks", read_query(call, PAGE_PARAMETERS))
    async with desk.reading() as conn:
        rows = await store.page(conn, call.merchant_id, page.place, page.most, desk.books.now())
    return page.answer(rows, view, _position)


async def update(desk: Desk, call: Call) -> Answer:
    """Change what is given. Another address, or `status` `active`, is asked again at once."""
    body = read_fields(WebhookFields, call)
    for name in body.model_fields_set:
        if getattr(body, name) is None:
            refuse(name, "must not be null")
    if body.url is not None:
        _check_scheme(desk, body.url)
    async with desk.writing() as conn:
        row = await store.update(
            conn,
            call.merchant_id,
            call.params[0],
            name=body.name,
            url=body.url,
            events=body.events,
            enable=body.status is not None,
            now=desk.books.now(),
        )
    if row is None:
        raise no_such("webhook")
    return answer(view(row))


async def delete(desk: Desk, call: Call) -> Answer:
    """Remove a webhook, and what it was still to be told."""
    async with desk.writing() as conn:
        gone = await store.delete(conn, call.merchant_id, call.params[0])
    if not gone:
        raise no_such("webhook")
    return answer(Deleted(id=call.params[0], deleted=True))


def view(row: WebhookRow) -> WebhookView:
    """A webhook as the API shows it."""
    return {
        "webhook_id": row.webhook_id,
        "name": row.name,
        "url": row.url,
        "events": list(row.events),
        "status": "active" if row.disabled_at is None else "disabled",
        "disabled_at": _when(row.disabled_at),
        "old_secret_until": _when(row.old_secret_until),
        "created_at": time_text(row.created_at),
    }


def _when(moment: datetime | None) -> str | None:
    return None if moment is None else time_text(moment)


def _shown_once(row: WebhookRow, secret: str) -> Answer:
    shown = view(row)
    shown["webhook_secret"] = secret
    return answer(shown, once="webhook_secret")


def _sealed(desk: Desk, secret: str, webhook_id: str) -> bytes:
    try:
        return open_vault(desk.books.settings).seal(secret, webhook_id)
    except ConfigurationError as error:
        raise LavaError("unavailable", str(error), headers={"retry-after": "60"}) from None


def _overlap_s(desk: Desk, asked_s: int | None) -> int:
    most_s = desk.books.settings.webhook_rotation_overlap_s
    if asked_s is None:
        return most_s
    if asked_s > most_s:
        refuse("overlap_s", f"must be at most {most_s}")
    return asked_s


def _check_scheme(desk: Desk, url: str) -> None:
    if not desk.books.settings.webhook_allow_private and urlsplit(url).scheme != "https":
        refuse("url", "must be https")


def _position(row: WebhookRow) -> Position:
    return position_at(row.created_at, row.webhook_id)


ROUTES = (
    Route("POST", "webhooks", create, answer=WebhookView, body=NewWebhook, errors=("conflict",)),
    Route("GET", "webhooks", page, answer=PageView[WebhookView], query=PAGE_PARAMETERS),
    Route("GET", "webhooks/*", retrieve, answer=WebhookView),
    Route("PATCH", "webhooks/*", update, answer=WebhookView, body=WebhookFields),
    Route(
        "POST",
        "webhooks/*/rotate",
        rotate,
        answer=WebhookView,
        body=Rotation,
        errors=("conflict",),
    ),
    Route("DELETE", "webhooks/*", delete, answer=Deleted),
)
