"""Forward tokens in PostgreSQL: a token is seen once, when it is made; only its hash is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from lava_proxy.rules.limits import Cycle, account_of
from lava_proxy.store.database import Connection
from lava_proxy.store.limits import used_of
from lava_proxy.store.place import Place
from lava_proxy.store.sql import load

Q = load("tokens")


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A forward token, as it may be shown."""

    forward_token_id: str
    merchant_id: str
    hint: str
    test: bool
    customer_id: str | None
    meter_slug: str | None
    meter_id: str | None
    disable_billing: bool
    expires_at: datetime | None
    spend_limit_e10: int | None
    spend_cycle: Cycle | None
    created_at: datetime
    spent_e10: int = 0
    """Of a limit for its whole life whose account is gone."""
    used_e10: int = 0
    """Provider cost in the running cycle of its limit."""

    def account(self, now: datetime) -> str:
        """Of its limit."""
        return account_of(self.forward_token_id, "money", self.spend_cycle or "total", now)


async def create(conn: Connection, wanted: TokenRow, token_hash: bytes) -> None:
    await Q["insert_token"].execute(
        conn,
        forward_token_id=wanted.forward_token_id,
        merchant_id=wanted.merchant_id,
        token_hash=token_hash,
        hint=wanted.hint,
        test=wanted.test,
        customer_id=wanted.customer_id,
        meter_id=wanted.meter_id,
        disable_billing=wanted.disable_billing,
        expires_at=wanted.expires_at,
        spend_limit_e10=wanted.spend_limit_e10,
        spend_cycle=wanted.spend_cycle,
        created_at=wanted.created_at,
    )


async def page(
    conn: Connection, merchant_id: str, behind: Place, most: int, now: datetime
) -> list[TokenRow]:
    """At most `most` tokens that are not revoked behind a place, newest first."""
    rows = await Q["list_tokens"].fetch(
        conn, merchant_id=merchant_id, before_at=behind.at, before_id=behind.id, most=most
    )
    tokens = [TokenRow(**dict(row)) for row in rows]
    used = await used_of(conn, [t.account(now) for t in tokens if t.spend_cycle is not None])
    return [
        replace(token, used_e10=used.get(token.account(now), 0) + token.spent_e10)
        for token in tokens
    ]


async def revoke(conn: Connection, merchant_id: str, forward_token_id: str) -> bool:
    """End a token, everywhere at once (the change feed tells the workers); False: not in force."""
    row = await Q["revoke_token"].fetchrow(
        conn, merchant_id=merchant_id, forward_token_id=forward_token_id
    )
    return row is not None
