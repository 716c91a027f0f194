"""``/v1/customers/{id}/credit`` and ``/balance``: credit in and out, and what is left."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from typing_extensions import TypedDict

from lava_proxy.core.ids import new_id
from lava_proxy.core.money import E10, format_e10
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import Amount, Body, Date, read_fields, refuse
from lava_proxy.manage.idempotency import once
from lava_proxy.manage.text import time_text
from lava_proxy.store import balance as balances
from lava_proxy.store import credit as store
from lava_proxy.store import outbox
from lava_proxy.store.database import Connection
from lava_proxy.store.ledger import announce_credit

CREDIT_MAX_E10 = 10_000_000 * E10
"""Most that one call may grant or take back: sums of many stay inside a BIGINT."""

NOTE_MAX_CHARS = 1000


def _sum_of_money(amount_e10: int) -> int:
    if not amount_e10:
        raise ValueError("must not be zero")
    if abs(amount_e10) > CREDIT_MAX_E10:
        raise ValueError(f"is at most {format_e10(CREDIT_MAX_E10)} in one call")
    return amount_e10


class NewCredit(Body):
    """Negative amounts are corrections."""

    amount: Annotated[Amount, AfterValidator(_sum_of_money)]
    note: Annotated[str, Field(max_length=NOTE_MAX_CHARS)] | None = None
    expires_at: Date | None = None


class CreditView(TypedDict):
    """A grant or a correction, as the API shows it."""

    credit_id: str
    customer_id: str
    amount: str
    remaining: str
    expires_at: str | None
    created_at: str


class BalanceView(TypedDict):
    """What a customer has: `total_remaining` = `available` + `held` by workers."""

    customer_id: str
    available: str
    held: str
    cycle_remaining: str
    bundle_remaining: str
    total_remaining: str
    as_of: str


async def grant(desk: Desk, call: Call) -> Answer:
    """Grant credit (old debt is paid from it first), or take back what is free; 409 beyond that."""
    body = read_fields(NewCredit, call)
    now = desk.books.now()
    if body.expires_at is not None and (body.amount < 0 or body.expires_at <= now):
        refuse("expires_at", "must be in the future, and is for grants only")
    owner_id = (await desk.customer(call, call.params[0])).customer_id
    credit_id = new_id("credit", test=call.test)

    async def work(conn: Connection) -> Answer:
        remaining_e10 = 0
        if body.amount > 0:
            remaining_e10 = await store.grant(
                conn,
                grant_id=credit_id,
                owner_id=owner_id,
                kind="operator",
                amount_e10=body.amount,
                expires_at=body.expires_at,
                note=body.note,
                now=now,
            )
        else:
            await store.withdraw(conn, owner_id=owner_id, amount_e10=-body.amount, now=now)
        await announce_credit(conn, owner_id)
        news = outbox.Event(call.merchant_id, outbox.BALANCE, owner_id)
        await outbox.emit(conn, [news], now)
        view: CreditView = {
            "credit_id": credit_id,
            "customer_id": owner_id,
            "amount": format_e10(body.amount),
            "remaining": format_e10(remaining_e10),
            "expires_at": time_text(body.expires_at) if body.expires_at else None,
            "created_at": time_text(now),
        }
        return answer(view)

    made = await once(desk, call, work)
    desk.books.leases.credit_changed(owner_id)
    return made


async def balance(desk: Desk, call: Call) -> Answer:
    """What a customer has. `available` is negative while reports are owed for."""
    owner_id = (await desk.customer(call, call.params[0])).customer_id
    async with desk.reading() as conn:
        found = await balances.balance(conn, owner_id)
    view: BalanceView = {
        "customer_id": owner_id,
        "available": format_e10(found.available_e10),
        "held": format_e10(found.held_e10),
        "cycle_remaining": format_e10(found.cycle_e10),
        "bundle_remaining": format_e10(found.bundle_e10),
        "total_remaining": format_e10(found.available_e10 + found.held_e10),
        "as_of": time_text(desk.books.now()),
    }
    return answer(view)


ROUTES = (
    Route(
        "POST",
        "customers/*/credit",
        grant,
        answer=CreditView,
        body=NewCredit,
        errors=("conflict",),
    ),
    Route("GET", "customers/*/balance", balance, answer=BalanceView),
)
