"""localstripe as a process, and what it lacks: a port of its choice, Checkout pages, no disk.

``python stripe_stand_in.py`` prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import json

from aiohttp import web
from localstripe import resources
from localstripe.server import app, get_post_data

resources.Store.dump_to_disk = lambda self: None  # a fixed file in /tmp, shared by every run


async def checkout(request: web.Request) -> web.Response:
    """Enough of POST /v1/checkout/sessions: it keeps what was asked and makes an address."""
    asked = await get_post_data(request)
    made = {"id": "cs_test_1", "object": "checkout.session", "url": "https://stripe.test/c/1"}
    return web.Response(text=json.dumps({**made, "asked": asked}), content_type="application/json")


async def main() -> None:
    app.router.add_post("/v1/checkout/sessions", checkout)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
