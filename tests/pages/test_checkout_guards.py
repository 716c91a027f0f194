"""Around the checkout page: its headers, its address, whose form it takes, where it is mounted."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from api_kit import call_app
from page_kit import FORM, ORIGIN, PLAN_TERMS, Shop

from lava_proxy.app import LavaProxy
from lava_proxy.core.ids import new_secret


async def test_the_page_is_closed_to_everything_else(shop: Shop) -> None:
    secret = await shop.session()
    reply = await shop.get(secret)
    policy = reply.headers["content-security-policy"]
    nonce = re.search(r"'nonce-([\w-]{22})'", policy)
    assert nonce is not None
    assert policy == (
        f"default-src 'none'; style-src 'nonce-{nonce[1]}'; script-src 'nonce-{nonce[1]}'; "
        f"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors {ORIGIN}"
    )
    assert nonce[1] not in (await shop.get(secret)).body.decode()
    for name, value in (
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-robots-tag", "noindex"),
        ("content-type", "text/html; charset=utf-8"),
    ):
        assert reply.headers[name] == value
    page = await shop.seen(secret)
    assert page.one("body")["data-origin"] == ORIGIN
    assert {tag for tag, _ in page.found}.isdisjoint({"link", "img", "iframe", "object"})
    assert all("src" not in attrs for _, attrs in page.found)
    assert secret not in reply.body.decode()
    evil = "<script>alert(1)</script>\"'&"
    terms = {"name": evil, "period_amount": "1", "billing_interval": "month"}
    plan = await shop.api.made("plans", terms)
    secret = await shop.session(plan_id=plan["plan_id"])
    reply = await shop.get(secret)
    assert evil.encode() not in reply.body
    assert evil in (await shop.seen(secret)).text


async def test_a_secret_that_is_not_there(shop: Shop) -> None:
    secret = await shop.session()
    for wrong in (
        new_secret("css_live_"),
        secret.replace("css_live_", "css_test_"),
        secret[:-1],
        secret + "a",
        "css_live_" + "'" * 43,
        f"{secret}/more",
        "",
    ):
        for end in ("", "/status"):
            reply = await shop.get(wrong, end)
            assert reply.status == 404
            assert reply.headers["cache-control"] == "no-store"
    assert b"This checkout does not exist" in reply.body
    assert (await shop.post(new_secret("css_live_"), {})).status == 404


async def test_only_a_form_of_our_own_page_is_taken(shop: Shop) -> None:
    secret = await shop.session()
    form = {"terms": PLAN_TERMS, "email": "a@example.com"}
    for headers, status in (
        ([("sec-fetch-site", "cross-site")], 403),
        ([("sec-fetch-site", "same-site")], 403),
        ([("content-type", "text/plain")], 415),
        ([("content-type", "application/json")], 415),
        ([("content-encoding", "gzip")], 415),
    ):
        assert (await shop.post(secret, form, *headers)).status == status
    assert (await shop.post(secret, form | {"x": "y" * 9000})).status == 413
    assert (await shop.post(secret, {str(n): "" for n in range(20)})).status == 400
    assert await shop.payments() == []
    for method in ("PUT", "DELETE", "OPTIONS"):
        reply = await shop.get(secret, method=method)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")
    own = ("sec-fetch-site", "same-origin")
    assert (await shop.post(secret, form, own)).status == 303
    assert len(await shop.payments()) == 1


async def test_in_a_mount_and_beside_a_host_apps_own_pages(shop: Shop) -> None:
    secret = await shop.session(test=True)
    mounted = {"root_path": "/ai", "html": True}
    path = f"/ai/embed/checkout/{secret}"
    assert (await call_app(shop.pages, "GET", path, **mounted)).status == 200
    form = urlencode({"terms": PLAN_TERMS, "email": "a@example.com"}).encode()
    pressed = await call_app(shop.pages, "POST", path, headers=[FORM], pieces=[form], **mounted)
    assert (pressed.status, pressed.headers["location"]) == (303, secret)
    proxy = LavaProxy(shop.api.books.settings)
    assert proxy.takes(f"/embed/checkout/{secret}")
    assert not proxy.takes("/embed/video")
