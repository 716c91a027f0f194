"""A receiver of webhooks, and a shop that has some."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from books_kit import NOW, Shop, fetch

from lava_proxy.core.ids import new_id, new_webhook_secret
from lava_proxy.core.vault import open_vault
from lava_proxy.store import outbox, webhooks
from lava_proxy.store.webhooks import WebhookRow
from lava_proxy.workers.webhooks import Sender


@dataclass
class Receiver:
    """Answers what it is told to, in turn; then 200."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    hang: bool = False
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (line.partition(": ") for line in head[1:] if line)
                headers = {name.lower(): value for name, _, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
                self.got.append((headers, body))
                if self.hang:
                    await asyncio.sleep(30)
                status = self.answers.pop(0) if self.answers else 200
                location = "location: http://127.0.0.1:1/\r\n" if status == 302 else ""
                text = f"HTTP/1.1 {status} X\r\n{location}content-length: 2\r\n\r\nok"
                writer.write(text.encode())
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


@asynccontextmanager
async def receiving(**how: Any) -> AsyncIterator[Receiver]:
    made = Receiver(**how)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


async def hook(shop: Shop, sender: Sender, url: str, *events: str) -> tuple[str, str]:
    """A webhook of the shop: its id and secret."""
    webhook_id, secret = new_id("webhook"), new_webhook_secret()
    sealed = open_vault(sender._settings).seal(secret, webhook_id)
    wanted = WebhookRow(webhook_id, "h", url, events or outbox.USUAL, NOW)
    async with shop.database.transaction() as conn:
        assert await webhooks.create(conn, shop.merchant_id, wanted, sealed) is not None
    return webhook_id, secret


async def tell(shop: Shop, customer: str, name: str = outbox.BALANCE) -> None:
    async with shop.database.transaction() as conn:
        await outbox.emit(conn, [outbox.Event(shop.merchant_id, name, customer)], NOW)


async def statuses(shop: Shop) -> list[tuple[object, ...]]:
    return await fetch(
        shop.database, "SELECT status, tries, last_error FROM webhook_deliveries ORDER BY event_id"
    )
