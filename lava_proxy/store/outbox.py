"""The outbox: events are written in the transaction of the change that they tell of.

`emit` costs one look-up where nobody wants to know. Bodies are made later, by `dispatch`, once per
event, and never change again; from then on each webhook's delivery goes its own way (`claim`,
`end_try`). Delivery is at least once: a process that dies between sending and writing it down sends
again, and receivers tell by the event's id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from lava_proxy.core.ids import new_id
from lava_proxy.store import subscribed
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load
from lava_proxy.store.subscribed import SubscriptionRow

Q = load("webhooks")

CREATED = "customer.created"
BALANCE = "customer.wallet.balance.updated"
DELETED = "customer.deleted"
LOW = "customer.credit.low"
EXHAUSTED = "customer.credit.exhausted"
CUT_OFF = "request.cut_off"
USUAL = (CREATED, BALANCE, DELETED)
"""What a webhook is told that does not say otherwise."""
KNOWN = (*USUAL, LOW, EXHAUSTED, CUT_OFF)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a customer; `request_id` for `request.cut_off`."""

    merchant_id: str
    name: str
    customer_id: str
    request_id: str | None = None
    event_id: str = ""
    """Empty until it is written: of many changes of a balance one is."""


@dataclass(frozen=True, slots=True)
class Told:
    """A customer as an event's body shows it; amounts in 10^-10 USD."""

    customer_id: str
    reference_id: str | None
    phone: str
    email: str
    first_name: str
    last_name: str
    metadata: str | None
    created_at: datetime
    available_e10: int
    held_e10: int
    cycle_e10: int
    bundle_e10: int
    level: str
    """What its webhooks were last told of its credit: fine, low or exhausted."""
    subscription: SubscriptionRow | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event whose body is not made yet."""

    event: Event
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook, taken by us until `claimed_until`."""

    event_id: str
    webhook_id: str
    tries: int
    """This one included."""
    created_at: datetime
    claimed_until: datetime
    url: str
    secret_sealed: bytes
    body: bytes
    old_sealed: Sequence[bytes]
    """Secrets before that one which still sign, the newest first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try ended."""

    status: str
    next_at: datetime
    last_status: int | None
    last_error: str | None


async def emit(conn: Connection, events: Sequence[Event], now: datetime) -> None:
    """Write events into the outbox, in the caller's transaction; of a customer's balance one at
    most. Several changes of it are one event, as long as nobody has looked at it."""
    if not events:
        return
    await Q["emit"].execute(
        conn,
        event_ids=[new_id("event") for _ in events],
        merchant_ids=[event.merchant_id for event in events],
        events=[event.name for event in events],
        customer_ids=[event.customer_id for event in events],
        request_ids=[event.request_id for event in events],
        now=now,
    )


Make = Callable[[Sequence[Waiting], Mapping[str, Told]], Sequence[tuple[Waiting, bytes, str]]]
"""(events, their customers) -> (event, body, level that its customer was told of) of each."""


async def dispatch(conn: Connection, make: Make, most: int, now: datetime) -> int:
    """Freeze the bodies of waiting events and give them to the webhooks that want them; answers how
    many there were. In a transaction."""
    rows = await Q["take_events"].fetch(conn, most=most)
    if not rows:
        return 0
    waiting = [
        Waiting(
            Event(r["merchant_id"], r["event"], r["customer_id"], r["request_id"], r["event_id"]),
            r["created_at"],
        )
        for r in rows
    ]
    customers = sorted({w.event.customer_id for w in waiting})
    on = await subscribed.active_of(conn, customers)
    told = {
        row["customer_id"]: _told(row, on.get(row["customer_id"]))
        for row in await Q["told_customers"].fetch(conn, customer_ids=customers)
    }
    made = make(waiting, told)
    levels = {w.event.customer_id: level for w, _, level in made}
    moved = sorted(c for c, level in levels.items() if c in told and told[c].level != level)
    if moved:
        await Q["save_levels"].execute(
            conn, customer_ids=moved, levels=[levels[customer] for customer in moved]
        )
    await Q["freeze_events"].execute(
        conn,
        event_ids=[w.event.event_id for w, _, _ in made],
        merchant_ids=[w.event.merchant_id for w, _, _ in made],
        events=[w.event.name for w, _, _ in made],
        customer_ids=[w.event.customer_id for w, _, _ in made],
        created_ats=[w.created_at for w, _, _ in made],
        bodies=[body for _, body, _ in made],
        now=now,
    )
    await Q["fan_out"].execute(conn, event_ids=[w.event.event_id for w, _, _ in made], now=now)
    return len(rows)


async def claim(
    conn: Connection,
    *,
    busy: Sequence[str],
    per_webhook: int,
    failing_most: int,
    most: int,
    claim_s: float,
    now: datetime,
) -> list[Delivery]:
    """Take deliveries that are due, few of each endpoint, so that no dead one stands in the way of
    another's. What is not ended before `claim_s` is over may be taken again."""
    rows = await Q["claim"].fetch(
        conn,
        busy=list(busy),
        per_webhook=per_webhook,
        failing_most=failing_most,
        most=most,
        claim_s=claim_s,
        now=now,
    )
    return [Delivery(**dict(row)) for row in rows]


async def end_try(conn: Connection, delivery: Delivery, outcome: Outcome, now: datetime) -> bool:
    """Write down how a try ended; False where the claim was over and somebody else has it now. The
    webhook is locked before, by `webhooks.lock_health`."""
    ended = await Q["end_try"].fetchval(
        conn,
        event_id=delivery.event_id,
        webhook_id=delivery.webhook_id,
        claimed_until=delivery.claimed_until,
        status=outcome.status,
        next_at=outcome.next_at,
        last_status=outcome.last_status,
        last_error=outcome.last_error,
        now=now,
    )
    return ended is not None


async def tidy(
    conn: Connection, *, dead_before: datetime, old_before: datetime, now: datetime, most: int
) -> None:
    """End what is over its time, forget what is old."""
    await Q["give_up_old"].execute(conn, older_than=dead_before, now=now)
    await Q["forget_old"].execute(conn, older_than=old_before, most=most)
    await Q["forget_secrets"].execute(conn, now=now)


async def queue_age_s(conn: Connection, now: datetime) -> float:
    """How long the oldest has waited that could be delivered now."""
    age_s: float | None = await Q["queue_age"].fetchval(conn, now=now)
    return age_s or 0.0


async def newest(conn: Connection, status: str, most: int) -> list[Mapping[str, object]]:
    """The newest deliveries: of one status, ``failed`` (tried and still waiting) or ``all``."""
    return [dict(row) for row in await Q["list_deliveries"].fetch(conn, status=status, most=most)]


async def resend(
    conn: Connection, *, event_id: str | None, webhook_id: str | None, now: datetime
) -> int:
    """Deliver an event again, or all that is dead of a webhook; answers how many."""
    await Q["lock_resent"].execute(conn, event_id=event_id, webhook_id=webhook_id)
    resent: int = await Q["resend"].fetchval(
        conn, event_id=event_id, webhook_id=webhook_id, now=now
    )
    return resent


def _told(row: asyncpg.Record, subscription: SubscriptionRow | None) -> Told:
    values = dict(row)
    debt_e10, leased_e10 = values.pop("debt_e10"), values.pop("leased_e10")
    values["available_e10"] -= debt_e10
    return Told(**values, held_e10=leased_e10, subscription=subscription)
