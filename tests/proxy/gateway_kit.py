"""A whole gateway for tests: real server and socket, real PostgreSQL, simulated providers.

`Gate` is the running thing: it makes payers and calls, and checks the books afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import asyncpg
from plain_client import Answer, OpenCall

from lava_adapters.registry import Registry
from lava_proxy.app import LavaProxy
from lava_proxy.core.ids import hash_secret, new_id, new_secret
from lava_proxy.core.money import parse_e10
from lava_proxy.net.simulated import SimRequest, SimulatedProvider
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.store import balance as balances
from lava_proxy.store import credit
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database

CHAT = "/openai/v1/chat/completions"
TOKEN_E10 = 100_000
"""What a token costs by the usual meter of these tests: 10 USD per million."""
MANAGED = {p.id: f"managed-key-of-{p.id}-0123456789" for p in Registry.builtin().providers}

_numbers = itertools.count(1)


def fresh_model() -> str:
    """A model name that no other call uses: scripts are found by it."""
    return f"test-model-{next(_numbers)}"


@dataclass(frozen=True)
class Payer:
    """A customer of a merchant of its own, with a meter and credit."""

    secret: str
    merchant_id: str
    customer_id: str
    credit_e10: int

    def token(self, **more: object) -> str:
        """A forward token in the public form."""
        members = {"secret_key": self.secret, "customer_id": self.customer_id, "meter_slug": "m"}
        text = json.dumps({k: v for k, v in (members | more).items() if v is not ...})
        return base64.b64encode(text.encode()).decode()


@dataclass
class Gate:
    """A running gateway, its providers and its books."""

    app: LavaProxy
    sim: SimulatedProvider
    database: Database
    port: int = 0
    payers: list[Payer] = field(default_factory=list)

    @property
    def gateway(self) -> Gateway:
        opened = self.app._open
        assert opened is not None
        return opened.gateway

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def payer(
        self,
        amount: str = "1.00",
        *,
        rate_e12: int = 10 * 10**12,
        rate_type: str = "fixed",
        unit: str = "tokens_1m",
        mode: str = "sliced",
        overdraft: str = "0",
        unpriced: str = "refuse",
    ) -> Payer:
        """A new merchant with one key, one customer, one meter ("m") and so much credit."""
        payer = Payer(
            new_secret("aks_live_"), new_id("merchant"), new_id("customer"), parse_e10(amount)
        )
        async with self.database.transaction() as conn:
            merchant = payer.merchant_id
            await conn.execute(
                "INSERT INTO merchants (merchant_id, name) VALUES ($1, 'm')", merchant
            )
            await conn.execute(
                "INSERT INTO accounts (owner_id, merchant_id) VALUES ($1, $1)", merchant
            )
            await conn.execute(
                "INSERT INTO secret_keys (secret_key_id, merchant_id, name, key_hash, hint) "
                "VALUES ($1, $2, 'k', $3, 'h')",
                new_id("secret_key"),
                merchant,
                hash_secret(payer.secret),
            )
            await conn.execute(
                "INSERT INTO meters (meter_id, merchant_id, slug, name, rate_type, tier_type, "
                "tiers, enforcement, overdraft_e10, unpriced) "
                "VALUES ($1, $2, 'm', 'm', $3, $4, $5, $6, $7, $8)",
                new_id("meter"),
                merchant,
                rate_type,
                unit,
                [[0, rate_e12]],
                mode,
                parse_e10(overdraft),
                unpriced,
            )
        await self._customer(payer)
        return payer

    async def sibling(self, payer: Payer, amount: str = "1.00") -> Payer:
        """Another customer of the same merchant."""
        other = Payer(payer.secret, payer.merchant_id, new_id("customer"), parse_e10(amount))
        await self._customer(other)
        return other

    async def _customer(self, payer: Payer) -> None:
        async with self.database.transaction() as conn:
            await conn.execute(
                "INSERT INTO customers (customer_id, merchant_id) VALUES ($1, $2)",
                payer.customer_id,
                payer.merchant_id,
            )
            await conn.execute(
                "INSERT INTO accounts (owner_id, merchant_id) VALUES ($1, $2)",
                payer.customer_id,
                payer.merchant_id,
            )
        await self.grant(payer, payer.credit_e10)
        self.payers.append(payer)

    async def grant(self, payer: Payer, amount_e10: int) -> None:
        if not amount_e10:
            return
        async with self.database.transaction() as conn:
            await credit.grant(
                conn,
                grant_id=new_id("credit"),
                owner_id=payer.customer_id,
                kind="operator",
                amount_e10=amount_e10,
                expires_at=None,
                note=None,
                now=datetime.now(UTC),
            )

    # Calls.

    async def open_call(
        self,
        path: str,
        body: object = None,
        payer: Payer | None = None,
        headers: Mapping[str, str] | list[tuple[str, str]] = (),  # type: ignore[assignment]
        *,
        method: str = "POST",
        length: int | None = None,
        slow: bool = False,
    ) -> OpenCall:
        """Send a request; `body` is JSON unless it is bytes. `slow`: the client's buffers are as
        small as they can be, and it says how much it reads."""
        sock = socket.socket()
        sock.setblocking(False)
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096 if slow else 2**16)
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in pairs}
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        if payer is not None and not names & {"authorization", "x-api-key", "x-goog-api-key"}:
            pairs.append(("authorization", f"Bearer {payer.token()}"))
        if data and "content-type" not in names:
            pairs.append(("content-type", "application/json"))
        if data and "transfer-encoding" not in names:
            pairs.append(("content-length", str(len(data) if length is None else length)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in pairs)]
        if "host" not in names:
            lines.append("host: gateway")
        if "connection" not in names:
            lines.append("connection: close")
        writer.write(("\r\n".join([*lines, "", ""])).encode("latin-1") + data)
        return OpenCall(reader, writer)

    async def call(
        self,
        path: str,
        body: object = None,
        payer: Payer | None = None,
        headers: Mapping[str, str] | list[tuple[str, str]] = (),  # type: ignore[assignment]
        *,
        method: str = "POST",
    ) -> Answer:
        return await (await self.open_call(path, body, payer, headers, method=method)).rest()

    # What became of it.

    def seen(self, model: str) -> list[SimRequest]:
        """What the provider got for a model."""
        return [r for r in self.sim.requests if r.model == model]

    async def until(self, predicate: Any, timeout_s: float = 5.0) -> None:
        """For what has no event of its own."""
        async with asyncio.timeout(timeout_s):
            while not predicate():
                await asyncio.sleep(0.002)

    async def booked(self) -> None:
        """Every call is over and in the ledger."""
        gateway = self.gateway
        await self.until(lambda: not gateway.open_runs.runs)
        await gateway.books.writer.flush()
        opened = self.app._open
        await self.until(lambda: opened is None or not opened._upkeep._answers)  # to recalls
        await self.until(
            lambda: all(a.trip is None for a in gateway.books.leases.accounts.values())
        )

    async def rows(self, payer: Payer) -> list[asyncpg.Record]:
        await self.booked()
        async with self.database.connection() as conn:
            return await conn.fetch(
                "SELECT * FROM requests WHERE merchant_id = $1 "
                "AND (customer_id = $2 OR customer_id IS NULL) ORDER BY created_at, request_id",
                payer.merchant_id,
                payer.customer_id,
            )

    async def row(self, payer: Payer) -> asyncpg.Record:
        """The one row of a payer's one call."""
        rows = await self.rows(payer)
        assert len(rows) == 1, [dict(row) for row in rows]
        return rows[0]

    async def left_e10(self, payer: Payer) -> int:
        """Credit that a payer still has, wherever it is."""
        await self.booked()
        async with self.database.connection() as conn:
            balance = await balances.balance(conn, payer.customer_id)
        return balance.available_e10 + balance.held_e10

    async def check(self, *, ledger: bool = True) -> None:
        """Nothing is held or pending, memory and books agree on what is leased, and the ledger
        adds up."""
        await self.booked()
        leases = self.gateway.books.leases
        async with self.database.connection() as conn:
            rows = await conn.fetch(
                "SELECT l.owner_id, sum(p.left_e10)::bigint AS left_e10 FROM leases l "
                "JOIN lease_parts p USING (lease_id) WHERE l.holder_id = $1 GROUP BY l.owner_id",
                self.gateway.books.journal.holder_id,
            )
        leased = {row["owner_id"]: row["left_e10"] for row in rows}
        for owner_id, account in leases.accounts.items():
            assert (account.held_e10, account.pending_e10) == (0, 0), owner_id
            # Below zero in memory is an overshoot that no lease has covered yet.
            assert max(account.free_e10, 0) == leased.pop(owner_id, 0), owner_id
        assert not any(leased.values())
        assert self.gateway.books.journal.open_calls == 0
        if not ledger:
            return
        found = await audit(self.database)
        assert found.sound, found


def forward_url(target: str) -> str:
    """``/v1/forward?u=`` with the target percent-encoded."""
    return "/v1/forward?u=" + quote(target, safe="")
