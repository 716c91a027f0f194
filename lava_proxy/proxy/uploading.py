"""Uploads: recordings, pictures and files whose bodies pass through instead of being kept.

The body is read while it passes, and its end is kept back (`contract.Intake`). So until the end:

* the provider has no whole request and can charge for nothing; nothing is held or journaled, and an
  upload that stalls, breaks off or turns out wrong costs nothing;
* the client is read only as the provider takes.

At the end all that a bill needs is known, wherever in the form it stood, and the call is admitted
as any other is: hold, HOLD, SENT, and then the last bytes. Who could not pay by what was known
after the first bytes is refused before the provider is connected. A provider that answers before it
has everything refuses; its answer goes to the client. Nothing is sent twice: there is no fallback.

A body that does not say how long it is goes on the same way, in chunks, up to the same limit. A
body that is one JSON document is never passed on like this: what decides the bill may stand at its
end, or stand there twice, and the hold may have to change it (a cap, the wish for usage).
"""

from __future__ import annotations

import asyncio
from collections import deque

from lava_adapters.contract import AskError, Intake, PassesOn
from lava_proxy.core.errors import HTTP_ERROR, LavaError
from lava_proxy.core.intake import stated_bytes, too_large
from lava_proxy.net.upstream import Answer, Upload
from lava_proxy.proxy import admission, outbound
from lava_proxy.proxy.exchange import Event
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.intake import ClientGone, Receive, Scope
from lava_proxy.proxy.run import Run
from lava_proxy.wire.token import Credential

FROM_BYTES = 256 * 1024
"""Bodies that say that they are shorter are kept whole."""
LOOK_BYTES = 64 * 1024
"""Read before the provider is connected."""
SLACK_BYTES = 4 * 1024
"""Of a body that is one file: what may stand behind it."""

_BODY = "http.request"
EARLY = "the provider answered before it had the whole request"


async def take_in(
    gateway: Gateway, run: Run, scope: Scope, receive: Receive, credential: Credential
) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
    """Pass an upload on, all but its end, and admit the call; answers its headers and its end. None
    where the body must be read whole."""
    size = stated_bytes(scope["headers"])
    intake = _intake(run, scope) if size is None or size > FROM_BYTES else None
    if intake is None:
        return None
    settings, runs = gateway.settings, gateway.open_runs
    if size is not None and size > settings.upload_limit_bytes:
        raise too_large(settings.upload_limit_bytes)
    if runs.uploads >= settings.uploads_max:
        raise LavaError("unavailable", "too many uploads at once", headers={"retry-after": "1"})
    runs.uploads += 1
    began_s = gateway.books.clock.boot_s()
    try:
        return await _pass_on(
            gateway, run, scope, _Client(gateway, receive, size), intake, credential
        )
    except AskError as error:
        raise admission.unreadable(error) from None
    finally:
        runs.uploads -= 1
        run.waited_s += gateway.books.clock.boot_s() - began_s


async def finish(upload: Upload, rest: bytes) -> Answer:
    """Give the provider the end of the request, and wait for its answer. Raises `LavaError`."""
    early = upload.answered
    answer = await upload.finish(rest)
    if early and answer.status < HTTP_ERROR:
        answer.close()
        raise LavaError("upstream_protocol_error", EARLY)
    return answer


class _Client:
    """Who sends the body: piece by piece, in time, and not too much."""

    __slots__ = (
        "_clock_s", "_least_bytes_s", "_left_s", "_limit_bytes", "_receive", "ended", "size",
        "taken",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, receive: Receive, size: int | None) -> None:
        self._receive = receive
        self.size = size
        """None as long as nobody knows."""
        self._limit_bytes = gateway.settings.upload_limit_bytes
        self._least_bytes_s = gateway.settings.upload_least_bytes_s
        self._left_s = gateway.settings.body_timeout_s
        """How long we still wait for it; time in which it is not asked for more is not its own."""
        self._clock_s = asyncio.get_running_loop().time
        self.taken = 0
        self.ended = False

    @property
    def left(self) -> int:
        """What is still to come for certain."""
        return 0 if self.size is None else self.size - self.taken

    async def piece(self) -> bytes:
        """The next bytes. Raises `ClientGone`, 408 when they take too long, 413."""
        began_s = self._clock_s()
        try:
            async with asyncio.timeout(self._left_s):
                message = await self._receive()
        except TimeoutError:
            raise LavaError(
                "request_timeout", "the body comes too slowly", headers={"connection": "close"}
            ) from None
        piece: bytes = message.get("body", b"")
        self.taken += len(piece)
        self._left_s += len(piece) / self._least_bytes_s - (self._clock_s() - began_s)
        self._count(over=not message.get("more_body", False), gone=message["type"] != _BODY)
        return piece

    def _count(self, *, over: bool, gone: bool) -> None:
        if gone or (over and self.left > 0):
            raise ClientGone
        if self.left < 0:
            raise LavaError("invalid_request", "the body is longer than its Content-Length")
        if self.taken > self._limit_bytes:
            raise too_large(self._limit_bytes)
        if over:
            self.size = self.taken
        self.ended = self.taken == self.size


async def _pass_on(
    gateway: Gateway,
    run: Run,
    scope: Scope,
    client: _Client,
    intake: Intake,
    credential: Credential,
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    method = scope["method"]
    first: deque[bytes] = deque()
    while not client.ended and client.taken < LOOK_BYTES:
        first.append(intake.feed(await client.piece()))
    _ask(run, intake, max(0, client.left - SLACK_BYTES))
    await admission.probe(gateway, run, method, client.size or client.taken)
    key = await outbound.provider_key(gateway, run)
    headers = outbound.headers(gateway, run, method, credential, key, b"")
    url = outbound.url(gateway, run)
    upload = run.upload = await gateway.upstreams.upload(method, url, headers, client.size)
    while first and await upload.write(first.popleft()):
        pass
    if await _pump(client, intake, upload):
        rest = intake.finish()
        _ask(run, intake, 0)
        await admission.check_objects(gateway, run)
        await admission.admit(gateway, run, method, client.taken)
    else:
        rest = b""
        admission.admit_refused(gateway, run, method)
    run.exchange.on(Event.ADMITTED)
    return headers, rest


async def _pump(client: _Client, intake: Intake, upload: Upload) -> bool:
    """Pass on what the client sends, as fast as the provider takes it. False when the provider
    wants no more."""
    while not client.ended and not upload.answered:
        await upload.write(intake.feed(await client.piece()))
    return not upload.answered


def _intake(run: Run, scope: Scope) -> Intake | None:
    adapter: object = run.adapter
    provider, target = run.provider, run.target
    if provider is None or target is None or not isinstance(adapter, PassesOn):
        return None
    if run.rewrite is not None or run.signed is not None or provider.aws_service:
        return None  # translated or signed is a body as a whole
    if scope["method"] != "POST":
        return None
    try:
        return adapter.intake(scope["method"], target.path, target.query, run.head.content_type)
    except AskError as error:
        raise admission.unreadable(error) from None


def _ask(run: Run, intake: Intake, left: int) -> None:
    """What the request wants, as far as it has been read."""
    if run.provider is None or run.route is None:
        raise LavaError("internal_error")
    run.ask = run.provider.named(intake.ask(left), run.route, run.params)
