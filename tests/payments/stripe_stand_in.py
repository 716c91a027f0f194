"""localstripe as a process, and what it lacks: a port of its choice, Checkout pages, no disk, a
payer's payment intents, confirming with another card, a bank's page, idempotency keys.

``python stripe_stand_in.py`` prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from localstripe import resources

resources.Store.dump_to_disk = lambda self: None  # a fixed file in /tmp, shared by every run

Intent = resources.PaymentIntent
CREATE, CONFIRM, LIST = Intent._api_create, Intent._api_confirm, Intent._api_list_all


def bank_page(made: Any, return_url: str | None) -> Any:
    """Who is there is sent to their bank."""
    if return_url and made.next_action:
        made.next_action = {
            "type": "redirect_to_url",
            "redirect_to_url": {"url": f"https://bank.test/{made.id}", "return_url": return_url},
        }
    return made


def create(cls: Any, return_url: str | None = None, description: str = "", **asked: Any) -> Any:
    return bank_page(CREATE(**asked), return_url)


def confirm(
    cls: Any,
    id: str,
    payment_method: str | None = None,
    return_url: str | None = None,
    off_session: str | None = None,
) -> Any:
    made = Intent._api_retrieve(id)
    if made.status in ("requires_payment_method", "requires_action"):
        made.payment_method = payment_method or made.payment_method
        made.latest_charge = made.next_action = None
    return bank_page(CONFIRM(id), return_url)


def list_all(cls: Any, url: str, customer: str | None = None, **asked: Any) -> Any:
    found = LIST(url, **asked)
    found._list = [made for made in found._list if customer in (None, made.customer)]
    return found


def received(made: Any) -> int:
    return int(made.amount) if made.status == "succeeded" else 0


Intent.amount_received = property(received)
Intent._api_create = classmethod(create)
Intent._api_confirm = classmethod(confirm)
Intent._api_list_all = classmethod(list_all)
resources.extra_apis[:] = [
    (method, path, Intent._api_confirm if path.endswith("intents/{id}/confirm") else work)
    for method, path, work in resources.extra_apis
]

from localstripe.server import app, get_post_data  # noqa: E402  (it takes its routes as they are)

seen: dict[str, tuple[bytes, int, bytes]] = {}
turn = asyncio.Lock()


@web.middleware
async def once(request: web.Request, handler: Any) -> web.StreamResponse:
    """The same key answers the same; with another body it is refused."""
    key, body = request.headers.get("idempotency-key"), await request.read()
    if key is None or request.method != "POST":
        made: web.StreamResponse = await handler(request)
        return made
    async with turn:
        if key not in seen:
            fresh = await handler(request)
            if b"resource_missing" in (fresh.body or b""):
                return fresh  # what is not even begun is not kept
            seen[key] = (body, fresh.status, fresh.body)
    first, status, answer = seen[key]
    if first != body:
        error = {"error": {"type": "idempotency_error", "message": "another body"}}
        return web.json_response(error, status=400)
    return web.Response(status=status, body=answer, content_type="application/json")


pages: dict[str, dict[str, Any]] = {}


def shown(page: dict[str, Any]) -> web.Response:
    return web.Response(text=json.dumps(page), content_type="application/json")


async def checkout(request: web.Request) -> web.Response:
    """Enough of POST /v1/checkout/sessions: it keeps what was asked and makes an address."""
    asked = await get_post_data(request)
    if "gone" in asked.get("customer", ""):
        error = {"type": "invalid_request_error", "code": "resource_missing", "param": "customer"}
        return web.json_response({"error": error}, status=400)
    reference, number = asked["client_reference_id"], len(pages) + 1
    lines = asked.get("line_items") or {}
    line = next(iter(lines.values() if isinstance(lines, dict) else lines), None)
    page = {
        "id": f"cs_test_{number}",
        "object": "checkout.session",
        "url": f"https://stripe.test/{asked['mode']}/{reference}",
        "client_reference_id": reference,
        "status": "open",
        "payment_status": "unpaid",
        "payment_intent": None,
        "customer": asked.get("customer"),
        "amount_total": int(line["price_data"]["unit_amount"]) if line else None,
        "metadata": asked.get("metadata") or {},
    }
    pages[str(page["id"])] = page
    return shown(page)


async def page(request: web.Request) -> web.Response:
    if request.match_info["id"] not in pages:
        error = {"type": "invalid_request_error", "message": "No such checkout session"}
        return web.json_response({"error": error}, status=404)
    return shown(pages[request.match_info["id"]])


async def all_pages(request: web.Request) -> web.Response:
    found = {"object": "list", "has_more": False, "url": "/v1/checkout/sessions"}
    return shown({**found, "data": list(reversed(pages.values()))})


async def end_page(request: web.Request) -> web.Response:
    """As Stripe: only a page that is open expires. Without a library's key it is the payer who pays
    (`.../pay`)."""
    there = pages[request.match_info["id"]]
    if there["status"] != "open":
        error = {"type": "invalid_request_error", "message": "only open sessions can be expired"}
        return web.json_response({"error": error}, status=400)
    if request.match_info["what"] == "expire":
        there["status"] = "expired"
    else:
        ids = {"payment_intent": f"pi_{there['id']}", "customer": f"cus_{there['id']}"}
        there.update(status="complete", payment_status="paid", **ids)
    return shown(there)


async def main() -> None:
    app.router.add_post("/v1/checkout/sessions", checkout)
    app.router.add_get("/v1/checkout/sessions", all_pages)
    app.router.add_get("/v1/checkout/sessions/{id}", page)
    app.router.add_post("/v1/checkout/sessions/{id}/{what:expire|pay}", end_page)
    app.middlewares.insert(0, once)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
