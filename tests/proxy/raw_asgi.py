"""Driving the ASGI app without a server, message by message and await by await."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import Any


class Raw:
    """One ASGI call without a server: `inbox` is what the app receives, `sent` what it sends."""

    def __init__(self, app: Any, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        plain, _, query = path.partition("?")
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": plain,
            "raw_path": plain.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"gateway"), (b"content-type", b"application/json")]
            + [(n.lower().encode(), v.encode()) for n, v in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self._app = app
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.sent: list[dict[str, Any]] = []
        self.changed = asyncio.Event()
        self.open = asyncio.Event()
        """Cleared: the client takes nothing."""
        self.open.set()
        self.broken = False
        self.waited = 0
        """How often the app waited for something, in `run_until`."""

    async def run(self) -> None:
        await self._app(self.scope, self.inbox.get, self._send)

    async def run_until(self, suspension: int, act: Callable[[], object]) -> None:
        """As `run`, but `act` happens when the app waits for the `suspension`-th time."""
        await _interrupted(self, self.run(), suspension, act)

    async def _send(self, message: Any) -> None:
        await self.open.wait()
        if self.broken:
            raise OSError("the client is gone")
        self.sent.append(dict(message))
        self.changed.set()

    def leave(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"]) if self.sent else 0

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent[1:])

    @property
    def finished(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)


@types.coroutine
def _interrupted(
    raw: Raw, call: Coroutine[Any, Any, None], suspension: int, act: Callable[[], object]
) -> Generator[Any, Any, None]:
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            waiting = call.send(value) if error is None else call.throw(error)
        except StopIteration:
            return
        raw.waited += 1
        if raw.waited == suspension:
            act()
        value = error = None
        try:
            value = yield waiting
        except BaseException as thrown:
            error = thrown
