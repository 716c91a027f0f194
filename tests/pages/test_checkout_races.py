"""Two tabs, a double click, a provider's message in between: a session pays once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from api_kit import Reply
from page_kit import BUNDLE_TERMS, PLAN_TERMS, Redirecting, Shop

from lava_proxy.pages.app import Pages
from lava_proxy.payments.seam import ChargeAnswer, ChargeAsk, CheckoutAnswer, CheckoutAsk
from lava_proxy.store import payments as store
from lava_proxy.store.database import StoreConflict

TABS = 4
FORM = {"terms": PLAN_TERMS, "email": "jane@example.com"}


def tabs(shop: Shop) -> list[Shop]:
    """Browsers that are served by a process each."""
    return [replace(shop, pages=Pages(shop.api.books, shop.provider)) for _ in range(TABS)]


async def _press_all(shop: Shop, secret: str, form: dict[str, str]) -> list[Reply]:
    return await asyncio.gather(*(tab.post(secret, form) for tab in tabs(shop)))


async def test_many_tabs_credit_once(shop: Shop) -> None:
    secret = await shop.session(test=True)
    replies = await _press_all(shop, secret, FORM)
    # 503 only where a lock was not had in half a second; the payer presses again.
    assert {reply.status for reply in replies} <= {303, 503}
    assert await shop.state(secret) == "done"
    (customer,) = (await shop.api.get("customers")).json["data"]
    assert (await shop.api.balance(customer["customer_id"]))["available"] == "20.0000000000"
    assert len(await shop.payments()) == 1
    more = await shop.bundle(customer["customer_id"], test=True)
    await _press_all(shop, more, {"terms": BUNDLE_TERMS})
    assert await shop.state(more) == "done"
    assert (await shop.api.balance(customer["customer_id"]))["available"] == "35.0000000000"
    assert await shop.api.sound()


class Overtaken(Redirecting):
    """Its message that the money is there comes before its answer to us; or we never hear it."""

    def __init__(self, shop: Shop, *, answers: bool) -> None:
        super().__init__()
        self.page = None
        self._shop = shop
        self._answers = answers

    async def charge(self, ask: ChargeAsk) -> ChargeAnswer:
        self.charges.append(ask)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(self._tell(ask.payment_id))
        if not self._answers:
            return ChargeAnswer("declined", message="too late")
        return ChargeAnswer("succeeded", f"pi_{ask.payment_id}")

    async def _tell(self, payment_id: str) -> None:
        try:
            async with self._shop.api.database.transaction() as conn:
                await store.succeeded(
                    conn, payment_id, f"pi_{payment_id}", self._shop.api.books.now()
                )
        except StoreConflict:
            return  # it tells us again; here the other one has

    async def checkout(self, ask: CheckoutAsk) -> CheckoutAnswer:
        self.asks.append(ask)
        return CheckoutAnswer()


async def test_the_providers_message_may_come_first(shop: Shop) -> None:
    for answers in (True, False):
        shop.pays_with(Overtaken(shop, answers=answers))
        secret = await shop.session()
        assert (await shop.post(secret, FORM)).status == 303
        assert await shop.state(secret) == "done"
    customers = (await shop.api.get("customers")).json["data"]
    for customer in customers:
        balance = await shop.api.balance(customer["customer_id"])
        assert balance["available"] == "20.0000000000"
    assert len(customers) == len(await shop.payments()) == 2
    assert await shop.api.sound()


async def test_a_crash_before_the_answer_is_mended_by_the_next_press(shop: Shop) -> None:
    class Crashing(Redirecting):
        async def checkout(self, ask: CheckoutAsk) -> CheckoutAnswer:
            await super().checkout(ask)
            raise RuntimeError("the process is gone")

    shop.pays_with(crashing := Crashing())
    secret = await shop.session()
    reply = await shop.post(secret, FORM)
    assert (reply.status, b"you pay once" in reply.body) == (500, True)
    assert await shop.state(secret) == "open"
    shop.pays_with(provider := Redirecting())
    replies = await _press_all(shop, secret, FORM)
    assert {reply.status for reply in replies} <= {303, 503}
    while await shop.state(secret) == "open":  # nobody had the lock in time: one presses again
        assert (await shop.post(secret, FORM)).status in (303, 503)
    assert await shop.state(secret) == "paying"
    asked = {(ask.reference, ask.owner_id) for ask in (*crashing.asks, *provider.asks)}
    assert len(asked) == 1
