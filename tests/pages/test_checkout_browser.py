"""The checkout page in a real Chromium: in the public package's frame, by keyboard, without
JavaScript. The frame and the messages are as in `@lavapayments/checkout` 0.1.3."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from books_kit import fetch
from page_kit import Redirecting, Shop, secret_of

from lava_proxy.pages.app import HEAD

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

pytestmark = [
    pytest.mark.tool,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]

HOST_PAGE = """<!doctype html><html lang="en"><title>Shop</title><body><script>
window.told = [];
window.open_checkout = (token) => {
  const session = JSON.parse(atob(token));
  const frame = document.createElement("iframe");
  frame.src = `${session.base}embed/checkout/${session.secret}`;
  frame.style = "position:fixed;inset:0;width:100%;height:100%;border:none";
  frame.referrerPolicy = "no-referrer";
  frame.setAttribute("sandbox", "allow-forms allow-scripts allow-same-origin");
  document.body.appendChild(frame);
  window.addEventListener("message", (event) => {
    window.told.push({ ...event.data, from: event.origin });
    if (/success|cancel/.test(event.data.type)) frame.remove();
  });
};
</script></body></html>"""

SOUND = """() => {
  const faults = [];
  const need = (fine, what) => { if (!fine) faults.push(what); };
  need(document.documentElement.lang === "en", "lang");
  need(document.title.trim(), "title");
  need(document.querySelectorAll("h1").length === 1, "one h1");
  need(document.querySelectorAll("main").length === 1, "one main");
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  need(new Set(ids).size === ids.length, "ids are unique");
  for (const input of document.querySelectorAll("input:not([type=hidden])")) {
    need(input.labels.length === 1 && input.labels[0].textContent.trim(), `label of ${input.id}`);
    const told = input.getAttribute("aria-describedby");
    need(!told || document.getElementById(told), `description of ${input.id}`);
  }
  for (const pressed of document.querySelectorAll("a, button")) {
    need(pressed.textContent.trim(), "a name for each control");
    need(pressed.getBoundingClientRect().height >= 44, `size of ${pressed.textContent}`);
  }
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const value = part / 255;
      return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    const clear = colour === "transparent" || / 0\\)$/.test(colour);
    return clear && element.parentElement ? behind(element.parentElement) : colour;
  };
  for (const element of document.querySelectorAll("main *")) {
    if (![...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const pair = [light(getComputedStyle(element).color), light(behind(element))].sort();
    const least = Math.min(...pair), most = Math.max(...pair);
    need((most + 0.05) / (least + 0.05) >= 4.5, `contrast of ${element.textContent.trim()}`);
  }
  return faults;
}"""
"""What a checker of accessibility looks at first: WCAG 1.3.1, 1.4.3, 2.4.2, 2.5.5, 3.1.1, 4.1.2."""


LOADED = """() => document.readyState === "complete"
  || new Promise((done) => window.addEventListener("load", done))"""


@dataclass
class World:
    """A browser, the gateway, and a shop's own page at another origin."""

    browser: Any
    shop: Shop
    gateway: str
    host: str

    async def token(self, *, test: bool = False, **fields: object) -> str:
        """A session over real HTTP, so that the token says where the page is."""
        api = self.shop.test_api if test else self.shop.api
        body = {"checkout_mode": "subscription", "origin_url": f"{self.host}/pricing"}
        body |= {"plan_id": self.shop.plan_id} | fields  # type: ignore[operator]
        async with httpx.AsyncClient(base_url=self.gateway) as client:
            headers = {"authorization": f"Bearer {api.secret}"}
            made = await client.post("/v1/checkout_sessions", json=body, headers=headers)
        assert made.status_code == 200, made.text
        return str(made.json()["checkout_session_token"])

    async def opened(self, token: str, host: str | None = None, **how: Any) -> tuple[Any, Any]:
        """The shop's page with the checkout in its frame: (page, frame)."""
        page = await self.browser.new_page(**how)
        page.complaints = []
        page.on("console", lambda said: said.type == "error" and page.complaints.append(said.text))
        await page.goto(host or self.host)
        await page.evaluate("(token) => window.open_checkout(token)", token)
        return page, page.frame_locator("iframe")


async def told(page: Any, kind: str) -> Mapping[str, str]:
    """The message of a kind, once it is there."""
    found = await page.wait_for_function(
        "(kind) => window.told.find((message) => message.type === kind)", arg=kind, timeout=10_000
    )
    message: dict[str, str] = await found.json_value()
    return message


async def sound(frame: Any, heading: str) -> None:
    """The page with this heading is there, and fit for everybody."""
    await frame.get_by_role("heading", level=1, name=heading).wait_for(timeout=10_000)
    assert await frame.locator("html").evaluate(SOUND) == []


@contextlib.asynccontextmanager
async def _served(app: Any) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(
            uvicorn.Config(app, lifespan="off", log_level="error", access_log=False)
        )
        running = asyncio.create_task(server.serve(sockets=[listening]))
        yield listening.getsockname()[1]
        server.should_exit = True
        await running


@pytest.fixture
async def world(shop: Shop) -> AsyncIterator[World]:
    async def gateway(scope: Any, receive: Any, send: Any) -> None:
        ours = scope["path"].startswith(f"/{HEAD}/")
        await (shop.pages if ours else shop.api.app)(scope, receive, send)

    async def host(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": HOST_PAGE.encode()})

    async with (
        _served(gateway) as port,
        _served(host) as host_port,
        playwright.async_playwright() as p,
    ):
        browser = await p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield World(browser, shop, f"http://127.0.0.1:{port}", f"http://localhost:{host_port}")
        await browser.close()


async def test_by_keyboard_in_the_packages_frame(world: World) -> None:
    token = await world.token(test=True)
    page, frame = await world.opened(token)
    await sound(frame, "Checkout")
    assert not await frame.get_by_text("has changed").count()
    await frame.get_by_label("Email").focus()
    await page.keyboard.type("jane")
    await page.keyboard.press("Enter")
    await frame.get_by_text("Enter an email address such as").wait_for()
    await sound(frame, "Checkout")
    assert await frame.get_by_label("Email").evaluate("(e) => e === document.activeElement")
    await page.keyboard.press("End")
    await page.keyboard.type("@example.com")
    await page.keyboard.press("Tab")
    await page.keyboard.type("Jane Smith")
    await page.keyboard.press("Tab")
    button = frame.get_by_role("button", name="Pay $25.00 (test)")
    assert await button.evaluate("(e) => e === document.activeElement")
    await page.keyboard.press("Space")
    message = await told(page, "lava_checkout_success")
    (customer,) = (await world.shop.api.get("customers")).json["data"]
    assert message["customerId"] == message["connectionId"] == customer["customer_id"]
    assert message["from"] == world.gateway
    ((session_id,),) = await fetch(
        world.shop.api.database, "SELECT checkout_session_id FROM checkout_sessions"
    )
    assert message["checkoutSessionId"] == session_id
    assert await page.evaluate("window.told.length") == 1
    assert all("422" in said for said in page.complaints)  # nothing about policies
    assert (await world.shop.api.balance(customer["customer_id"]))["available"] == "20.0000000000"
    assert customer["contact"]["last_name"] == "Smith"


async def test_the_page_notices_what_happens_elsewhere(world: World) -> None:
    shop = world.shop
    page, frame = await world.opened(await world.token(), color_scheme="dark")
    await sound(frame, "Checkout")
    await frame.get_by_label("Email").fill("jane@example.com")
    await frame.get_by_role("button", name="Order for $25.00").dblclick()
    await sound(frame, "Order received")
    (payment,) = await shop.payments()
    await shop.api.made(f"payments/{payment['payment_id']}/complete", {})
    await told(page, "lava_checkout_success")
    assert page.complaints == []
    shop.pays_with(provider := Redirecting())
    page, frame = await world.opened(await world.token())
    await frame.get_by_label("Email").fill("jane@example.com")
    await frame.get_by_role("button", name="Pay $25.00").click()
    await sound(frame, "Finish your payment")
    assert (await told(page, "lava_checkout_redirect"))["url"] == provider.page
    link = frame.get_by_role("link", name="Continue to payment")
    assert await link.get_attribute("href") == provider.page
    assert page.complaints == []
    await link.click()  # which this frame's sandbox does not follow
    await page.wait_for_function("window.told.length === 2")
    await frame.get_by_role("link", name="Close").click()
    await told(page, "lava_checkout_cancel")


async def test_ends_and_strangers(world: World) -> None:
    token = await world.token()
    page, frame = await world.opened(token)
    link = frame.get_by_role("link", name="Cancel")
    await link.evaluate(LOADED)  # the page's script too: before that the link is a plain one
    pressed = asyncio.ensure_future(link.press("Enter"))  # may hang: the host takes the frame away
    cancelled = await told(page, "lava_checkout_cancel")
    assert set(cancelled) == {"type", "checkoutSessionId", "from"}
    pressed.cancel()
    await fetch(world.shop.api.database, "UPDATE checkout_sessions SET expires_at = now()")
    page, frame = await world.opened(token)
    await sound(frame, "This checkout has expired")
    stranger = world.host.replace("localhost", "127.0.0.1")
    page, frame = await world.opened(token, stranger)
    async with asyncio.timeout(10):
        while not any("frame-ancestors" in said for said in page.complaints):
            await asyncio.sleep(0.05)
    assert await frame.get_by_role("heading", name="This checkout has expired").count() == 0


async def test_without_javascript_in_a_window_of_its_own(world: World) -> None:
    secret = secret_of({"checkout_session_token": await world.token(test=True)})
    context = await world.browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{world.gateway}/embed/checkout/{secret}")
    await page.get_by_label("Email").fill("jane@example.com")
    await page.get_by_role("button", name="Pay $25.00 (test)").click()
    await page.get_by_text("Your plan is active.").wait_for()
    assert page.url.endswith(secret)
    back = page.get_by_role("link", name="Back to Acme")
    assert await back.get_attribute("href") == f"{world.host}/pricing"
    assert await world.shop.state(secret) == "done"
    assert json.dumps(await world.shop.payments()).count("succeeded") == 1
