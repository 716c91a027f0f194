"""``POST /v1/payment_events/{provider}``: what the payment provider tells us, each message once.

The message is noted in the transaction that does what it says, so one that comes again changes
nothing, and one whose work failed is told again. Whatever is signed is answered with 200, also what
is about nothing of ours: the provider would only send it again. No message says what changed, only
how things stand (`payments/events.py`), so their order does not matter.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Literal

from typing_extensions import TypedDict

from lava_proxy.core.errors import LavaError
from lava_proxy.manage.call import Answer, Call, Route, answer
from lava_proxy.manage.desk import Desk
from lava_proxy.payments.events import BadSignature, ProviderEvent
from lava_proxy.store import lookups, payers, payments, reversals
from lava_proxy.store import payment_events as store
from lava_proxy.store.database import Connection
from lava_proxy.store.payment_events import ToldOf
from lava_proxy.store.payments import Retry

log = logging.getLogger(__name__)


class Received(TypedDict):
    """The message need not be sent again."""

    received: Literal[True]


async def receive(desk: Desk, call: Call) -> Answer:
    """For the payment provider: a message of its own, signed. Nobody else can make one."""
    provider = desk.payments.name
    if call.params[0] != provider:
        raise LavaError("not_found", "there is no such payment provider here")
    try:
        event = desk.payments.read_event(call.body, call.headers)
    except BadSignature as error:
        log.warning("payment events: %s", error)
        raise LavaError("invalid_signature") from None
    now, moved = desk.books.now(), None
    async with desk.writing() as conn:
        if await store.hear(conn, provider, event.event_id, now):
            moved = await _heed(desk, conn, event, now)
    if moved is not None:
        desk.books.directory.changed("customers", moved)
        desk.books.leases.credit_changed(moved)
    return answer(Received(received=True))


async def _heed(desk: Desk, conn: Connection, event: ProviderEvent, now: datetime) -> str | None:
    """Do what a message says; answers the customer whose money moved."""
    if event.kind is None:
        return None
    moved = await _payment(desk, conn, event, now)
    if event.owner_id is not None and event.payer_ref is not None:  # a buyer may be new
        await payers.save_payer(conn, event.owner_id, desk.payments.name, event.payer_ref, now)
    return moved


async def _payment(desk: Desk, conn: Connection, event: ProviderEvent, now: datetime) -> str | None:
    provider = desk.payments.name
    if event.method_ref is not None and event.kind in ("succeeded", "failed"):
        code = None if event.kind == "succeeded" else event.code or "declined"
        await payers.note_method(
            conn, provider, event.method_ref, event.at, code=code, message=event.message
        )
    if event.kind == "card_saved":
        return None
    payment = await store.find(conn, provider, event.payment_id, event.provider_ref)
    if event.reversal is not None and event.provider_ref is not None:
        if payment is None:
            await reversals.one_at_a_time(conn, provider, event.provider_ref)
            payment = await store.find(conn, provider, None, event.provider_ref)
        await reversals.note(
            conn,
            provider=provider,
            ref=event.reversal.ref,
            payment_ref=event.provider_ref,
            kind=event.reversal.kind,
            amount_e10=event.reversal.amount_e10,
            over=event.reversal.over,
        )
    if payment is None:
        log.info("%s %s: no payment of ours (yet)", provider, event.event_id)
        return None
    return payment.customer_id if await _move(desk, conn, payment, event, now) else None


async def _move(
    desk: Desk, conn: Connection, payment: ToldOf, event: ProviderEvent, now: datetime
) -> bool:
    """What a message does to its payment; True where money moved."""
    if event.kind == "reversed":
        return await reversals.settle_up(conn, payment.payment_id, now)
    if event.kind == "succeeded":
        return await store.paid(conn, payment, event.provider_ref, event.amount_e10, now)
    if event.kind == "ended":
        await lookups.look_soon(conn, payment.payment_id, now)
        return False
    if event.provider_ref is not None:
        await store.note_ref(conn, payment.payment_id, event.provider_ref)
    needs_action = event.kind == "requires_action"
    if payment.purpose not in payments.BY_WORKERS:
        await store.tell_failure(
            conn,
            payment.payment_id,
            needs_action=needs_action,
            code=event.code,
            message=event.message,
            at=event.at,
        )
    elif payment.status == "pending" and payment.next_attempt_at is None and not needs_action:
        settings = desk.books.settings  # the worker asked, and was told to wait for this answer
        await payments.failed(
            conn,
            payment.payment_id,
            now,
            Retry(settings.renewal_grace_days, settings.top_up_retry_s),
            ref=event.provider_ref,
            code=event.code,
            message=event.message,
        )
    return False


ROUTES = (
    Route(
        "POST",
        "payment_events/*",
        receive,
        answer=Received,
        errors=("invalid_signature",),
        auth="none",
    ),
)
