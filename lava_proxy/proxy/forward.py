"""One request's journey, in order. Each step is a line here and a file of its own elsewhere."""

from __future__ import annotations

import asyncio
import logging

from lava_proxy.core.errors import HTTP_ERROR, LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.core.invariant import InvariantBroken
from lava_proxy.net.upstream import Answer
from lava_proxy.proxy import (
    admission,
    asking,
    by_model,
    fallback,
    finish,
    outbound,
    rewriting,
    uploading,
)
from lava_proxy.proxy.exchange import Event, Interruption, State, Step, interrupted, passed_on
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.intake import ClientGone, Receive, Scope, Send, read_body
from lava_proxy.proxy.opening import encoded, open_tap
from lava_proxy.proxy.refuse import refuse
from lava_proxy.proxy.relay import relay
from lava_proxy.proxy.run import Run, StreamCut
from lava_proxy.proxy.sending import send_cut, send_end, send_rest
from lava_proxy.proxy.tally import read_rest
from lava_proxy.proxy.targeting import target_of
from lava_proxy.proxy.watch import Watcher
from lava_proxy.wire.token import Credential

log = logging.getLogger(__name__)

AUTH_ERRORS = frozenset({401, 403})
COMPRESSED = "The provider's error is compressed; it is withheld, because it may show a key."


def passes_on(path: str) -> bool:
    """Whether a path, of those that begin with no provider's name, leads to a provider."""
    if path.removeprefix("/v1").startswith("/forward"):
        return path.removeprefix("/v1")[8:9] in ("", "/")
    return path in by_model.PATHS or path.startswith("/v1/rewrite/")


async def forward(
    gateway: Gateway, scope: Scope, receive: Receive, send: Send, path: bytes
) -> None:
    """Serve one forwarded call; `path` is the raw path without the mount's prefix."""
    run = Run(new_id("request"), gateway.books.clock.boot_s(), asyncio.current_task())
    gateway.open_runs.runs.add(run)
    watcher: Watcher | None = None
    error: BaseException | None = None
    try:
        while True:
            error = None
            try:
                if watcher is None:
                    headers, body = await _take_in(gateway, run, scope, receive, path)
                    watcher = gateway.watchers.watch(run, receive)
                else:
                    headers, body = await _take_next(gateway, run, scope)
                event = await _exchange(gateway, run, scope, headers, body, send=send)
            except (LavaError, ClientGone, asyncio.CancelledError) as caught:
                error, event = caught, _event_of(run, caught)
                if event is Event.UNREACHABLE and isinstance(caught, LavaError):
                    fallback.prepare(gateway, run, scope)
            except Exception as defect:  # book it, then let the server log it
                await _close_defect(gateway, run, send, defect)
                return
            await _close(gateway, run, event, send, error)
            if run.following is None or watcher is None:
                return
            run = gateway.open_runs.go_on(run, run.following)
            watcher.follow(run)
    finally:
        error = None  # its traceback points at us: no circle for the garbage collector
        gateway.open_runs.ended(run)
        if watcher is not None:
            watcher.stop()
        if run.answer is not None:
            run.answer.close()
        elif run.upload is not None:
            run.upload.close()


async def _take_in(
    gateway: Gateway, run: Run, scope: Scope, receive: Receive, path: bytes
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Everything before the provider: who, where to, what, and with which money."""
    settings = gateway.settings
    await gateway.turnstile.enter()
    head = run.head = gateway.heads.read(scope)
    gateway.books.condition.refuse_if_closed()
    method, query = scope["method"], scope["query_string"]
    named = by_model.begin(gateway, run, method, path, query)
    target = named or rewriting.begin(gateway, run, path, query) or target_of(gateway, path, query)
    run.target = target
    credential = head.credential(target.key)
    run.signed = head.signed
    run.caller = await gateway.callers.resolve(credential)
    run.metadata = head.metadata(target.metadata)
    if named:
        by_model.check_key(gateway, run)
    else:
        rewriting.strip_suffix(gateway, run)
        admission.find_route(gateway, run, method)
        passing = await uploading.take_in(gateway, run, scope, receive, credential)
        if passing is not None:
            return passing
    body = await read_body(
        scope, receive, limit_bytes=settings.body_limit_bytes, timeout_s=settings.body_timeout_s
    )
    if named:
        body = by_model.place(gateway, run, path, body)
        admission.find_route(gateway, run, method)
    elif run.rewrite is not None:
        fallback.begin(gateway, run, scope, credential, body)
    body = rewriting.translate(gateway, run, body)
    admission.read_ask(run, method, head.content_type, body)
    return await _pay(gateway, run, scope, credential, body)


async def _take_next(
    gateway: Gateway, run: Run, scope: Scope
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The same for the next target of a call whose provider failed: the rest is known."""
    if run.rewrite is None or run.rewrite.credential is None:
        raise LavaError("internal_error")
    return await _pay(gateway, run, scope, run.rewrite.credential, run.rewrite.body)


async def _pay(
    gateway: Gateway, run: Run, scope: Scope, credential: Credential, body: bytes
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """With which money; then the request as it goes out."""
    await admission.check_objects(gateway, run)
    key = await outbound.provider_key(gateway, run)
    cap = await admission.admit(gateway, run, scope["method"], len(body))
    run.exchange.on(Event.ADMITTED)
    body = outbound.body(gateway, run, body, cap)
    return outbound.headers(gateway, run, scope["method"], credential, key, body), body


async def _exchange(
    gateway: Gateway,
    run: Run,
    scope: Scope,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    *,
    send: Send,
) -> Event:
    """The provider: send, wait for the head, pass the body on."""
    clock = gateway.books.clock
    gateway.books.journal.sent(run.seq)
    run.exchange.on(Event.SENDING)
    asked_s = clock.boot_s()
    if run.upload is not None:
        answer = await uploading.finish(run.upload, body)
    else:
        url = outbound.url(gateway, run)
        answer = await gateway.upstreams.send(scope["method"], url, headers, body)
        answer = await asking.again(gateway, run, scope["method"], headers, answer)
    run.answer = answer
    run.waited_s += clock.boot_s() - asked_s
    failed = answer.status >= HTTP_ERROR
    run.exchange.on(Event.ANSWERED_ERROR if failed else Event.ANSWERED)
    if failed:
        _look_at_error(gateway, run, answer, scope)
        if run.following is not None:
            return Event.ENDED
    open_tap(gateway, run, answer, asked_usage=run.asked_usage)
    if run.left_s is not None:
        gateway.open_runs.bound(run)
    ended = await relay(gateway, run, answer, send)
    return passed_on(run.exchange.state, ended, left=run.left_s is not None)


def _look_at_error(gateway: Gateway, run: Run, answer: Answer, scope: Scope) -> None:
    """A provider's error: another one may do better; if not, the key that it may show is hidden."""
    if run.managed and answer.status in AUTH_ERRORS:
        gateway.metrics.anomaly("upstream_auth")
        if run.provider is not None:
            gateway.keys.refused(run.provider)
        raise LavaError("upstream_auth_failed")
    if fallback.failed(answer.status):
        fallback.prepare(gateway, run, scope)
    run.conceal()
    if run.mask is not None and run.following is None and encoded(answer):
        raise LavaError("upstream_protocol_error", COMPRESSED)


def _event_of(run: Run, error: BaseException) -> Event:
    """Which event of the table an interruption is."""
    state, why = run.exchange.state, _why(run, error)
    if why == "gone" and state is State.BODY:
        read_rest(run)
    reader = run.tap.reader if run.tap else None
    whole = reader is not None and reader.ended and reader.final
    return interrupted(state, why, whole=whole)


def _why(run: Run, error: BaseException) -> Interruption:
    if isinstance(error, LavaError):
        return "fault"
    stop, run.stop = run.stop, None
    if isinstance(error, ClientGone):
        return "gone"
    if stop is None:
        return "stopped"  # the server cancels us: it is shutting down
    if run.task is not None:
        run.task.uncancel()
    return stop


async def _close_defect(gateway: Gateway, run: Run, send: Send, defect: Exception) -> None:
    log.exception("call %s failed", run.request_id)
    if run.exchange.state is not State.CLOSED:
        await _close(gateway, run, Event.STOPPED, send, LavaError("internal_error"))
    elif run.response_started:
        raise StreamCut from defect


async def _close(
    gateway: Gateway, run: Run, event: Event, send: Send, error: BaseException | None
) -> None:
    """Book the call, then send what is left to send: never the other way round."""
    step = _step(run, event)
    row = finish.close(gateway, run, step)
    if run.answer is not None:
        run.answer.close()  # before we wait for the client: a provider that is not read goes on
    finish.observe(gateway, run, row, error)
    if run.following is not None:
        return  # the client hears of that one
    if event is Event.REFUSED and gateway.settings.record_refusals:
        finish.record_refusal(gateway, run, error)
    if event in (Event.CLIENT_GONE, Event.CLIENT_GONE_DONE, Event.DRAINED):
        return
    if event is Event.STOPPED and isinstance(error, asyncio.CancelledError):
        raise error
    run.sending_since_s = gateway.books.clock.boot_s()
    try:
        await _last_words(run, event, send, error)
    except OSError:
        return  # the client is gone, and the call is booked
    except asyncio.CancelledError:
        if run.stop is None:
            raise
        raise StreamCut from None


def _step(run: Run, event: Event) -> Step:
    """What the table says. Where it says nothing, which is a defect, the call is closed like one
    that is stopped: neither its hold nor its journal stays open."""
    try:
        return run.exchange.on(event)
    except InvariantBroken:
        log.exception("call %s", run.request_id)
        run.flags.add(finish.METERING_FAULT)
        return run.exchange.on(Event.STOPPED)


async def _last_words(run: Run, event: Event, send: Send, error: BaseException | None) -> None:
    """What the client gets once the books are closed."""
    if not run.response_started:
        late = "request_timeout" if event is Event.REFUSED else "upstream_timeout"
        await refuse(send, run, error if isinstance(error, LavaError) else LavaError(late))
    elif event is Event.CUT:
        await send_cut(run, send)
    elif event in (Event.ENDED, Event.ENDED_FAILED):
        await send_end(run, send)
    else:
        await send_rest(run, send)
        raise StreamCut
