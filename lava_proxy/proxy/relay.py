"""Passing the answer on: count, journal and send in one turn of the event loop.

For each piece that arrives: cut it into events, read them, compare with the hold, write PROGRESS,
send. Between reading and sending there is no ``await``, so nothing reaches the client that is not
in the journal. The upstream is read only after the client took the last piece: that is the whole
back-pressure.

The last piece is known before it is sent (`Answer.at_end`), so SETTLE is written before the
client can see the end.
"""

from __future__ import annotations

from lava_adapters.contract import Framing
from lava_proxy.net.upstream import Answer, UpstreamEnded
from lava_proxy.proxy.exchange import Event, State
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.intake import ClientGone, Send
from lava_proxy.proxy.run import Run, StreamCut
from lava_proxy.proxy.running import Running
from lava_proxy.rules.gauge import FREE
from lava_proxy.wire.event import Event as Piece
from lava_proxy.wire.headers import client_headers
from lava_proxy.wire.sieve import sieves
from lava_proxy.wire.tap import Tap

_EMPTY_BODIES = frozenset({204, 304})
_WHOLE = frozenset({Framing.JSON, Framing.OPAQUE})

HTTP_ERROR = 400


def open_tap(gateway: Gateway, run: Run, answer: Answer, *, asked_usage: bool) -> None:
    """Set up the counting of an answer, by its head."""
    adapter, ask, provider, call = run.adapter, run.ask, run.provider, run.call
    if adapter is None or ask is None or provider is None or call is None:
        raise TypeError("a call is answered after it was admitted")
    framing = adapter.framing(ask, answer.content_type)
    if _encoded(answer):
        run.flags.add("encoded_answer")
        framing = Framing.OPAQUE
    reader = adapter.reader(ask)
    if reader.reads_headers:
        reader.headers(
            answer.status,
            {n.decode("latin-1"): v.decode("latin-1") for n, v in answer.headers},
        )
    by_character = call.meter is not None and call.meter.tariff.unit == "characters_1m"
    count = len if by_character else gateway.count
    reader.read_text = by_character
    tap = Tap(framing, reader, sieved=sieves(ask, injected=asked_usage), count=count)
    running = Running(
        tap,
        ask,
        inputs=call.input_tokens,
        hold=run.hold,
        gauge=run.gauge or FREE,
        profile=gateway.profiles[provider.id],
        learned_e3=gateway.books.learned.factor_e3(provider.id, ask.model or ""),
        hidden_rate=provider.hidden_tokens_per_s if ask.stream and provider.hides(ask.model) else 0,
        slice_tokens=gateway.settings.output_slice_tokens,
        cuttable=ask.stream and not ask.background and answer.status < HTTP_ERROR,
        token_factor_e3=None if by_character or count is None else provider.token_factor_e3,
    )
    tap.gate = running.gate
    run.tap, run.running, run.framing = tap, running, framing


async def relay(gateway: Gateway, run: Run, answer: Answer, send: Send) -> Event:
    """Send the answer on until it ends; returns how it ended. The call is not booked yet when the
    last piece is still to be sent: `finish.close` does it first."""
    tap, running = run.tap, run.running
    if tap is None or running is None:
        raise TypeError("the tap is opened before the relay")
    boot_s = gateway.books.clock.boot_s
    journal = gateway.books.journal
    await _start(run, answer, send)
    body = run.exchange.state is State.BODY
    journaled = -1
    while True:
        asked_s = boot_s()
        try:
            piece = await answer.read()
        except UpstreamEnded as ended:
            run.flags.add(f"upstream_{ended.reason}")
            return Event.BROKE_OFF
        now_s = boot_s()
        if body and run.hold is not None and not run.hold.covered:
            return Event.CUT  # we were stopped for so long that somebody else has the money
        waited_s = now_s - asked_s
        run.waited_s += waited_s
        if waited_s > 1.0 and body:
            running.silence(int(waited_s * 1000))
        last = not piece or answer.at_end
        pieces = tap.feed(piece) if piece else []
        if last:
            pieces += tap.finish()
        while True:
            if last and tap.held is None:
                break  # SETTLE comes before these bytes go out
            if body and running.outputs != journaled:
                journaled = running.outputs
                journal.progress(
                    run.seq,
                    running.inputs,
                    journaled,
                    running.input_characters,
                    running.characters,
                )
            if tap.held is None:
                break
            if pieces:
                await _send_pieces(run, pieces, send, now_s)
            if not await _afford(gateway, run):
                return Event.CUT
            pieces = tap.resume()
        if run.first_byte_s is None and piece:
            run.first_byte_s = now_s
        if last:
            run.last_pieces = pieces
            return _ended(run, answer)
        if pieces:
            await _send_pieces(run, pieces, send, now_s)


async def send_end(run: Run, send: Send) -> None:
    """The last bytes, after the books are closed."""
    body = _bytes_of(run, run.last_pieces)
    run.last_pieces = []
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_rest(run: Run, send: Send) -> None:
    """What came last of an answer that is not whole: the end of the stream does not follow."""
    pieces, run.last_pieces = run.last_pieces, []
    if pieces:
        body = _bytes_of(run, pieces)
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def send_cut(run: Run, send: Send) -> None:
    """End a stream whose money ended: the dialect's error event, then no final chunk."""
    adapter, tap, framing = run.adapter, run.tap, run.framing
    if adapter is not None and tap is not None and framing is not None and not tap.mid_event:
        message = "budget_exhausted: the credit for this request is used up"
        facts: dict[str, object] = {"request_id": run.request_id}
        if run.running is not None:
            facts["usage"] = {
                "input_tokens": run.running.inputs,
                "output_tokens": run.running.outputs,
                "estimated": True,
            }
        event = adapter.cut(framing, message, facts, tap.events)
        if event:
            await send({"type": "http.response.body", "body": event, "more_body": True})
    raise StreamCut


async def _start(run: Run, answer: Answer, send: Send) -> None:
    event_stream = answer.content_type.startswith("text/event-stream")
    headers = client_headers(
        answer.headers,
        run.response_prefixes,
        secrets=run.upstream_secrets,
        keep_length=run.framing in _WHOLE,
        event_stream=event_stream,
    )
    headers.append((b"x-lava-request-id", run.request_id.encode()))
    run.response_started = True
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    except OSError:
        raise ClientGone from None


async def _send_pieces(run: Run, pieces: list[Piece], send: Send, now_s: float) -> None:
    body = _bytes_of(run, pieces)
    run.sending_since_s = now_s
    try:
        await send({"type": "http.response.body", "body": body, "more_body": True})
    except OSError:  # how servers may say that nobody listens any more
        raise ClientGone from None
    run.sending_since_s = None


def _bytes_of(run: Run, pieces: list[Piece]) -> bytes:
    body = pieces[0].raw if len(pieces) == 1 else b"".join([piece.raw for piece in pieces])
    if run.masked:
        for secret in run.upstream_secrets:
            body = body.replace(secret, b"*" * len(secret))
    return body


async def _afford(gateway: Gateway, run: Run) -> bool:
    """Wait a moment for more credit; the upstream is not read meanwhile."""
    running, hold = run.running, run.hold
    if running is None or hold is None:
        return False
    least_e10, want_e10 = running.shortfall_e10()
    if await hold.extend_soon(least_e10, want_e10, gateway.settings.extension_wait_s):
        return running.gate()
    return False


def _ended(run: Run, answer: Answer) -> Event:
    tap = run.tap
    if tap is None or run.exchange.state is State.ERROR:
        return Event.ENDED
    reader = tap.reader
    if reader.failed:
        return Event.ENDED_FAILED
    if not answer.delimited and not reader.ended and run.framing is not Framing.OPAQUE:
        return Event.ENDED_SHORT
    return Event.ENDED


def _encoded(answer: Answer) -> bool:
    if answer.status in _EMPTY_BODIES:
        return False
    return any(
        name == b"content-encoding" and value.strip().lower() not in (b"", b"identity")
        for name, value in answer.headers
    )
