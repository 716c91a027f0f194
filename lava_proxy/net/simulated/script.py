"""Words of the simulated provider: a request as it came, and an answer as it will go out."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

STAMP = b"@sim-ns-19-digits@@"
"""Replaced, as a piece goes out, by the monotonic clock in nanoseconds (19 digits)."""


class Ending(enum.Enum):
    """What happens after the last piece."""

    CLEAN = "clean"
    """The framing is finished and the connection is kept."""
    TRUNCATED = "truncated"
    """FIN with the framing unfinished: no last chunk, or bytes missing from Content-Length."""
    RESET = "reset"
    """RST."""
    CLOSED = "closed"
    """The body has neither length nor chunks: FIN is its proper end."""
    STALL = "stall"
    """Nothing more comes, and the connection stays open."""


class Piece(NamedTuple):
    """One write: `data` goes out `delay_s` after the piece before it was due."""

    data: bytes
    delay_s: float = 0.0
    tokens: int = 0
    """Output tokens that `data` carries, added to `SimRequest.tokens_sent`."""


Headers = Sequence[tuple[str, str]]
EVENT_STREAM: Headers = (("content-type", "text/event-stream; charset=utf-8"),)
JSON: Headers = (("content-type", "application/json"),)


@dataclass(frozen=True, slots=True)
class Script:
    """One answer. The head goes out with the first piece (an empty first piece sends it alone).

    A body without `content-length` among `headers` is chunked, one chunk per piece, unless it
    ends `CLOSED`. With `raw` the pieces are the whole answer, status line included.
    """

    pieces: Iterable[Piece] = ()
    status: int = 200
    headers: Headers = EVENT_STREAM
    ends: Ending = Ending.CLEAN
    end_delay_s: float = 0.0
    """From the last piece to the ending."""
    raw: bool = False
    paced_s: float = 0.0
    """Distance between tokens of a stream that may be shifted in phase (`spread`); 0 = do not."""

    @staticmethod
    def plain(
        body: bytes,
        *,
        status: int = 200,
        delay_s: float = 0.0,
        tokens: int = 0,
        headers: Headers = JSON,
        ends: Ending = Ending.CLEAN,
    ) -> Script:
        """A body with its length stated, after `delay_s`."""
        length = ("content-length", str(len(body)))
        return Script((Piece(body, delay_s, tokens),), status, (*headers, length), ends)

    @staticmethod
    def json(document: object, *, status: int = 200, delay_s: float = 0.0) -> Script:
        """A JSON document, compact."""
        return Script.plain(orjson.dumps(document), status=status, delay_s=delay_s)


@dataclass(slots=True)
class SimRequest:
    """One request, byte for byte as it came, and what became of it."""

    method: str
    target: str
    """Path and query as on the wire."""
    headers: dict[str, str]
    """Lower-case names; repeated ones joined by ``, ``."""
    body: bytes
    head: bytes
    """Request line and headers as on the wire (empty when the provider does not record)."""
    connection: int
    """Number of the connection, from 1: shows re-use."""
    received_at: float
    """`time.monotonic()` when the last byte had come."""
    model: str = ""
    status: int = 0
    sent_bytes: int = 0
    """Body bytes handed to the socket, without framing."""
    tokens_sent: int = 0
    finished_at: float | None = None
    """When our answer had ended, in whichever way it was meant to."""
    closed_early_at: float | None = None
    """When the client hung up before that."""
    path: str = field(init=False)
    query: str = field(init=False)

    def __post_init__(self) -> None:
        self.path, _, self.query = self.target.partition("?")

    @property
    def ended(self) -> bool:
        """Nothing more will happen to this request."""
        return self.finished_at is not None or self.closed_early_at is not None
