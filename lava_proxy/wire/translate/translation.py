"""One call's translation: the answer's bytes as they come, from one dialect to another.

`feed` and `finish` never raise: what cannot be read becomes an error in the client's dialect, and
`broken` is set, so that the connection is not ended as if all were well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from lava_adapters.contract import Framing
from lava_proxy.core.errors import HTTP_ERROR, LavaError
from lava_proxy.wire.event import Event, Framer, Limits
from lava_proxy.wire.eventstream import EventStreamFramer, FrameError
from lava_proxy.wire.mask import Masks
from lava_proxy.wire.sse import SseFramer

from . import neutral as n
from .dialects import Dialect, Start
from .members import Unreadable

LIMITS = Limits(hold_bytes=16 * 2**20, parse_bytes=16 * 2**20)
"""An answer that is one document, or one event of a stream, is held up to this size."""
ENDED_EARLY = "the provider's answer ended early"
AWS_STREAM = "application/vnd.amazon.eventstream"
_FRAMERS: Mapping[str, Callable[[Limits], Framer]] = {
    "text/event-stream": SseFramer,
    AWS_STREAM: EventStreamFramer,
}
_STREAM_TYPES = {
    Framing.SSE: b"text/event-stream; charset=utf-8",
    Framing.EVENT_STREAM: AWS_STREAM.encode(),
}


class Translation:
    """From the provider's bytes to the client's. `answer_id` and `created` stand in where the
    provider's dialect has none; `array`: the client wants its stream as a JSON array."""

    def __init__(
        self,
        client: Dialect,
        provider: Dialect,
        request: n.Request,
        *,
        answer_id: str,
        created: int,
        array: bool = False,
    ) -> None:
        self.client = client
        self.provider = provider
        self.broken = False
        self.ended = False
        self.events = 0
        """Events written so far."""
        self.framing = Framing.JSON_ARRAY if array else client.framing
        """Of the client's stream."""
        self.secrets: tuple[bytes, ...] = ()
        """The provider key, hidden in errors before they are written (frames have checksums)."""
        self._request = request
        self._answer_id = answer_id
        self._created = created
        self._status = 200
        self._framer: Framer | None = None
        """Cuts the provider's stream; None for a whole answer."""
        self._stopped = False
        """The provider said why it stopped."""
        self._whole = bytearray()
        self._reader = provider.reader()
        self._writer = client.writer(
            Start(answer_id, request.model, created, request.wants_usage, array)
        )

    def head(self, status: int, content_type: str) -> bytes:
        """Take the answer's head; the content type that the client gets."""
        self._status = status
        if status >= HTTP_ERROR:
            return b"application/json"
        framer = _FRAMERS.get(content_type.partition(";")[0].strip().lower())
        self._framer = None if framer is None else framer(LIMITS)
        streamed = self.framing if self._request.stream else Framing.JSON
        return _STREAM_TYPES.get(streamed, b"application/json")

    def feed(self, piece: bytes) -> bytes:
        """The client's bytes for the next of the provider's."""
        if self._framer is not None:
            return b"" if self._over else self._cut(self._framer, piece)
        if len(self._whole) + len(piece) > LIMITS.parse_bytes:
            self.broken = True
        else:
            self._whole += piece
        return b""

    def finish(self) -> bytes:
        """The provider's body is complete: what is still to be sent."""
        if self._framer is None:
            return self._document()
        out = b"" if self._over else self._events(self._framer.finish())
        if self._stopped and not self._over:  # not every provider writes an end marker
            out += self._write(n.Done())
        return out + self.fail()

    def fail(self) -> bytes:
        """The provider's stream ends early: the error that says so, unless the client knows."""
        if self._framer is None or self._over:
            return b""
        return self._write(n.Failed(502, "upstream_protocol_error", ENDED_EARLY))

    @property
    def _over(self) -> bool:
        return self.broken or self.ended

    def _cut(self, framer: Framer, piece: bytes) -> bytes:
        try:
            events = framer.feed(piece)
        except FrameError as error:
            return self._write(n.Failed(502, "upstream_protocol_error", f"no frame: {error}"))
        return self._events(events)

    def _events(self, events: list[Event]) -> bytes:
        out = b""
        for event in events:
            if not event.data or self._over:
                continue
            try:
                deltas = self._reader.event(event.name, event.data)
            except Unreadable as error:
                deltas = [n.Failed(502, "upstream_protocol_error", str(error))]
            for delta in deltas:
                out += self._write(delta)
        return out

    def _write(self, delta: n.Delta) -> bytes:
        if isinstance(delta, n.Failed):
            self.broken = True
            delta = self._hidden(delta)
        self.ended = self.ended or isinstance(delta, n.Done)
        self._stopped = self._stopped or isinstance(delta, n.Finished)
        out = self._writer.write(delta)
        self.events += bool(out)
        return out

    def _hidden(self, failed: n.Failed) -> n.Failed:
        text = Masks(self.secrets).last(failed.message.encode("utf-8", "replace"))
        return replace(failed, message=text.decode())

    def _document(self) -> bytes:
        """A whole answer or error body."""
        body = bytes(self._whole)
        if self._status >= HTTP_ERROR:
            failed = self._hidden(self.provider.read_error(self._status, body))
            return self.client.write_error(failed)
        try:
            if self.broken:
                raise Unreadable("the provider's answer is too large to be translated")
            answer = self.provider.read_answer(body)
        except (Unreadable, LavaError) as error:
            self.broken = True
            failed = n.Failed(502, "upstream_protocol_error", str(error))
            return self.client.write_error(failed)
        answer = replace(
            answer,
            answer_id=answer.answer_id or self._answer_id,
            model=answer.model or self._request.model,
        )
        if self._request.stream:
            return b"".join([self._write(delta) for delta in n.deltas_of(answer)])
        return self.client.write_answer(answer, self._created)
