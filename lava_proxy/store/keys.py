"""Merchants and their secret keys: only hashes are stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from lava_proxy.core.ids import hash_secret, hint_of, new_id, new_secret
from lava_proxy.store.credit import Q as CREDIT
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("keys")


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A new key; the only time that its secret is known."""

    secret_key_id: str
    merchant_id: str
    secret_key: str = field(repr=False)


async def create_key(
    conn: Connection, *, name: str, test: bool, merchant_name: str, merchant_id: str | None = None
) -> CreatedKey:
    """A key of a merchant (default: the oldest one; made here when there is none)."""
    if merchant_id is None:
        await Q["lock_merchants"].fetchval(conn)
        merchant_id = await Q["first_merchant"].fetchval(conn)
    if merchant_id is None:
        merchant_id = new_id("merchant")
        await Q["insert_merchant"].execute(conn, merchant_id=merchant_id, name=merchant_name)
        await CREDIT["insert_account"].execute(conn, owner_id=merchant_id, merchant_id=merchant_id)
    secret = new_secret("aks_test_" if test else "aks_live_")
    made = CreatedKey(new_id("secret_key"), merchant_id, secret)
    await Q["insert_key"].execute(
        conn,
        secret_key_id=made.secret_key_id,
        merchant_id=merchant_id,
        name=name,
        key_hash=hash_secret(secret),
        hint=hint_of(secret),
        test=test,
    )
    return made


async def revoke_key(
    conn: Connection, *, merchant_id: str, secret_key_id: str, now: datetime
) -> bool:
    """End a key; False when there is no such key in force."""
    ended = await Q["revoke_key"].fetchval(
        conn, merchant_id=merchant_id, secret_key_id=secret_key_id, now=now
    )
    return bool(ended)
