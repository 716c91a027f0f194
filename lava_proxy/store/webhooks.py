"""Webhooks of merchants, as the API shows them; their secrets are sealed by whoever calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lava_proxy.store.database import Connection
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("webhooks")

MOST = 3
"""Webhooks of one merchant."""


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """A webhook as stored, without its secret."""

    webhook_id: str
    name: str
    url: str
    events: Sequence[str]
    created_at: datetime


async def create(
    conn: Connection, merchant_id: str, wanted: WebhookRow, secret_sealed: bytes
) -> WebhookRow | None:
    """Make a webhook; None when the merchant has as many as there may be."""
    for _ in range(MOST):  # somebody may take the same place at the same moment
        row = await Q["create_webhook"].fetchrow(
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
        if row is not None:
            return WebhookRow(**dict(row))
    return None


async def find(conn: Connection, merchant_id: str, webhook_id: str) -> WebhookRow | None:
    row = await Q["find_webhook"].fetchrow(conn, merchant_id=merchant_id, webhook_id=webhook_id)
    return None if row is None else WebhookRow(**dict(row))


async def page(conn: Connection, merchant_id: str, behind: Place, most: int) -> list[WebhookRow]:
    """At most `most` webhooks behind a place, newest first."""
    rows = await Q["list_webhooks"].fetch(
        conn, merchant_id=merchant_id, before_at=behind.at, before_id=behind.id, most=most
    )
    return [WebhookRow(**dict(row)) for row in rows]


async def update(
    conn: Connection,
    merchant_id: str,
    webhook_id: str,
    *,
    name: str | None,
    url: str | None,
    events: Sequence[str] | None,
) -> WebhookRow | None:
    """Change what is not None; None where there is no such webhook."""
    row = await Q["update_webhook"].fetchrow(
        conn,
        merchant_id=merchant_id,
        webhook_id=webhook_id,
        name=name,
        url=url,
        events=None if events is None else list(events),
    )
    return None if row is None else WebhookRow(**dict(row))


async def delete(conn: Connection, merchant_id: str, webhook_id: str) -> bool:
    """Remove a webhook with what it was still to be told; False where there is none."""
    gone = await Q["delete_webhook"].fetchval(conn, merchant_id=merchant_id, webhook_id=webhook_id)
    return gone is not None
