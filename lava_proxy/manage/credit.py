"""Operator credit, balances, and the ledger behind them."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from lava_proxy.core.ids import new_id
from lava_proxy.core.money import format_e10
from lava_proxy.manage import customers
from lava_proxy.manage.context import JSON, Body, Context, Route, invalid
from lava_proxy.manage.paging import PAGING, encode, ledger_cursor_of, limit_of
from lava_proxy.manage.shape import amount_of, instant_of, time_of
from lava_proxy.store import credit as store
from lava_proxy.store import resources
from lava_proxy.store.resources import REQUESTS, Row


class GrantCredit(Body):
    """`POST /v1/customers/{id}/credit`; a negative amount takes back what is free."""

    amount: str
    note: Annotated[str, StringConstraints(max_length=1000)] | None = None
    expires_at: str | None = None


async def grant(ctx: Context) -> JSON:
    """Add credit, or correct it."""
    body = ctx.body(GrantCredit)
    amount_e10 = amount_of(body.amount, "amount")
    if not amount_e10:
        raise invalid("amount", "must not be zero")
    expires_at = None if body.expires_at is None else instant_of(body.expires_at, "expires_at")
    now = ctx.now()
    if expires_at is not None and expires_at <= now:
        raise invalid("expires_at", "must be in the future")
    row = await customers.find(ctx, ctx.params["customer_id"])
    owner_id, credit_id = row["customer_id"], new_id("credit")
    remaining_e10 = 0
    if amount_e10 > 0:
        remaining_e10 = await store.grant(
            ctx.transaction,
            grant_id=credit_id,
            owner_id=owner_id,
            kind="operator",
            amount_e10=amount_e10,
            expires_at=expires_at,
            note=body.note,
            now=now,
        )
    else:
        await store.withdraw(ctx.transaction, owner_id=owner_id, amount_e10=-amount_e10, now=now)
    ctx.books.leases.credit_changed(owner_id)
    await REQUESTS["tell_credit"].fetchval(ctx.transaction, owner_id=owner_id)
    return {
        "credit_id": credit_id,
        "customer_id": owner_id,
        "amount": format_e10(amount_e10),
        "remaining": format_e10(remaining_e10),
        "expires_at": time_of(expires_at),
        "created_at": time_of(now),
    }


async def balance(ctx: Context) -> JSON:
    """What the customer has. `held` is with the workers, in use or idle."""
    async with ctx.books.database.connection() as conn:
        ctx.conn = conn
        row = await customers.find(ctx, ctx.params["customer_id"])
        found = await store.balance(conn, row["customer_id"])
    return {
        "customer_id": row["customer_id"],
        "available": format_e10(found.available_e10),
        "held": format_e10(found.held_e10),
        "cycle_remaining": format_e10(found.cycle_e10),
        "bundle_remaining": format_e10(found.bundle_e10),
        "total_remaining": format_e10(found.available_e10 + found.held_e10),
        "as_of": time_of(ctx.now()),
    }


async def ledger(ctx: Context) -> JSON:
    """Ledger entries, newest first; every transaction's entries sum to zero."""
    limit = limit_of(ctx.query)
    async with ctx.books.database.connection() as conn:
        customer_id = None
        if "customer_id" in ctx.query:
            ctx.conn = conn
            customer_id = (await customers.find(ctx, ctx.query["customer_id"]))["customer_id"]
        rows = await resources.ledger_page(
            conn,
            ctx.merchant_id,
            customer_id=customer_id,
            request_id=ctx.query.get("request_id"),
            before_id=ledger_cursor_of(ctx.query),
            most=limit + 1,
        )
    more = len(rows) > limit
    return {
        "data": [_show_entry(row) for row in rows[:limit]],
        "has_more": more,
        "next_cursor": encode(rows[limit - 1]["entry_id"]) if more else None,
    }


def _show_entry(row: Row) -> JSON:
    shown: dict[str, object] = {
        "entry_id": str(row["entry_id"]),
        "transaction_id": row["transaction_id"],
        "account": row["account"],
        "amount": format_e10(row["amount_e10"]),
        "kind": row["kind"],
        "created_at": time_of(row["created_at"]),
    }
    if row["request_id"] is not None:
        shown["request_id"] = row["request_id"]
    return shown


ROUTES = (
    Route("POST", "/customers/{customer_id}/credit", grant, transaction=True),
    Route("GET", "/customers/{customer_id}/balance", balance),
    Route("GET", "/ledger", ledger, query=PAGING | {"customer_id", "request_id"}),
)
