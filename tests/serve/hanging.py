"""The real application with a path that keeps its event loop from turning."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lava_proxy.app import LavaProxy

Message = MutableMapping[str, Any]


class Proxy(LavaProxy):
    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/hang/"):
            time.sleep(float(scope["path"].removeprefix("/hang/")))
        elif scope["type"] == "http" and scope["path"] == "/spin":
            re.match(r"(a+)+$", "a" * 60 + "b")  # for years, and no other thread runs meanwhile
        await super().__call__(scope, receive, send)
