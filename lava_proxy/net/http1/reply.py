"""Bytes of a connection as answers, one at a time: httptools reads them, the limits are ours.

httptools (llhttp) is strict about framing: both lengths, two lengths, folded lines, bare CR or LF
and control characters are errors. What it leaves open is closed here:

* bytes and lines of the head, bytes without body after it (chunk extensions, trailers), and the
  number of interim answers are bounded;
* a transfer coding other than ``chunked`` and a switch of protocols were not asked for;
* after the end of an answer nothing may follow: it would be read as the answer to somebody else's
  request. The answer itself is whole, but its connection is not used again.

The same bytes give the same answer however they are cut; only a status line of many kilobytes may
pass or not.
"""

from __future__ import annotations

import httptools

from lava_proxy.net.http1.answer import Answer, Source

HEAD_MAX_BYTES = 64 * 1024
HEADERS_MAX_COUNT = 256
INTERIM_MAX_COUNT = 100
BETWEEN_MAX_BYTES = 64 * 1024

_LINE_BYTES = len(": \r\n")
_NO_BODY = frozenset({204, 304})
_STATUS_MAX = 599
_SWITCHING = 101


class Reply:
    """The answer that is arriving: `answer` from its head on, until the next `start`."""

    __slots__ = (
        "_between_bytes",
        "_chunked",
        "_content_type",
        "_delimited",
        "_has_body",
        "_head_bytes",
        "_head_only",
        "_headers",
        "_idle_s",
        "_interims",
        "_parser",
        "_source",
        "_trailers",
        "answer",
        "broken",
        "complete",
        "keep",
    )

    def __init__(self, source: Source, idle_s: float) -> None:
        self._source = source
        self._idle_s = idle_s
        self._parser = httptools.HttpResponseParser(self)
        # Some servers pad the size of a chunk with spaces; what it means is beyond doubt.
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        self.start(head_only=False)

    def start(self, *, head_only: bool) -> None:
        """Ready for the next answer; `head_only`: it has no body, whatever its head says."""
        self.answer: Answer | None = None
        self.complete = False
        """The answer is whole."""
        self.broken = False
        """What came is not HTTP, or more than an answer: this connection has ended."""
        self.keep = False
        """Another request may follow on this connection."""
        self._head_only = head_only
        self._head_bytes = 0
        self._interims = 0
        self._trailers = 0
        self._between_bytes = 0
        self._has_body = False
        self._clear_head()

    def _clear_head(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._content_type = ""
        self._delimited = False
        self._chunked = False

    def feed(self, data: memoryview) -> None:
        """Read what has come."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.broken, self.keep = True, False
        if self.answer is None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES:
                self.broken = True
        elif self._has_body:
            self._has_body = False
            self._between_bytes = 0
        else:
            self._between_bytes += len(data)
            if self._between_bytes > BETWEEN_MAX_BYTES:
                self.broken = True

    def release(self) -> None:
        """Let the parser go, which holds our methods."""
        del self._parser

    # The parser calls these. An exception ends the parse.

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.answer is not None:
            self._trailers += 1
            if self._trailers > HEADERS_MAX_COUNT:
                raise ValueError("too many trailers")
            return
        name = name.lower()
        value = value.rstrip(b" \t")
        self._headers.append((name, value))
        if name == b"content-type":
            self._content_type = self._content_type or value.decode("latin-1")
        elif name == b"content-length":
            self._delimited = True
        elif name == b"transfer-encoding":
            if self._chunked or value.lower() != b"chunked":
                raise ValueError("a coding that nobody asked for")
            self._chunked = self._delimited = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if len(self._headers) > HEADERS_MAX_COUNT or self._is_long():
            raise ValueError("too long a head")
        if not 200 <= status <= _STATUS_MAX:
            self._interim(status)
            return
        self.answer = Answer(
            self._source,
            status,
            self._headers,
            content_type=self._content_type,
            delimited=self._delimited or self._head_only or status in _NO_BODY,
            idle_s=self._idle_s,
        )
        self.keep = self._may_keep()
        self.complete = self._head_only

    def on_body(self, piece: bytes) -> None:
        answer = self.answer
        if answer is None or self.complete:
            raise ValueError("a body where none belongs")
        self._has_body = True
        answer.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.complete = self.answer is not None

    # Inside.

    def _is_long(self) -> bool:
        """Few heads are long enough that their lines must be counted."""
        if not self._head_bytes:
            return False
        lengths = [len(name) + len(value) + _LINE_BYTES for name, value in self._headers]
        return sum(lengths) > HEAD_MAX_BYTES

    def _interim(self, status: int) -> None:
        self._interims += 1
        informs = 100 <= status < 200 and status != _SWITCHING
        if not informs or self._interims > INTERIM_MAX_COUNT:
            raise ValueError("an answer that nobody asked for")
        self._clear_head()

    def _may_keep(self) -> bool:
        if self._head_only or not self._parser.should_keep_alive():
            return False
        return not self._chunked or self._parser.get_http_version() == "1.1"
