"""Asking the payment provider for what is due: outside any transaction, one process per payment.

A process that dies in between leaves the payment claimed for a minute; then it is asked for again
under the same key, which charges once.
"""

from __future__ import annotations

import asyncio
import logging

import stamina

from lava_proxy.books.bank import Books
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk, Payments, PaymentsDown
from lava_proxy.store import payments as store
from lava_proxy.store.database import StoreConflict
from lava_proxy.store.payments import Due, Purpose, Retry

MOST = 20
ROUNDS = 10
"""Of one run: what is still due then is left to the next."""
NOTES_MAX = 10
"""How often an answer is written down while others are in the way: whoever waits for it waits."""

log = logging.getLogger(__name__)


async def ask_for_due(books: Books, payments: Payments, purpose: Purpose) -> None:
    """Ask for the payments of one purpose that are due: many, when a month ends."""
    for _ in range(ROUNDS):
        if await _ask_some(books, payments, purpose) < MOST:
            return


async def _ask_some(books: Books, payments: Payments, purpose: Purpose) -> int:
    async with books.database.transaction() as conn:
        due = await store.claim(conn, purpose, payments.name, books.now(), MOST)
    # The provider is asked side by side, the database in turn: leases need its connections.
    turn = asyncio.Lock()
    asked = [_ask(books, payments, payment, purpose, turn) for payment in due]
    for failure in await asyncio.gather(*asked, return_exceptions=True):
        if failure is not None:
            raise failure
    return len(due)


async def _ask(
    books: Books, payments: Payments, due: Due, purpose: Purpose, turn: asyncio.Lock
) -> None:
    ask = ChargeAsk(
        payment_id=due.payment_id,
        merchant_id=due.merchant_id,
        customer_id=due.customer_id,
        payer_ref=due.payer_ref,
        amount_e10=due.amount_e10,
        description="Auto top-up" if purpose == "top_up" else "Subscription renewal",
        provider_ref=due.provider_ref,
        attempt=due.attempts + 1,
    )
    try:
        answer = await payments.charge(ask) if due.amount_e10 else ChargeAnswer("succeeded")
    except PaymentsDown as error:
        log.warning("payment %s: %s", due.payment_id, error)
        return
    retries = stamina.retry_context(on=StoreConflict, attempts=NOTES_MAX, wait_max=1.0)
    async for attempt in retries:
        with attempt:
            async with turn:
                await _note(books, due.payment_id, answer)


async def _note(books: Books, payment_id: str, answer: ChargeAnswer) -> None:
    """What became of it, in one transaction with what follows from it."""
    settings = books.settings
    retry = Retry(settings.renewal_grace_days, settings.top_up_retry_s)
    async with books.database.transaction() as conn:
        if answer.outcome == "succeeded":
            await store.succeeded(conn, payment_id, answer.provider_ref, books.now())
        elif answer.outcome == "pending":
            look_at = settings.lookup_after(books.now())
            await store.wait_for_provider(conn, payment_id, answer.provider_ref, look_at)
        else:
            await store.failed(
                conn,
                payment_id,
                books.now(),
                retry,
                ref=answer.provider_ref,
                code=answer.code,
                message=answer.message,
                needs_action=answer.outcome == "requires_action",
            )
