"""The gateway around a host app: its own paths are served here, all others by the host."""

from __future__ import annotations

from lava_proxy.app import ASGIApp, LavaProxy
from lava_proxy.core.intake import Message, Receive, Scope, Send
from lava_proxy.core.settings import Settings
from lava_proxy.wire.asgi import path_of


class LavaMiddleware:
    """Wraps a host app: paths of the gateway are served here, everything else goes on untouched.
    It sees the host's lifespan pass and starts itself with it."""

    def __init__(self, app: ASGIApp, settings: Settings | None = None) -> None:
        self.app = app
        self.proxy = LavaProxy(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._pass_lifespan(scope, receive, send)
        elif scope["type"] in ("http", "websocket") and self.proxy.takes(path_of(scope)):
            await self.proxy(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _pass_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start before the host's start-up completes, stop after its shutdown completes."""
        manager = self.proxy.lifespan()

        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await manager.__aenter__()
            elif message["type"] == "lifespan.shutdown.complete":
                await manager.__aexit__(None, None, None)
            await send(message)

        await self.app(scope, receive, watched)
