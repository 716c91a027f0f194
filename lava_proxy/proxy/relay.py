"""Passing the answer on: count, journal and send in one turn of the event loop.

For each piece that arrives: cut it into events, read them, compare with the hold, write PROGRESS,
send. Between reading and sending there is no ``await``, so nothing reaches the client that is not
in the journal. The upstream is read only after the client took the last piece: that is the whole
back-pressure.

The last piece is known before it is sent (`Answer.at_end`), so SETTLE is written before the
client can see the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import cast

from lava_adapters.contract import Framing
from lava_proxy.core.begun import rest_of
from lava_proxy.net.upstream import Answer, UpstreamEnded
from lava_proxy.proxy.exchange import Event, State
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.intake import ClientGone, Send
from lava_proxy.proxy.run import Run
from lava_proxy.proxy.sending import body_of, message, passes_on, returns_at_once, send_head
from lava_proxy.wire.event import Event as Piece

Begin = Callable[[dict[str, object]], Coroutine[object, None, None]]


async def relay(gateway: Gateway, run: Run, answer: Answer, send: Send) -> Event:
    """Send the answer on until it ends; returns how it ended. The call is not booked yet when the
    last piece is still to be sent: `finish.close` does it first."""
    try:
        await send_head(run, answer, send)
    except ClientGone:
        if not gateway.open_runs.left(run, gateway.books.clock.boot_s()):
            raise
    run.waiting = relaying = _Relay(gateway, run, answer, send)
    return await relaying.run()


class _Relay:
    """Two ways to the client with the same steps: read and count, write PROGRESS, send.

    The fast way is `push`: it runs in the turn of the event loop that brings a piece, so no future
    and no task is woken per chunk. It needs a server whose `send` returns at once unless the client
    is slow (`returns_at_once`). Whatever is not plain sailing comes back to `run`, in the task.
    """

    __slots__ = (
        "_answer",
        "_begin",
        "_body",
        "_boot_s",
        "_gateway",
        "_holds",
        "_journal",
        "_journaled",
        "_lapsed",
        "_left",
        "_pass_on",
        "_plain",
        "_run",
        "_running",
        "_send",
        "_tap",
        "_trouble",
        "since_s",
    )

    def __init__(self, gateway: Gateway, run: Run, answer: Answer, send: Send) -> None:
        if run.tap is None or run.running is None:
            raise TypeError("the tap is opened before the relay")
        self._gateway = gateway
        self._run = run
        self._answer = answer
        self._send = send
        self._begin = cast("Begin", send)
        """The same, for `push`: ours and uvicorn's are coroutine functions."""
        self._pass_on = passes_on(send)
        self._tap = run.tap
        self._running = run.running
        self._journal = gateway.books.journal
        self._boot_s = gateway.books.clock.boot_s
        self._body = run.exchange.state is State.BODY
        self._journaled = 0 if run.running.packed else -1
        self._holds = [] if run.holds is None else [part.hold for part in run.holds.parts]
        self._plain = False
        """What the provider sends goes to the client as it is, and so does a plain piece."""
        self.since_s = self._boot_s()
        """Since when we wait for the provider."""
        self._left: list[Piece] | None = None
        """Read and counted by `push`, but stopped at the gate."""
        self._lapsed = False
        """The money is not ours any more: not a byte goes out."""
        self._trouble: BaseException | Awaitable[None] | None = None
        """What `push` met: an error, or a send that waits for the client."""

    async def run(self) -> Event:
        """Until the end; what is to be sent after the books are closed is in `run.last_pieces`."""
        answer, pushes = self._answer, returns_at_once(self._send)
        while True:
            if pushes and not answer.pieces:  # else they are to be read first
                await answer.pump(self.push)
                if self._lapsed:
                    return Event.CUT
                if self._trouble is not None:
                    await self._settle_trouble()
                    continue
            left, self._left = self._left, None
            last = False
            if left is None:
                try:
                    piece = await answer.read()
                except UpstreamEnded as ended:
                    self._run.flags.add(f"upstream_{ended.reason}")
                    return Event.BROKE_OFF
                now_s = self._boot_s()
                if not self._covered(now_s):
                    return Event.CUT
                last = not piece or answer.at_end
                left = self.count(piece, now_s, last=last)
            pieces = left
            while self._tap.held is not None:
                await self._send_now(pieces)
                if not await _afford(self._gateway, self._run):
                    return Event.CUT
                self.since_s = self._boot_s()
                pieces = self.count(b"", self.since_s, last=last)
            if last:
                self._run.last_pieces = pieces
                return _ended(self._run, answer)
            await self._send_now(pieces)

    def push(self, piece: bytes) -> bool:
        """Count, journal and send a piece, now; False when the task must look."""
        try:
            now_s = self._boot_s()
            if not self._covered(now_s):
                self._lapsed = True
                return False
            self._waited(piece, now_s)
            run, tap = self._run, self._tap
            plain = self._plain and tap.plain(piece)
            pieces = [] if plain else tap.feed(piece)
            self._note()
            if tap.held is not None:
                self._left = pieces
                return False
            if plain:
                body = piece
            else:
                self._plain = self._body and run.mask is None and run.rewrite is None
                body = body_of(run, pieces) if pieces and run.left_s is None else b""
            if body and run.left_s is None:
                passed_on = self._pass_on is not None and self._pass_on(body)
                if not passed_on and not self._sent(body):
                    return False
            self.since_s = self._boot_s()
        except BaseException as error:  # nobody above us could take it
            self._trouble = error
            return False
        return True

    def count(self, piece: bytes, now_s: float, *, last: bool) -> list[Piece]:
        """The events that may go out, counted and journaled. No await between here and the send."""
        self._waited(piece, now_s)
        self._plain = False  # `push` looks again: what is read here may set a mask
        tap = self._tap
        if tap.held is not None:
            pieces = tap.resume()
        elif last:
            pieces = tap.last(piece)
        else:
            pieces = tap.feed(piece) if piece else []
        if not last or tap.held is not None:  # else SETTLE takes its place
            self._note()
        return pieces

    def _waited(self, piece: bytes, now_s: float) -> None:
        """The provider's time is over, with a piece or without."""
        run, waited_s = self._run, now_s - self.since_s
        run.waited_s += waited_s
        if waited_s > 1.0 and self._body:
            self._running.silence(int(waited_s * 1000))
            self.since_s = now_s  # should the call end before this piece is sent: counted already
        if piece and run.first_byte_s is None:
            run.first_byte_s = now_s

    def _note(self) -> None:
        """Write PROGRESS, where there is any."""
        if not self._body:
            return
        running = self._running
        outputs = running.outputs
        if outputs != self._journaled:
            self._journaled = outputs
            self._journal.progress(
                self._run.seq,
                running.inputs,
                outputs,
                running.input_characters,
                running.characters,
            )
        elif running.packed:
            self._journal_unread()

    def _sent(self, body: bytes) -> bool:
        """Send it, with a task's `send` but without the task; False where the client must be waited
        for."""
        sending = self._begin(message(body))
        try:
            waiting = sending.send(None)  # up to its first wait, which most have not
        except StopIteration:
            return True
        self._trouble = rest_of(sending, waiting)
        self._run.sending_since_s = self._boot_s()
        return False

    def _journal_unread(self) -> None:
        """PROGRESS of what can only be read at its end: by its size."""
        running = self._running
        made, characters = running.unread(self._tap.part_bytes * running.packed)
        self._journal.progress(
            self._run.seq, running.inputs, made, running.input_characters, characters
        )

    def _covered(self, now_s: float) -> bool:
        """False when we were stopped for so long that somebody else has the money."""
        for hold in self._holds:  # no generator: asked for every piece
            if not hold.covered_at(now_s):
                return not self._body
        return True

    async def _send_now(self, pieces: list[Piece]) -> None:
        run = self._run
        if pieces and run.left_s is None:
            run.sending_since_s = self._boot_s()
            try:
                await self._send(message(body_of(run, pieces)))
            except OSError:  # how servers may say that nobody listens any more
                self._gone()
            run.sending_since_s = None
        self.since_s = self._boot_s()

    def _gone(self) -> None:
        """Nobody listens: raise, unless the answer is read to its end all the same."""
        if not self._gateway.open_runs.left(self._run, self._boot_s()):
            raise ClientGone

    async def _settle_trouble(self) -> None:
        """Raise what `push` met, or wait until the client has taken what it was sent."""
        trouble, self._trouble = self._trouble, None
        try:
            if isinstance(trouble, BaseException):
                raise trouble
            if trouble is not None:
                await trouble
        except OSError:
            self._gone()
        self._run.sending_since_s = None
        self.since_s = self._boot_s()


async def _afford(gateway: Gateway, run: Run) -> bool:
    """Wait a moment for more of what is short; the upstream is not read meanwhile."""
    running = run.running
    if running is None:
        return False
    for hold, least_e10, want_e10 in running.shortfalls():
        if not await hold.extend_soon(least_e10, want_e10, gateway.settings.extension_wait_s):
            return False
    return running.gate()


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
