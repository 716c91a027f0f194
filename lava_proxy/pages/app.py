"""``/embed/checkout/{secret}``: the page as an ASGI callable, and every fault as a page.

Looking changes nothing; only the form does. There is no cookie and no login: whoever has the secret
may pay, and nothing else, so nobody can be made to act under another's name. Where a browser says
which site a form came from, it must be this one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import orjson

from lava_proxy.books.bank import Books
from lava_proxy.core.errors import LavaError
from lava_proxy.core.intake import ClientGone, Receive, Scope, Send, receive_body
from lava_proxy.pages.checkout import Counter, Refused
from lava_proxy.pages.form import FORM_MAX_BYTES, asks_who, buyer_in, read_form
from lava_proxy.pages.render import Renderer, Reply, origin_of
from lava_proxy.pages.state import State, offer_of, state_of
from lava_proxy.payments.manual import Manual
from lava_proxy.payments.seam import Payments
from lava_proxy.store.checkout_sessions import SessionRow
from lava_proxy.store.database import StoreConflict, StoreDown
from lava_proxy.wire.asgi import path_of, public_base
from lava_proxy.wire.headers import guard

log = logging.getLogger(__name__)

HEAD = "embed"
ROOT = "/embed/checkout/"
"""A host app may have other pages below ``/embed``."""
_PATH = re.compile(rf"{ROOT}(css_(?:live|test)_[A-Za-z0-9_-]{{43}})(/status)?")
_STATUS: Mapping[State, int] = {"expired": 410, "unavailable": 409}
_SAFE = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
}
_OWN_SITE = frozenset({b"same-origin", b"none"})

NOT_HERE = "This checkout does not exist"
BUSY = "Please try again"


class Pages:
    """The pages of one process."""

    def __init__(self, books: Books, payments: Payments) -> None:
        self._books = books
        self._counter = Counter(books, payments)
        self._render = Renderer()
        self._by_hand = payments.name == Manual.name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._reply(scope, receive)
        except ClientGone:
            return
        except Exception as error:  # the one edge where all faults become a page
            reply = self._fault(error)
        headers = {"content-length": str(len(reply.body)), **_SAFE, **reply.headers}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        body = b"" if scope["method"] == "HEAD" else reply.body
        await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        guard(scope, bytes_max=self._books.settings.header_limit_bytes)
        found = _PATH.fullmatch(path_of(scope))
        if found is None:
            raise LavaError("not_found", "there is no such page")
        secret, polled = found[1], found[2] is not None
        methods = ("GET", "HEAD") if polled else ("GET", "HEAD", "POST")
        if scope["method"] not in methods:
            raise LavaError("method_not_allowed", headers={"allow": ", ".join(methods)})
        if scope["method"] == "POST":
            return await self._press(scope, receive, secret)
        row = await self._counter.look(secret)
        if polled:
            state = state_of(row, self._books.now())
            return Reply(200, orjson.dumps({"state": state}), {"content-type": "application/json"})
        return self._page(row)

    async def _press(self, scope: Scope, receive: Receive, secret: str) -> Reply:
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        told = dict(headers)
        if told.get(b"sec-fetch-site", b"none") not in _OWN_SITE:
            raise LavaError("forbidden", "the form comes from another site")
        body = await receive_body(
            headers,
            receive,
            timeout_s=self._books.settings.body_timeout_s,
            bytes_max=FORM_MAX_BYTES,
        )
        form = read_form(told.get(b"content-type", b""), body)
        base = public_base(self._books.settings.public_url, headers)
        refused = await self._counter.press(secret, form, base + ROOT[1:] + secret)
        if refused is not None:
            return self._page(refused.row, refused)
        # Relative, so that it holds behind whatever prefix the page was reached by.
        return Reply(303, headers={"location": secret})

    def _page(self, row: SessionRow, refused: Refused | None = None) -> Reply:
        now = self._books.now()
        state, origin = state_of(row, now), origin_of(row.origin_url)
        return self._render.page(
            "checkout.html",
            _STATUS.get(state, 200) if refused is None else (409 if refused.changed else 422),
            framed_by=origin,
            row=row,
            state=state,
            offer=offer_of(row, now),
            origin=origin,
            by_hand=self._by_hand,
            unanswered=row.payment_status == "pending",
            asks_who=asks_who(row),
            buyer=buyer_in(row, {}) if refused is None else refused.buyer,
            wrong={} if refused is None else refused.wrong,
            changed=refused is not None and refused.changed,
        )

    def _fault(self, error: Exception) -> Reply:
        """What a person is told of any fault."""
        if isinstance(error, StoreDown | StoreConflict):
            log.warning("pages: %s", error)
            error = LavaError("unavailable", headers={"retry-after": "1"})
        if not isinstance(error, LavaError):
            log.error("pages: a defect", exc_info=error)
            error = LavaError("internal_error")
        if error.status == 404:
            told = NOT_HERE, "The link is wrong or was not copied whole. Nothing was paid."
        elif error.code == "conflict":
            told = "This cannot be bought", f"Nothing was paid: {error.message}."
        elif error.fault == "house":
            told = BUSY, "Something went wrong on our side. Trying again is safe: you pay once."
        else:
            told = "This does not work", "The form was not sent as a browser sends it."
        reply = self._render.notice(error.status, *told)
        return Reply(reply.status, reply.body, {**reply.headers, **error.headers})
