"""The management API on real books, called as a server would: message by message."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote

from lava_proxy.books.bank import Books
from lava_proxy.core.ids import new_secret
from lava_proxy.manage.app import Management
from lava_proxy.store import keys
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database


@dataclass(frozen=True)
class Reply:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_float=Decimal)

    @property
    def code(self) -> str:
        error = self.json["error"]
        assert error["status"] == self.status
        return str(error["code"])

    @property
    def paths(self) -> list[str]:
        return [detail["path"] for detail in self.json["error"]["details"]]


async def call_app(
    app: Callable[[Any, Any, Any], Awaitable[None]],
    method: str,
    path: str,
    *,
    query: str = "",
    headers: list[tuple[str, str]] | None = None,
    pieces: list[bytes] | None = None,
    html: bool = False,
    **scope: Any,
) -> Reply:
    """One request; `path` is as on the wire (encoded)."""
    messages = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces or []
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(
        {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (n.lower().encode(), v.encode("latin-1"))
                for n, v in [("host", "gateway.test"), *(headers or [])]
            ],
            **scope,
        },
        receive,
        send,
    )
    start, *rest = sent
    body = b"".join(message.get("body", b"") for message in rest)
    found = {n.decode(): v.decode() for n, v in start["headers"]}
    assert html or found["content-type"] == "application/json"
    assert int(found["content-length"]) == len(body)
    return Reply(start["status"], found, body)


@dataclass
class Api:
    """One merchant's client."""

    app: Management
    books: Books
    database: Database
    secret: str
    secret_key_id: str
    merchant_id: str

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        **query: str | int,
    ) -> Reply:
        """`body` is bytes as they are, or JSON; `path` is below ``/v1/``."""
        headers = [("authorization", f"Bearer {self.secret}"), ("content-type", "text/plain")]
        if key is not None:
            headers.append(("idempotency-key", key))
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        pairs = "&".join(f"{n}={quote(str(v), safe='')}" for n, v in query.items())
        pieces = [] if body is None else [raw[:3], raw[3:]]
        return await call_app(
            self.app, method, f"/v1/{path}", query=pairs, headers=headers, pieces=pieces
        )

    async def get(self, path: str, **query: str | int) -> Reply:
        return await self.call("GET", path, **query)

    async def post(self, path: str, body: object, *, key: str | None = None) -> Reply:
        return await self.call("POST", path, body, key=key)

    async def made(
        self, path: str, body: object, *, key: str | None = None, status: int = 200
    ) -> dict[str, Any]:
        """As `post`, and it must succeed."""
        reply = await self.post(path, body, key=key)
        assert reply.status == status, reply.body
        made: dict[str, Any] = reply.json
        return made

    async def customer(self, **fields: object) -> str:
        return str((await self.made("customers", fields))["customer_id"])

    async def meter(self, slug: str = "m", **fields: object) -> dict[str, Any]:
        """A meter of 2 USD per million tokens, unless told otherwise."""
        usual = {
            "name": slug,
            "meter_slug": slug,
            "rate_type": "fixed",
            "tier_type": "tokens_1m",
            "tiers": [{"start": "0", "rate": "2"}],
        }
        return await self.made("meters", usual | fields)

    async def balance(self, customer: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.get(f"customers/{customer}/balance")).json
        return found

    async def sound(self) -> bool:
        """Whether the books add up."""
        found = await audit(self.database)
        assert found.differences == ()
        return found.sound


async def new_merchant(app: Management, books: Books, database: Database, name: str) -> Api:
    """A merchant with a key of its own."""
    async with database.transaction() as conn:
        made = await keys.create_key(conn, name="test", test=False, merchant_name=name)
    return Api(app, books, database, made.secret_key, made.secret_key_id, made.merchant_id)


def unknown_secret() -> str:
    """A key that nobody holds."""
    return new_secret("aks_live_")
