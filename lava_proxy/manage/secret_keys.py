"""``/v1/secret_keys``: who may act for the merchant. A key is shown once; only its hash is kept."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.manage.call import Answer, Call, Deleted, Route, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import Body, Name, read_fields, read_query
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.text import time_text
from lava_proxy.store import keys as store
from lava_proxy.store.database import Connection
from lava_proxy.store.keys import KeyRow


class NewKey(Body):
    """What the key is for."""

    name: Name


class KeyView(TypedDict):
    """A key as the API shows it."""

    secret_key_id: str
    name: str
    secret_key_hint: str
    created_at: str
    secret_key: NotRequired[str]
    """In the answer that makes it, and never again."""


async def create(desk: Desk, call: Call) -> Answer:
    """Make a key of the same mode as the one that asks."""
    body = read_fields(NewKey, call)

    async def work(conn: Connection) -> Answer:
        made = await store.add_key(conn, call.merchant_id, name=body.name, test=call.test)
        shown = view(made.shown)
        shown["secret_key"] = made.secret_key
        return answer(shown, once="secret_key")

    return await once(desk, call, work)


async def page(desk: Desk, call: Call) -> Answer:
    """Keys in force, newest first."""
    page = read_page("secret_keys", read_query(call, PAGE_PARAMETERS))
    async with desk.reading() as conn:
        rows = await store.page(conn, call.merchant_id, page.place, page.most)
    return page.answer(rows, view, _position)


async def revoke(desk: Desk, call: Call) -> Answer:
    """End a key, also the one that asks; but not the last one: nobody could come back."""
    key = call.params[0]
    async with desk.writing() as conn:
        keys = await store.in_force(conn, call.merchant_id)
        if key not in keys:
            raise no_such("secret key")
        if keys == [key]:
            raise LavaError("conflict", "this is your last key; make another one first")
        await store.revoke(conn, call.merchant_id, key)
    desk.books.directory.changed("secret_keys", key)
    return answer(Deleted(id=key, deleted=True))


def view(row: KeyRow) -> KeyView:
    """A key as the API shows it."""
    return {
        "secret_key_id": row.secret_key_id,
        "name": row.name,
        "secret_key_hint": row.hint,
        "created_at": time_text(row.created_at),
    }


def _position(row: KeyRow) -> Position:
    return position_at(row.created_at, row.secret_key_id)


ROUTES = (
    Route("POST", "secret_keys", create, answer=KeyView, body=NewKey),
    Route("GET", "secret_keys", page, answer=PageView[KeyView], query=PAGE_PARAMETERS),
    Route("DELETE", "secret_keys/*", revoke, answer=Deleted, errors=("conflict",)),
)
