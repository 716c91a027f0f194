"""Payments whose end nobody told us are looked up at the provider: its messages may all be lost.

What it says is booked as its message would be, once, whichever comes first. A checkout that was
given up ends here.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from lava_proxy.books.bank import Books
from lava_proxy.payments.seam import Lookup, Payments, PaymentsDown, Standing
from lava_proxy.store import lookups as store
from lava_proxy.store import payers, payment_events, payments
from lava_proxy.store.database import Connection, StoreConflict
from lava_proxy.store.lookups import Open
from lava_proxy.store.payments import Retry

MOST = 20
ROUNDS = 10
"""Of one run: after an outage many wait."""
PAGED = ("subscription", "bundle")

log = logging.getLogger(__name__)


async def run_once(books: Books, provider: Payments) -> None:
    """Look up what is due, `MOST` at a time."""
    settings = books.settings
    for _ in range(ROUNDS):
        async with books.database.transaction() as conn:
            due = await store.claim(
                conn,
                provider.name,
                books.now(),
                pause_s=settings.payment_lookup_s,
                give_up_s=settings.payment_give_up_s,
                most=MOST,
            )
        turn = asyncio.Lock()
        looked = [_look(books, provider, seen, turn) for seen in due]
        for failure in await asyncio.gather(*looked, return_exceptions=True):
            if failure is not None:
                raise failure
        if len(due) < MOST:
            return


async def _look(books: Books, provider: Payments, seen: Open, turn: asyncio.Lock) -> None:
    """One payment. Where others are in the way, it is looked up again."""
    ask = Lookup(
        payment_id=seen.payment_id,
        owner_id=seen.owner_id,
        payer_ref=seen.payer_ref,
        provider_ref=seen.provider_ref,
        page_ref=seen.page_ref,
        paged=seen.purpose in PAGED,
        created_at=seen.created_at,
        answered=seen.answered,
    )
    try:
        found = await provider.look_up(ask)
        if seen.given_up and found is not None and found.state in ("waits", "declined"):
            found = await provider.call_off(ask)
        async with turn, books.database.transaction() as conn:
            await _book(books, conn, provider.name, seen, found)
    except (PaymentsDown, StoreConflict) as error:
        log.warning("payment %s is looked up again: %s", seen.payment_id, error)


async def _book(
    books: Books, conn: Connection, provider: str, seen: Open, found: Standing | None
) -> None:
    """What the provider says, in one transaction with what follows from it."""
    now = books.now()
    if found is not None and found.state == "succeeded":
        await _deliver(conn, provider, seen, found, now)
    elif not await store.still(conn, seen):
        return  # a message told it meanwhile, or it was asked for anew
    elif seen.given_up and (found is None or found.state == "over"):
        await store.give_up(conn, seen.payment_id, now)
    elif found is not None and found.state != "pending":
        await _tell(books, conn, seen, found, now)


async def _deliver(
    conn: Connection, provider: str, seen: Open, found: Standing, now: datetime
) -> None:
    payment = await payment_events.find(conn, provider, seen.payment_id, None)
    if payment is not None:
        await payment_events.paid(conn, payment, found.provider_ref, found.amount_e10, now)
    if found.payer_ref is not None:  # a buyer may be new
        await payers.save_payer(conn, seen.owner_id, provider, found.payer_ref, now)


async def _tell(books: Books, conn: Connection, seen: Open, found: Standing, now: datetime) -> None:
    """A worker's charge was declined, or waits for its payer; or a payer's try on a page failed, or
    the page is over."""
    if seen.purpose in payments.BY_WORKERS:
        await payments.failed(
            conn,
            seen.payment_id,
            now,
            Retry(books.settings.renewal_grace_days, books.settings.top_up_retry_s),
            ref=found.provider_ref,
            code=found.code or found.state,
            message=found.message,
            needs_action=found.state == "waits",
        )
    elif found.state == "over":
        end = store.end_try if seen.may_try_again else store.give_up
        await end(conn, seen.payment_id, now)
    elif found.state == "declined":
        await payment_events.tell_failure(
            conn,
            seen.payment_id,
            needs_action=False,
            code=found.code,
            message=found.message,
            at=now,
        )
