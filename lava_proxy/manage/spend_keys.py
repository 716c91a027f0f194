"""``/v1/spend_keys``: keys for tools, each with what it may ask for and how much of it.

What a key used is read from the accounts of its limits. A limit whose cycle changes counts from the
change on, since each kind of cycle has accounts of its own; the total is kept all along.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NotRequired

from typing_extensions import TypedDict

from lava_proxy.core.ids import hash_secret, new_id, new_secret, preview_of, wallet_id_of
from lava_proxy.core.money import format_e10
from lava_proxy.manage.call import Answer, Call, Route, Success, answer
from lava_proxy.manage.desk import Desk, no_such
from lava_proxy.manage.fields import read_fields, read_query, refuse
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.paging import PAGE_PARAMETERS, PageView, Position, position_at, read_page
from lava_proxy.manage.spend_key_fields import (
    MoneyLimitView,
    NewSpendKey,
    SpendKeyFields,
    changed,
    money_limit,
)
from lava_proxy.manage.text import time_text
from lava_proxy.rules.limits import Cycle, Shape
from lava_proxy.store import spend_keys as store
from lava_proxy.store.database import Connection
from lava_proxy.store.ledger import announce_credit, recall_credit
from lava_proxy.store.spend_keys import Rules, SpendKeyRow, Status


class RequestLimitView(TypedDict):
    """Calls per cycle."""

    count: int
    cycle: Cycle


class RateLimitView(TypedDict):
    """Calls per minute."""

    rpm: int
    burst: int | None


class SpendKeyView(TypedDict):
    """A spend key as the API shows it."""

    spend_key_id: str
    key_preview: str
    name: str
    wallet_id: str
    status: Status
    request_shape: Shape
    allowed_models: list[str] | None
    allowed_providers: list[str] | None
    spend_limit: MoneyLimitView | None
    current_spend: str
    total_spend: str
    request_limit: RequestLimitView | None
    current_requests: int
    total_requests: int
    rate_limit: RateLimitView | None
    expires_at: str | None
    last_used_at: str | None
    created_at: str
    key: NotRequired[str]
    """In the answers that make and rotate it, and never again."""


async def create(desk: Desk, call: Call) -> Answer:
    """Make a spend key; it is shown once."""
    body = read_fields(NewSpendKey, call)
    now, key = desk.books.now(), new_secret("lava_sk_")
    rules = changed(Rules(body.name, body.status, body.request_shape), body, now)

    async def work(conn: Connection) -> Answer:
        wanted = SpendKeyRow(
            spend_key_id=new_id("spend_key", test=call.test),
            merchant_id=call.merchant_id,
            wallet_id=wallet_id_of(call.merchant_id, test=call.test),
            key_preview=preview_of(key),
            created_at=now,
            rules=rules,
        )
        await store.create(conn, wanted, hash_secret(key))
        return _shown_once(wanted, key, 201)

    return await once(desk, call, work)


async def page(desk: Desk, call: Call) -> Answer:
    """Spend keys that are not revoked, newest first; also those paused or past their time."""
    page = read_page("spend_keys", read_query(call, PAGE_PARAMETERS))
    async with desk.reading() as conn:
        rows = await store.page(conn, call.merchant_id, page.place, page.most, desk.books.now())
    return page.answer(rows, view, _position)


async def retrieve(desk: Desk, call: Call) -> Answer:
    """A spend key by id."""
    async with desk.reading() as conn:
        row = await store.find(conn, call.merchant_id, call.params[0], desk.books.now())
    if row is None:
        raise no_such("spend key")
    return answer(view(row))


async def update(desk: Desk, call: Call) -> Answer:
    """Change what is given; calls that run go on. A limit counts from its cycle's first use on."""
    body = read_fields(SpendKeyFields, call)
    for name in body.model_fields_set & {"name", "status", "request_shape"}:
        if getattr(body, name) is None:
            refuse(name, "must not be null")
    now = desk.books.now()
    async with desk.writing() as conn:
        row = await store.find(conn, call.merchant_id, call.params[0], now, lock=True)
        if row is None:
            raise no_such("spend key")
        rules = changed(row.rules, body, now)
        await store.change(conn, row.spend_key_id, rules)
        if body.model_fields_set & {"spend_limit", "request_limit"}:
            await _tell(conn, store.limit_accounts(row.spend_key_id, rules, now))
        row = await store.find(conn, call.merchant_id, row.spend_key_id, now)
    if row is None:
        raise no_such("spend key")
    desk.books.directory.changed("spend_keys", row.spend_key_id)
    return answer(view(row))


async def _tell(conn: Connection, owner_ids: Iterable[str]) -> None:
    """A smaller limit holds at once for what lies idle at workers, a larger one for those who were
    just refused."""
    for owner_id in owner_ids:
        await recall_credit(conn, owner_id, "")
        await announce_credit(conn, owner_id)


async def rotate(desk: Desk, call: Call) -> Answer:
    """Put another key in the place of this one, which ends at once; limits and history stay."""
    key = new_secret("lava_sk_")

    async def work(conn: Connection) -> Answer:
        now = desk.books.now()
        row = await store.find(conn, call.merchant_id, call.params[0], now, lock=True)
        if row is None:
            raise no_such("spend key")
        await store.rotate(conn, row.spend_key_id, hash_secret(key), preview_of(key))
        return _shown_once(replace(row, key_preview=preview_of(key)), key, 200)

    made = await once(desk, call, work)
    desk.books.directory.changed("spend_keys", call.params[0])
    return made


async def revoke(desk: Desk, call: Call) -> Answer:
    """End a spend key. Calls that run are not cut off."""
    key = call.params[0]
    async with desk.writing() as conn:
        if not await store.revoke(conn, call.merchant_id, key):
            raise no_such("spend key")
    desk.books.directory.changed("spend_keys", key)
    return answer(Success(success=True))


def view(row: SpendKeyRow) -> SpendKeyView:
    """A spend key as the API shows it."""
    rules, used = row.rules, row.used
    models, providers = rules.allowed_models, rules.allowed_providers
    return {
        "spend_key_id": row.spend_key_id,
        "key_preview": row.key_preview,
        "name": rules.name,
        "wallet_id": row.wallet_id,
        "status": rules.status,
        "request_shape": rules.request_shape,
        "allowed_models": None if models is None else list(models),
        "allowed_providers": None if providers is None else list(providers),
        "spend_limit": money_limit(rules.spend_limit_e10, rules.spend_cycle),
        "current_spend": format_e10(used.spend_e10),
        "total_spend": format_e10(used.total_spend_e10),
        "request_limit": _request_limit(rules),
        "current_requests": used.requests,
        "total_requests": used.total_requests,
        "rate_limit": (
            None if rules.rate_rpm is None else {"rpm": rules.rate_rpm, "burst": rules.rate_burst}
        ),
        "expires_at": None if rules.expires_at is None else time_text(rules.expires_at),
        "last_used_at": None if row.last_used_at is None else time_text(row.last_used_at),
        "created_at": time_text(row.created_at),
    }


def _request_limit(rules: Rules) -> RequestLimitView | None:
    if rules.request_limit is None or rules.request_cycle is None:
        return None
    return {"count": rules.request_limit, "cycle": rules.request_cycle}


def _shown_once(row: SpendKeyRow, key: str, status: int) -> Answer:
    shown = view(row)
    shown["key"] = key
    return answer(shown, status, once="key")


def _position(row: SpendKeyRow) -> Position:
    return position_at(row.created_at, row.spend_key_id)


ROUTES = (
    Route("POST", "spend_keys", create, answer=SpendKeyView, body=NewSpendKey, status=201),
    Route("GET", "spend_keys", page, answer=PageView[SpendKeyView], query=PAGE_PARAMETERS),
    Route("GET", "spend_keys/*", retrieve, answer=SpendKeyView),
    Route("PUT", "spend_keys/*", update, answer=SpendKeyView, body=SpendKeyFields),
    Route("DELETE", "spend_keys/*", revoke, answer=Success),
    Route("POST", "spend_keys/*/rotate", rotate, answer=SpendKeyView),
)
