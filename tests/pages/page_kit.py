"""A shop: plans and bundles to sell, sessions to open, and a browser's moves without a browser."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from api_kit import Api, Reply, call_app
from books_kit import fetch

from lava_proxy.pages.app import Pages
from lava_proxy.payments.manual import Manual
from lava_proxy.payments.seam import (
    ChargeAnswer,
    ChargeAsk,
    CheckoutAnswer,
    CheckoutAsk,
    Payments,
    PaymentsDown,
)
from lava_proxy.store import keys

ORIGIN = "https://shop.example"
FORM = ("content-type", "application/x-www-form-urlencoded")


class Elements(HTMLParser):
    """What a test looks at: (tag, attributes) in order, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("style", "script"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]

    def one(self, tag: str, **wanted: str) -> dict[str, str | None]:
        matching = [a for a in self.all(tag) if wanted.items() <= a.items()]
        assert len(matching) == 1, (tag, wanted, matching)
        return matching[0]

    @property
    def state(self) -> str:
        return str(self.one("body")["data-state"])


class Redirecting(Manual):
    """A provider with a page of its own, as `Stripe` has one; or down, or declining."""

    name = "fake"

    def __init__(self) -> None:
        self.asks: list[CheckoutAsk] = []
        self.charges: list[ChargeAsk] = []
        self.down = False
        self.page: str | None = "https://pay.example/p/1"
        self.least_e10 = 0
        self.charge_answer = ChargeAnswer("declined", code="card_declined", message="No funds.")

    def refusal(self, amount_e10: int) -> str | None:
        return "is too low" if 0 < amount_e10 < self.least_e10 else None

    async def checkout(self, ask: CheckoutAsk) -> CheckoutAnswer:
        self.asks.append(ask)
        if self.down:
            raise PaymentsDown("no connection")
        return CheckoutAnswer(self.page)

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        self.charges.append(ask)
        return self.charge_answer


PLAN_TERMS = "25.0000000000 for 20.0000000000"
BUNDLE_TERMS = "10.0000000000 for 15.0000000000"
"""What the forms of a shop's plan and of its bundle say is offered."""


@dataclass
class Shop:
    """One merchant's shop; `pages` is what the browser talks to."""

    api: Api
    test_api: Api
    plan_id: str
    bundle_id: str
    pages: Pages
    provider: Payments = field(default_factory=Manual)

    @classmethod
    async def opened(cls, api: Api) -> Shop:
        plan = await api.made(
            "plans",
            {
                "name": "Pro",
                "period_amount": "25",
                "included_credit": "20",
                "billing_interval": "month",
                "credit_bundles": [{"name": "More", "cost": "10", "credit_amount": "15"}],
            },
        )
        async with api.database.transaction() as conn:
            made = await keys.add_key(conn, api.merchant_id, name="test", test=True)
        test_api = Api(
            api.app, api.books, api.database, made.secret_key, made.secret_key_id, made.merchant_id
        )
        bundle = plan["credit_bundles"][0]["credit_bundle_id"]
        return cls(api, test_api, plan["plan_id"], bundle, Pages(api.books, Manual()))

    def pays_with(self, provider: Payments) -> None:
        self.provider = provider
        self.pages = Pages(self.api.books, provider)

    async def session(self, *, test: bool = False, **fields: object) -> str:
        """Open a session for the plan, unless told otherwise; answers its secret."""
        usual = {"checkout_mode": "subscription", "origin_url": f"{ORIGIN}/pricing?a=1"}
        if "credit_bundle_id" not in fields:
            usual["plan_id"] = self.plan_id
        made = await (self.test_api if test else self.api).made("checkout_sessions", usual | fields)
        return secret_of(made)

    async def bundle(self, customer: str, *, test: bool = False) -> str:
        return await self.session(
            test=test,
            checkout_mode="credit_bundle",
            customer_id=customer,
            credit_bundle_id=self.bundle_id,
        )

    async def get(self, secret: str, end: str = "", method: str = "GET") -> Reply:
        path = f"/embed/checkout/{secret}{end}"
        return await call_app(self.pages, method, path, html=True)

    async def seen(self, secret: str) -> Elements:
        reply = await self.get(secret)
        return Elements(reply.body.decode())

    async def state(self, secret: str) -> str:
        """As the page polls it."""
        return str((await self.get(secret, "/status")).json["state"])

    async def post(self, secret: str, form: Mapping[str, str], *headers: tuple[str, str]) -> Reply:
        return await call_app(
            self.pages,
            "POST",
            f"/embed/checkout/{secret}",
            headers=[FORM, *headers] if not any(n == FORM[0] for n, _ in headers) else [*headers],
            pieces=[urlencode(form).encode()],
            html=True,
        )

    async def press(self, secret: str, **fields: str) -> Reply:
        """Look at the page, fill in what it asks for, press the button."""
        page = await self.seen(secret)
        form = {"terms": str(page.one("input", name="terms")["value"])}
        if any(a.get("name") == "email" for a in page.all("input")):
            form["email"] = "jane@example.com"
        return await self.post(secret, form | fields)

    async def subscribe(self, customer: str, plan_id: str | None = None) -> None:
        """Put a customer on a plan, paid and done."""
        secret = await self.session(
            test=True, customer_id=customer, plan_id=plan_id or self.plan_id
        )
        pages, self.pages = self.pages, Pages(self.api.books, Manual())
        assert (await self.press(secret)).status == 303
        assert await self.state(secret) == "done"
        self.pages = pages

    async def payments(self) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = (await self.api.get("payments")).json["data"]
        return found

    async def events(self) -> list[str]:
        """What webhooks will be told."""
        rows = await fetch(self.api.database, "SELECT event FROM webhook_events ORDER BY event")
        return [str(event) for (event,) in rows]


def secret_of(made: Mapping[str, Any]) -> str:
    return str(json.loads(b64decode(made["checkout_session_token"]))["secret"])
