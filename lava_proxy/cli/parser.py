"""The parser of a connection's requests, and how it goes on where another protocol was offered."""

from __future__ import annotations

from collections.abc import Iterable

import httptools

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


def parser_for(protocol: object) -> httptools.HttpRequestParser:
    """Calls the methods of `protocol` as it reads."""
    parser = httptools.HttpRequestParser(protocol)
    # Requests may follow one that says `Connection: close`: they are not read, not an error.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def framing_head(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head that frames the same body as one with these headers, and offers nothing: for a fresh
    parser behind a head that offered another protocol, whose own takes what follows for that."""
    framing = [b"%b: %b\r\n" % (name, value) for name, value in headers if name in _FRAMING]
    return b"".join((b"POST / HTTP/1.1\r\n", *framing, b"\r\n"))
