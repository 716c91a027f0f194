"""One call's translation: the request once, then the answer's bytes as they come.

`feed` and `finish` never raise: what cannot be read becomes an error in the client's dialect, and
`broken` is set, so that the connection is not ended as if all were well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lava_proxy.core.errors import LavaError
from lava_proxy.wire.event import Event, Limits
from lava_proxy.wire.sse import SseFramer

from . import anthropic, openai
from . import neutral as n
from .anthropic import AnthropicReader, AnthropicWriter
from .members import Unreadable
from .openai import OpenAIReader, OpenAIWriter

Dialect = Literal["openai", "anthropic"]

LIMITS = Limits(hold_bytes=16 * 2**20, parse_bytes=16 * 2**20)
"""An answer that is one document, or one event of a stream, is held up to this size."""
HTTP_ERROR = 400
ENDED_EARLY = "the provider's answer ended early"


def read_request(client: Dialect, body: bytes) -> n.Request:
    """The client's request; 400 or 422 for what cannot be translated."""
    return openai.read_request(body) if client == "openai" else anthropic.read_request(body)


def write_request(
    provider: Dialect,
    request: n.Request,
    *,
    default_cap: int,
    cap_member: str,
    usage_opt_in: bool,
) -> bytes:
    """The request for the provider."""
    if provider == "anthropic":
        return anthropic.write_request(request, default_cap=default_cap)
    return openai.write_request(request, cap_member=cap_member, usage_opt_in=usage_opt_in)


class Translation:
    """From the provider's bytes to the client's. `answer_id` and `created` stand in where the
    provider's dialect has none."""

    def __init__(
        self,
        client: Dialect,
        provider: Dialect,
        request: n.Request,
        *,
        answer_id: str,
        created: int,
    ) -> None:
        self.client = client
        self.provider = provider
        self.broken = False
        self.ended = False
        self.events = 0
        """Events written so far."""
        self._request = request
        self._answer_id = answer_id
        self._created = created
        self._status = 200
        self._streamed = False
        self._stopped = False
        """The provider said why it stopped."""
        self._whole = bytearray()
        self._framer = SseFramer(LIMITS)
        self._reader = OpenAIReader() if provider == "openai" else AnthropicReader()
        self._writer = (
            OpenAIWriter(answer_id, request.model, created=created, wants_usage=request.wants_usage)
            if client == "openai"
            else AnthropicWriter(answer_id, request.model)
        )

    def head(self, status: int, content_type: str) -> bytes:
        """Take the answer's head; the content type that the client gets."""
        self._status = status
        self._streamed = status < HTTP_ERROR and content_type.startswith("text/event-stream")
        streams = self._request.stream and status < HTTP_ERROR
        return b"text/event-stream; charset=utf-8" if streams else b"application/json"

    def feed(self, piece: bytes) -> bytes:
        """The client's bytes for the next of the provider's."""
        if self._streamed:
            return self._events(self._framer.feed(piece)) if not self._over else b""
        if len(self._whole) + len(piece) > LIMITS.parse_bytes:
            self.broken = True
        else:
            self._whole += piece
        return b""

    def finish(self) -> bytes:
        """The provider's body is complete: what is still to be sent."""
        if self._streamed:
            out = self._events(self._framer.finish()) if not self._over else b""
            if self._stopped and not self._over:  # not every provider writes an end marker
                out += self._write(n.Done())
            return out + self.fail()
        return self._document()

    def fail(self) -> bytes:
        """The provider's stream ends early: the error that says so, unless the client knows."""
        if not self._streamed or self._over:
            return b""
        return self._write(n.Failed(502, "upstream_protocol_error", ENDED_EARLY))

    @property
    def _over(self) -> bool:
        return self.broken or self.ended

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
        self.ended = self.ended or isinstance(delta, n.Done)
        self._stopped = self._stopped or isinstance(delta, n.Finished)
        out = self._writer.write(delta)
        self.events += bool(out)
        return out

    def _document(self) -> bytes:
        """A whole answer or error body."""
        body = bytes(self._whole)
        theirs = openai if self.provider == "openai" else anthropic
        if self._status >= HTTP_ERROR:
            return self._error(theirs.read_error(self._status, body))
        try:
            if self.broken:
                raise Unreadable("the provider's answer is too large to be translated")
            answer = theirs.read_answer(body)
            answer = replace(
                answer,
                answer_id=answer.answer_id or self._answer_id,
                model=answer.model or self._request.model,
            )
            if self._request.stream:
                return b"".join([self._write(delta) for delta in n.deltas_of(answer)])
            if self.client == "openai":
                return openai.write_answer(answer, created=self._created)
            return anthropic.write_answer(answer)
        except (Unreadable, LavaError) as error:
            self.broken = True
            return self._error(n.Failed(502, "upstream_protocol_error", str(error)))

    def _error(self, failed: n.Failed) -> bytes:
        if self.client == "openai":
            return openai.write_error(failed)
        return anthropic.write_error(failed)


__all__ = ["Dialect", "Translation", "read_request", "write_request"]
