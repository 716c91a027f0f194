"""The management application: path -> route -> caller -> handler, and every error -> one envelope.

Routing looks at the raw path minus the mount's prefix, segment by segment, so that an id may hold
an encoded slash. A route that is not there is 404 whoever asks; the credential comes next, then the
merchant's pace, and the body is read only for a caller who is known and not too fast.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from urllib.parse import unquote

from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.core.errors import LavaError
from lava_proxy.core.intake import ClientGone, Receive, Scope, Send, receive_body
from lava_proxy.manage import (
    checkout_sessions,
    credit,
    credit_bundles,
    customers,
    fallback,
    forward_tokens,
    ledger,
    login,
    meters,
    models,
    openapi,
    payment_confirm,
    payment_events,
    payment_methods,
    payments,
    plans,
    prices,
    quotes,
    reference,
    reports,
    requests,
    reratings,
    secret_keys,
    services,
    spend_keys,
    subscriptions,
    usage,
    wallet,
    webhooks,
)
from lava_proxy.manage.auth import authenticate
from lava_proxy.manage.call import Answer, Call, Route
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.fields import refuse_unread
from lava_proxy.payments.factory import make_payments
from lava_proxy.payments.seam import Payments, PaymentsDown
from lava_proxy.store.database import StoreConflict, StoreDown, StorePoison
from lava_proxy.wire.headers import guard
from lava_proxy.wire.problem import BODY_MAX_BYTES, envelope, storable

log = logging.getLogger(__name__)

ROUTES: tuple[Route, ...] = (
    *customers.ROUTES,
    *credit.ROUTES,
    *meters.ROUTES,
    *requests.ROUTES,
    *reports.ROUTES,
    *ledger.ROUTES,
    *quotes.ROUTES,
    *plans.ROUTES,
    *subscriptions.ROUTES,
    *payments.ROUTES,
    *payment_confirm.ROUTES,
    *payment_events.ROUTES,
    *payment_methods.ROUTES,
    *credit_bundles.ROUTES,
    *checkout_sessions.ROUTES,
    *reratings.ROUTES,  # before the route that takes any id there
    *prices.ROUTES,
    *secret_keys.ROUTES,
    *spend_keys.ROUTES,
    *webhooks.ROUTES,
    *forward_tokens.ROUTES,
    *fallback.ROUTES,
    *models.ROUTES,
    *usage.ROUTES,
    *wallet.ROUTES,
    *login.ROUTES,
    *services.ROUTES,
)


class Management:
    """The REST API as an ASGI callable."""

    def __init__(self, desk: Desk, routes: Sequence[Route]) -> None:
        self._desk = desk
        self._table: dict[tuple[str, ...], dict[str, Route]] = {}
        for route in routes:
            pattern = tuple(route.path.split("/"))
            self._table.setdefault(pattern, {})[route.method] = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(scope, receive)
        except ClientGone:
            return
        except Exception as error:  # the one edge where all faults become bytes
            answer = _refusal(_mapped(error))
        headers = {
            "content-type": "application/json",
            "content-length": str(len(answer.body)),
            "cache-control": "no-store",
            **answer.headers,
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        books = self._desk.books
        guard(scope, bytes_max=books.settings.header_limit_bytes)
        segments = _segments(scope)
        methods, params = self._find(segments)
        method: str = scope["method"]
        route = methods.get(method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise LavaError(
                "method_not_allowed", f"this route takes {allowed}", headers={"allow": allowed}
            )
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        principal = None
        paced: Mapping[str, str] = {}
        if route.auth == "secret_key":
            principal = await authenticate(books.directory, headers)
            if route.paced:
                paced = self._desk.pace.take(principal.merchant.merchant_id)
        body = b""
        if method != "GET":
            body = await receive_body(
                headers,
                receive,
                timeout_s=books.settings.body_timeout_s,
                bytes_max=BODY_MAX_BYTES,
            )
        call = Call(
            method,
            "/".join(segments),
            params,
            scope.get("query_string", b""),
            headers,
            body,
            principal,
        )
        if principal is not None:
            refuse_unread(call, route)
        answer = await route.handler(self._desk, call)
        return replace(answer, headers={**paced, **answer.headers}) if paced else answer

    def _find(self, segments: Sequence[str]) -> tuple[Mapping[str, Route], tuple[str, ...]]:
        """The methods of the route that a path names, and its variable segments."""
        for pattern, methods in self._table.items():
            if len(pattern) == len(segments) and all(
                part in ("*", segment) for part, segment in zip(pattern, segments, strict=True)
            ):
                params = [s for part, s in zip(pattern, segments, strict=True) if part == "*"]
                return methods, tuple(params)
        raise LavaError("not_found", "there is no such route")


def create_management(
    books: Books, registry: Registry, payments: Payments | None = None
) -> Management:
    """The management API on these books, and its own description. `payments`: as set, if absent."""
    desk = Desk(books, registry, payments or make_payments(books.settings))
    return Management(desk, (*ROUTES, *_described(), *login.PAGES))


@cache
def _described() -> tuple[Route, ...]:
    """What describes the routes: made once in a process, and before the first request, which would
    otherwise hold the event loop for the third of a second that it takes."""
    document = openapi.describe(ROUTES)
    return (
        Route("GET", "openapi.json", openapi.served(document), auth="none"),
        Route("GET", "docs", reference.served(document), auth="none"),
    )


def _segments(scope: Scope) -> list[str]:
    """The path's segments behind ``/v1/``, each decoded by itself; 404 for other paths. Tools open
    a login's page without ``/v1``."""
    path: str = scope["path"]
    raw: str = scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1")
    if unquote(raw) != path:
        raw = path.replace("%", "%25")  # the server gave no raw path, or another one
    root: str = scope.get("root_path", "").rstrip("/")
    parts = raw.split("/")[1 + root.count("/") :] if path.startswith(root) else []
    try:
        segments = [unquote(part, errors="strict") for part in parts]
    except UnicodeDecodeError:
        segments = []
    if segments[-1:] == [""]:  # one slash at the end does no harm
        segments.pop()
    if segments[:1] == ["auth"]:
        segments.insert(0, "v1")
    if segments[:1] != ["v1"]:
        raise LavaError("not_found", "there is no such route; a base URL ends in /v1/")
    if not all(segment and storable(segment) for segment in segments):
        raise LavaError("not_found", "there is no such route")
    return segments[1:]


def _mapped(error: Exception) -> LavaError:
    """What a caller is told of any fault."""
    if isinstance(error, LavaError):
        return error
    if isinstance(error, StoreDown | StoreConflict):
        log.warning("management: %s", error)
        return LavaError(
            "unavailable", "the database is away or busy; try again", headers={"retry-after": "1"}
        )
    if isinstance(error, PaymentsDown):
        log.warning("management: %s", error)
        return LavaError(
            "unavailable", "the payment provider is away; try again", headers={"retry-after": "5"}
        )
    if isinstance(error, StorePoison):
        log.warning("management: %s", error)
        return LavaError("validation_error", "the database refuses a value of this request")
    log.error("management: a defect", exc_info=error)
    return LavaError("internal_error")


def _refusal(error: LavaError) -> Answer:
    headers = dict(error.headers)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Answer(error.status, envelope(error), headers)
