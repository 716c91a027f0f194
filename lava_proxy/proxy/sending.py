"""What goes to the client: the answer's head, its pieces, and its last words."""

from __future__ import annotations

from collections.abc import Callable

from lava_adapters.contract import Framing
from lava_proxy.net.upstream import Answer
from lava_proxy.proxy.intake import ClientGone, Send
from lava_proxy.proxy.run import Run, StreamCut
from lava_proxy.wire.event import Event as Piece
from lava_proxy.wire.headers import client_headers, header_value


async def send_head(run: Run, answer: Answer, send: Send) -> None:
    """Status and headers; the call's id among them."""
    event_stream = answer.content_type.startswith("text/event-stream")
    headers = client_headers(
        answer.headers,
        run.response_prefixes,
        secrets=run.upstream_secrets,
        keep_length=run.framing is Framing.JSON or run.framing is Framing.OPAQUE,
        event_stream=event_stream,
    )
    if run.rewrite is not None:
        headers = run.rewrite.head(answer, headers)
        headers.append((b"x-lava-served-by", _served_by(run)))
    headers.append((b"x-lava-request-id", run.request_id.encode()))
    run.response_started = True
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    except OSError:
        raise ClientGone from None


def _served_by(run: Run) -> bytes:
    """``provider/model``, as asked for."""
    provider = run.provider.id if run.provider else ""
    model = run.ask.model if run.ask else None
    return header_value(f"{provider}/{model or ''}")


def body_of(run: Run, pieces: list[Piece]) -> bytes:
    """A part of the body as it goes to the client."""
    plain = len(pieces) == 1 and run.mask is None and run.rewrite is None
    return pieces[0].raw if plain else _bytes_of(run, pieces)


def message(body: bytes) -> dict[str, object]:
    """The same as ASGI has it."""
    return {"type": "http.response.body", "body": body, "more_body": True}


def _bytes_of(run: Run, pieces: list[Piece], *, last: bool = False) -> bytes:
    """The client's bytes for some pieces; with `last` also what waited for the end. A key is hidden
    in what goes out, so whatever translation made of it."""
    body = b"".join([piece.raw for piece in pieces])
    if run.rewrite is not None:
        body = run.rewrite.feed(body)
        if last:
            body += run.rewrite.finish()
        if run.rewrite.broken:
            run.conceal()
    if run.mask is not None:
        body = run.mask.last(body) if last else run.mask.feed(body)
    return body


async def send_end(run: Run, send: Send) -> None:
    """The last bytes, after the books are closed."""
    pieces, run.last_pieces = run.last_pieces, []
    body = _bytes_of(run, pieces, last=True)
    broken = run.rewrite is not None and run.rewrite.broken
    await send({"type": "http.response.body", "body": body, "more_body": broken})
    if broken:
        raise StreamCut


async def send_rest(run: Run, send: Send) -> None:
    """What came last of an answer that is not whole: the end of the stream does not follow."""
    pieces, run.last_pieces = run.last_pieces, []
    if pieces or run.mask is not None or run.rewrite is not None:
        body = _bytes_of(run, pieces)
        if run.rewrite is not None:
            body += run.rewrite.fail()
        if run.mask is not None:
            body += run.mask.finish()
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def send_cut(run: Run, send: Send) -> None:
    """End a stream whose money ended: the dialect's error event, then no final chunk."""
    adapter, tap, framing = run.adapter, run.tap, run.framing
    events, whole = (tap.events, not tap.mid_event) if tap is not None else (0, False)
    if run.rewrite is not None:
        adapter, translation = run.rewrite.adapter, run.rewrite.translation
        if translation is not None:
            framing, events, whole = translation.framing, translation.events, True
    if adapter is not None and framing is not None and whole:
        message = "budget_exhausted: the credit for this request is used up"
        facts: dict[str, object] = {"request_id": run.request_id}
        if run.running is not None:
            facts["usage"] = {
                "input_tokens": run.running.inputs,
                "output_tokens": run.running.outputs,
                "estimated": True,
            }
        event = adapter.cut(framing, message, facts, events)
        if event:
            await send({"type": "http.response.body", "body": event, "more_body": True})
    raise StreamCut


def passes_on(send: Send) -> Callable[[bytes], bool] | None:
    """Our own server's way to take a piece without a task (`cli/cycle.py`)."""
    return getattr(getattr(send, "__self__", None), "pass_on", None)


def returns_at_once(send: Send) -> bool:
    """Whether `send` may be begun outside a task: ours and uvicorn's own, which await nothing but a
    slow client. Another server's, or a middleware's around it, may need the task that it runs in.
    """
    owner = type(getattr(send, "__self__", None))
    return hasattr(owner, "pass_on") or owner.__module__.startswith("uvicorn.protocols.http.")
