"""The REST API as one ASGI callable: find the route, know the caller, run it, answer in JSON.

Starlette is not needed for a table of a few dozen routes, and routing on the raw path keeps the
bytes that are matched and the bytes that are authorised the same.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from urllib.parse import unquote

import orjson

from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import hash_secret
from lava_proxy.manage import credit, customers, meters, quotes, requests
from lava_proxy.manage.asgi import ASGIApp, Receive, Scope, Send, read_body, reply
from lava_proxy.manage.context import JSON, Context, Route, parse_query
from lava_proxy.store.database import Connection, StoreConflict, StoreDown
from lava_proxy.store.directory import Principal
from lava_proxy.store.resources import REQUESTS
from lava_proxy.wire.headers import guard
from lava_proxy.wire.problem import BODY_MAX_BYTES, envelope
from lava_proxy.wire.token import decode_token, find_credential, invalid_token

log = logging.getLogger(__name__)

ROUTES: tuple[Route, ...] = (
    *customers.ROUTES,
    *credit.ROUTES,
    *meters.ROUTES,
    *requests.ROUTES,
    *quotes.ROUTES,
)
IDEMPOTENCY_KEY_MAX = 255

AWAY = LavaError("unavailable", "the database is away; try again", headers={"retry-after": "1"})
DEFECT = LavaError("internal_error")


def create_management(books: Books, registry: Registry) -> ASGIApp:
    """The API over these books."""
    return _Management(books, registry)


class _Management:
    """Routes by method and path."""

    def __init__(self, books: Books, registry: Registry) -> None:
        self._books = books
        self._registry = registry
        self._routes = [(_compile(route.path), route) for route in ROUTES]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            guard(scope, bytes_max=self._books.settings.header_limit_bytes)
            status, answer = 200, await self._serve(scope, receive)
            headers: Mapping[str, str] = {}
        except (StoreDown, StoreConflict) as error:
            log.warning("management: %s", error)
            status, answer, headers = AWAY.status, envelope(AWAY), AWAY.headers
        except LavaError as error:
            status, answer, headers = error.status, envelope(error), error.headers
        except Exception:
            log.exception("management call failed")
            status, answer, headers = DEFECT.status, envelope(DEFECT), {}
        await reply(send, status, answer, headers)

    async def _serve(self, scope: Scope, receive: Receive) -> bytes:
        route, params = self._find(scope)
        principal = await self._principal(scope)
        query = parse_query(scope["query_string"], route.query)
        body = await read_body(receive, BODY_MAX_BYTES)
        ctx = Context(self._books, self._registry, principal, params, query, body)
        if not route.transaction:
            return _dump(await route.handler(ctx))
        key = _idempotency_key(scope)
        async with self._books.database.transaction() as conn:
            ctx.conn = conn
            if key is None:
                return _dump(await route.handler(ctx))
            return await _once(ctx, conn, route, key)

    def _find(self, scope: Scope) -> tuple[Route, dict[str, str]]:
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        path = path[len(root) :] if root and path.startswith(root) else path
        allowed = set()
        for pattern, route in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if route.method == scope["method"]:
                return route, {k: unquote(v) for k, v in match.groupdict().items()}
            allowed.add(route.method)
        if allowed:
            raise LavaError("method_not_allowed", headers={"allow": ", ".join(sorted(allowed))})
        raise LavaError("not_found", f"There is no route {path[:200]}.")

    async def _principal(self, scope: Scope) -> Principal:
        """Management takes secret keys only: any other credential is 401, or 403 when it is real
        but made for something narrower."""
        token = decode_token(find_credential(scope["headers"], None).text)
        if token.kind != "secret_key":
            raise LavaError("forbidden", "This endpoint takes a secret key.")
        principal = await self._books.directory.principal(hash_secret(token.secret))
        if principal is None:
            raise invalid_token()
        if token.customer_id or token.meter_slug or token.provider_key:
            raise LavaError("forbidden", "This endpoint takes the secret key itself.")
        return principal


async def _once(ctx: Context, conn: Connection, route: Route, key: str) -> bytes:
    """Run under an Idempotency-Key, in the transaction that remembers the answer. A twin waits for
    the first one's commit, then gets its answer."""
    body_hash = hashlib.sha256(
        b"\0".join((route.method.encode(), route.path.encode(), _params(ctx), ctx.raw_body))
    ).digest()
    names = {"merchant_id": ctx.merchant_id, "key": key}
    claimed = await REQUESTS["claim_idempotency"].fetchval(conn, **names, body_hash=body_hash)
    if claimed is None:
        known = await REQUESTS["idempotent_answer"].fetchrow(conn, **names)
        if known is None or known["body_hash"] != body_hash:
            raise LavaError(
                "idempotency_conflict", "This Idempotency-Key came before with another request."
            )
        answer: bytes = known["answer"]
        return answer
    made = _dump(await route.handler(ctx))
    await REQUESTS["keep_answer"].execute(conn, **names, status=200, answer=made)
    return made


def _params(ctx: Context) -> bytes:
    return orjson.dumps(dict(ctx.params), option=orjson.OPT_SORT_KEYS)


def _idempotency_key(scope: Scope) -> str | None:
    values = [value for name, value in scope["headers"] if name == b"idempotency-key"]
    if not values:
        return None
    text: str = values[0].decode("latin-1")
    if len(values) > 1 or not 1 <= len(text) <= IDEMPOTENCY_KEY_MAX or not text.isprintable():
        raise LavaError(
            "invalid_request", "Idempotency-Key must be one value of 1 to 255 characters."
        )
    return text


def _dump(value: JSON) -> bytes:
    return orjson.dumps(value)


def _compile(path: str) -> re.Pattern[str]:
    pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))
    return re.compile(f"/v1{pattern}/?")


__all__ = ["create_management"]
