"""Saying no, in the words that the caller's SDK understands."""

from __future__ import annotations

from lava_proxy.core.errors import LavaError
from lava_proxy.proxy.intake import Receive, Scope, Send
from lava_proxy.proxy.run import Run
from lava_proxy.wire.headers import header_value
from lava_proxy.wire.problem import envelope

REPEATED = frozenset({408, 429, 503})
RATE_LIMITED = 429
"""Without a `Retry-After` it is a limit that time does not lift."""
RETRY_AFTER_MOST_S = 10
"""SDKs would wait a whole minute without a word; for longer than this their callers decide."""


async def refuse(send: Send, run: Run, error: LavaError) -> None:
    """Answer with an error: in the adapter's dialect once it is known, else in our envelope."""
    headers = [
        (b"content-type", b"application/json"),
        (b"x-lava-request-id", run.request_id.encode()),
        (b"x-should-retry", b"true" if _may_be_repeated(error) else b"false"),
    ]
    headers += [(name.lower().encode(), header_value(v)) for name, v in error.headers.items()]
    body = _body(run, error)
    headers.append((b"content-length", str(len(body)).encode()))
    run.response_started = True
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _may_be_repeated(error: LavaError) -> bool:
    """What an SDK should do by itself: wait and try again, where that helps soon."""
    wait = error.headers.get("retry-after")
    if error.status not in REPEATED or (error.status == RATE_LIMITED and wait is None):
        return False
    return wait is None or int(wait) <= RETRY_AFTER_MOST_S


async def refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """426 to a WebSocket, in words that the server knows."""
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})  # servers make it a 403
        return
    error = LavaError("upgrade_not_supported")
    headers = [(b"content-type", b"application/json")]
    await send(
        {"type": "websocket.http.response.start", "status": error.status, "headers": headers}
    )
    await send({"type": "websocket.http.response.body", "body": envelope(error)})


def _body(run: Run, error: LavaError) -> bytes:
    adapter = run.rewrite.adapter if run.rewrite is not None else run.adapter
    if adapter is None:
        return envelope(error, run.request_id)
    facts: dict[str, object] = {"request_id": run.request_id}
    if error.details is not None:
        facts["details"] = error.details
    return adapter.refusal(run.ask, error.status, error.code, error.message, facts)
