"""Webhooks of merchants, as the API shows them; their secrets are sealed by whoever calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lava_proxy.core.errors import LavaError
from lava_proxy.store.database import Connection
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("webhooks")

MOST = 3
"""Webhooks of one merchant."""
MOST_OLD = 4
"""Old secrets of one webhook that sign beside its own."""


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """A webhook as stored, without its secret."""

    webhook_id: str
    name: str
    url: str
    events: Sequence[str]
    created_at: datetime
    disabled_at: datetime | None = None
    old_secret_until: datetime | None = None
    """When the last of its old secrets ends; None where none signs any more."""


@dataclass(frozen=True, slots=True)
class Health:
    """How tries at an endpoint ended."""

    failures: int
    """Since the last success."""
    quiet_until: datetime
    """Until when it is left alone."""
    failing_since: datetime | None
    failed_at: datetime | None
    disabled_at: datetime | None
    """Since when nothing is sent, because it only failed."""


async def create(
    conn: Connection, merchant_id: str, wanted: WebhookRow, secret_sealed: bytes
) -> WebhookRow | None:
    """Make a webhook; None when the merchant has as many as there may be."""
    for _ in range(MOST):  # somebody may take the same place at the same moment
        made = await Q["create_webhook"].fetchval(
            conn,
            webhook_id=wanted.webhook_id,
            merchant_id=merchant_id,
            name=wanted.name,
            url=wanted.url,
            secret_sealed=secret_sealed,
            events=list(wanted.events),
            created_at=wanted.created_at,
            most=MOST,
        )
        if made is not None:
            return wanted
    return None


async def find(
    conn: Connection, merchant_id: str | None, webhook_id: str, now: datetime
) -> WebhookRow | None:
    """A webhook; without a merchant, anybody's."""
    row = await Q["find_webhook"].fetchrow(
        conn, merchant_id=merchant_id, webhook_id=webhook_id, now=now
    )
    return None if row is None else WebhookRow(**dict(row))


async def page(
    conn: Connection, merchant_id: str, behind: Place, most: int, now: datetime
) -> list[WebhookRow]:
    """At most `most` webhooks behind a place, newest first."""
    rows = await Q["list_webhooks"].fetch(
        conn, merchant_id=merchant_id, before_at=behind.at, before_id=behind.id, most=most, now=now
    )
    return [WebhookRow(**dict(row)) for row in rows]


async def update(
    conn: Connection,
    merchant_id: str | None,
    webhook_id: str,
    *,
    name: str | None = None,
    url: str | None = None,
    events: Sequence[str] | None = None,
    enable: bool = False,
    now: datetime,
) -> WebhookRow | None:
    """Change what is not None; None where there is no such webhook. With another address, or
    `enable`, it is asked again at once, whatever its tries came to before."""
    await Q["update_webhook"].execute(
        conn,
        merchant_id=merchant_id,
        webhook_id=webhook_id,
        name=name,
        url=url,
        events=None if events is None else list(events),
        afresh=enable or url is not None,
        now=now,
    )
    return await find(conn, merchant_id, webhook_id, now)


async def lock_health(conn: Connection, webhook_id: str) -> Health | None:
    """How tries at an endpoint ended, locked until the transaction is over; None where it was
    removed."""
    row = await Q["lock_health"].fetchrow(conn, webhook_id=webhook_id)
    return None if row is None else Health(**dict(row))


async def save_health(conn: Connection, webhook_id: str, health: Health) -> None:
    await Q["save_health"].execute(
        conn,
        webhook_id=webhook_id,
        failures=health.failures,
        quiet_until=health.quiet_until,
        failing_since=health.failing_since,
        failed_at=health.failed_at,
        disabled_at=health.disabled_at,
    )


async def rotate(
    conn: Connection,
    merchant_id: str | None,
    webhook_id: str,
    seal: Callable[[], bytes],
    *,
    overlap: timedelta,
    now: datetime,
) -> WebhookRow | None:
    """Put another secret, sealed by `seal`, in the place of a webhook's. What was its secret until
    now, and those before, go on signing beside it for `overlap` at most. Raises 409 `conflict`
    where too many would; None where there is no such webhook."""
    found = await Q["lock_webhook"].fetchval(conn, merchant_id=merchant_id, webhook_id=webhook_id)
    if found is None:
        return None
    signing = await Q["turn_secret"].fetchval(
        conn, webhook_id=webhook_id, secret_sealed=seal(), ends_at=now + overlap, now=now
    )
    if overlap and signing >= MOST_OLD:
        raise LavaError("conflict", f"{MOST_OLD} old secrets still sign; rotate with overlap_s 0")
    return await find(conn, merchant_id, webhook_id, now)


async def delete(conn: Connection, merchant_id: str, webhook_id: str) -> bool:
    """Remove a webhook with what it was still to be told; False where there is none."""
    gone = await Q["delete_webhook"].fetchval(conn, merchant_id=merchant_id, webhook_id=webhook_id)
    return gone is not None
