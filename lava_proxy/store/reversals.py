"""Refunds and disputes: the credit that a payment gave goes back with its money.

What a payment's reversals undo is computed afresh from all that is known of them
(`rules/reversal.py`), and only the difference to what was undone before is moved: a message that
comes twice, late or before the payment's own moves nothing twice. The share of the credit that goes
is taken

1. from what is left of it,
2. from what of it expired unused: that is gone already, nothing is taken for it,
3. from the customer otherwise: what was spent, and what workers hold at the moment, becomes debt,
   which other credit pays at once, and what workers bring back as it comes.

What is taken too much (a refund that failed, a dispute that was won) is granted again.
"""

from __future__ import annotations

from datetime import datetime

import asyncpg

from lava_proxy.core.ids import is_test, new_id
from lava_proxy.rules.limits import wallet_account
from lava_proxy.rules.reversal import Gone, credit_gone, money_gone
from lava_proxy.store import credit, wallets
from lava_proxy.store.database import Connection
from lava_proxy.store.entries import Entries
from lava_proxy.store.ledger import announce_credit, recall_credit
from lava_proxy.store.news import credit_moved
from lava_proxy.store.sql import load

Q = load("reversals")
PAYMENTS = load("payments")
CREDIT = load("credit")
SETTLE = load("settle")

NOBODY = "-"
"""Who asks workers to bring back what they do not use: all of them are asked."""


async def one_at_a_time(conn: Connection, provider: str, payment_ref: str) -> None:
    """A message about a payment that is not known yet, and the payment while it becomes known,
    cannot see each other: one waits for the other's commit. Who waits here for an account must have
    found the payment, so that its maker does not wait here any more."""
    await Q["one_at_a_time"].fetchval(conn, provider=provider, payment_ref=payment_ref)


async def note(
    conn: Connection,
    *,
    provider: str,
    ref: str,
    payment_ref: str,
    kind: str,
    amount_e10: int,
    over: bool,
) -> None:
    """Write down how a refund or dispute stands, whether its payment is known or not."""
    await Q["note_reversal"].execute(
        conn,
        provider=provider,
        ref=ref,
        payment_ref=payment_ref,
        kind=kind,
        amount=amount_e10,
        over=over,
    )


async def settle_new(conn: Connection, payment_id: str, now: datetime) -> None:
    """As `settle_up`, of a payment that this transaction made: refunds may be known before it."""
    row = await PAYMENTS["lock_payment"].fetchrow(conn, payment_id=payment_id)
    if row is not None and row["provider_ref"] is not None:
        await one_at_a_time(conn, row["provider"], row["provider_ref"])
        await settle_up(conn, payment_id, now)


async def settle_up(conn: Connection, payment_id: str, now: datetime) -> bool:
    """Bring a payment's credit to where its reversals put it; False where nothing had to move. A
    payment that is not made yet waits for that."""
    customer_id = await PAYMENTS["payer_of_payment"].fetchval(conn, payment_id=payment_id)
    account = None if customer_id is None else await credit.lock(conn, customer_id)
    payment = await PAYMENTS["lock_payment"].fetchrow(conn, payment_id=payment_id)
    if payment is None or payment["status"] != "succeeded" or payment["provider_ref"] is None:
        return False
    gone = await _gone(conn, payment)
    reversed_e10, taken_e10 = payment["reversed_e10"], payment["taken_e10"]
    if account is not None:
        await credit.expire(conn, account["owner_id"], account["merchant_id"], now)
        grant = await Q["credit_of_payment"].fetchrow(conn, payment_id=payment_id)
        if grant is not None:
            paid_e10: int = payment["amount_e10"]
            target = credit_gone(grant["amount_e10"], paid_e10, gone.of(paid_e10))
            taken_e10 += await _move(conn, payment, grant, target - reversed_e10, now)
            reversed_e10 = target
    else:
        target = gone.of(payment["amount_e10"])
        await _move_wallet(conn, payment, target - reversed_e10, now)
        reversed_e10 = taken_e10 = target
    moved: bool = reversed_e10 != payment["reversed_e10"]
    await Q["move_reversed"].execute(
        conn,
        payment_id=payment_id,
        refunded=min(gone.refunded_e10, payment["amount_e10"]),
        reversed=reversed_e10,
        taken=taken_e10,
        disputed_at=now if gone.disputed_e10 else None,
    )
    if moved and customer_id is not None:
        await _tell(conn, customer_id, now, more=reversed_e10 > payment["reversed_e10"])
    return moved


async def _gone(conn: Connection, payment: asyncpg.Record) -> Gone:
    rows = await Q["reversals_of"].fetch(
        conn, provider=payment["provider"], payment_ref=payment["provider_ref"]
    )
    return money_gone((row["kind"], row["amount_e10"], row["over"]) for row in rows)


async def _move(
    conn: Connection, payment: asyncpg.Record, grant: asyncpg.Record, more_e10: int, now: datetime
) -> int:
    """Undo `more_e10` of a grant, or less where it is negative; answers by how much more is taken
    from the customer now."""
    forgiven_e10 = payment["reversed_e10"] - payment["taken_e10"]
    if more_e10 > 0:
        left_e10 = min(more_e10, grant["available_e10"])
        lost_e10 = min(more_e10 - left_e10, max(0, grant["expired_e10"] - forgiven_e10))
        taken_e10: int = more_e10 - lost_e10
        await _take(conn, payment, grant["grant_id"], left_e10, taken_e10 - left_e10, now)
        return taken_e10
    undone_e10 = payment["reversed_e10"] + more_e10
    back_e10: int = payment["taken_e10"] - max(0, undone_e10 - forgiven_e10)
    back_e10 = min(max(0, back_e10), payment["taken_e10"])
    if back_e10:
        await _give(conn, payment, grant, back_e10, now)
    return -back_e10


async def _move_wallet(
    conn: Connection, payment: asyncpg.Record, more_e10: int, now: datetime
) -> None:
    """Money that went back was paid in no more. What calls cost stays: the balance may go below
    nothing."""
    if more_e10:
        await wallets.fund(
            conn,
            merchant_id=payment["merchant_id"],
            test=is_test(payment["payment_id"]),
            amount_e10=-more_e10,
            source=f"payments:{payment['provider']}",
            now=now,
        )
        await announce_credit(conn, wallet_account(payment["merchant_id"]))


async def _take(
    conn: Connection,
    payment: asyncpg.Record,
    grant_id: str,
    left_e10: int,
    owed_e10: int,
    now: datetime,
) -> None:
    """Take what is left of a grant, and have the rest owed."""
    owner_id = payment["customer_id"]
    if left_e10:
        await CREDIT["withdraw_grants"].execute(conn, grant_ids=[grant_id], amounts=[left_e10])
    if owed_e10:
        await SETTLE["change_accounts"].execute(
            conn, owner_ids=[owner_id], debts=[owed_e10], overdrafts=[0]
        )
    if not left_e10 + owed_e10:
        return
    entries = Entries(now)
    with entries.transaction(new_id("transaction"), payment["merchant_id"], None, owner_id) as post:
        post("withdrawal", f"customer:{owner_id}", -left_e10 - owed_e10)
        post("withdrawal", f"payments:{payment['provider']}", left_e10 + owed_e10)
    await entries.insert(conn)
    debt_e10 = (await credit.lock(conn, owner_id))["debt_e10"]
    if debt_e10:
        await credit.repay(conn, owner_id, debt_e10, now)


async def _give(
    conn: Connection,
    payment: asyncpg.Record,
    grant: asyncpg.Record,
    amount_e10: int,
    now: datetime,
) -> None:
    """Grant again what was taken. Its time may be over meanwhile: then it has no end, for it could
    not be used while the dispute ran."""
    over = grant["expires_at"] is not None and grant["expires_at"] <= now
    await credit.grant(
        conn,
        grant_id=new_id("credit", test=is_test(payment["customer_id"])),
        owner_id=payment["customer_id"],
        kind="bundle" if over else grant["kind"],
        amount_e10=amount_e10,
        expires_at=None if over else grant["expires_at"],
        note=payment["payment_id"],
        now=now,
        source=f"payments:{payment['provider']}",
    )


async def _tell(conn: Connection, customer_id: str, now: datetime, *, more: bool) -> None:
    """Workers look again. Where credit went, they bring back what they do not use, and nothing is
    bought by itself any more: the refund would be charged for anew."""
    await credit_moved(conn, customer_id, now)
    if more:
        await recall_credit(conn, customer_id, NOBODY)
        stopped = await Q["stop_top_ups"].fetchval(conn, customer_id=customer_id)
        await PAYMENTS["drop_open"].execute(
            conn, subscription_id=stopped, purposes=["top_up"], now=now
        )
