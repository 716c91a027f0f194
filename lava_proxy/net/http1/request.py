"""A request as bytes: where it goes, and a head that nobody can smuggle a line into.

Nothing is added to what was given but the request line, ``Host`` and, where a body is or could be,
``Content-Length``, or ``Transfer-Encoding`` where nobody knows its length. What frames a message
is ours alone: a caller that brings its own is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lava_proxy.core.errors import LavaError

Headers = Sequence[tuple[bytes, bytes]]

_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]{1,255}|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade", b"expect"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_PORTS = {"http": 80, "https": 443}
_PORT_MAX = 65535
_SHORTEST_ORIGIN = len("http://h")


@dataclass(frozen=True, slots=True)
class Origin:
    """One server, named canonically: lower case, the scheme's own port left out of `authority`."""

    tls: bool
    host: str
    """A name or an address; IPv6 without its brackets."""
    port: int
    authority: str

    @property
    def text(self) -> str:
        """``https://host:port``"""
        return f"http{'s' if self.tls else ''}://{self.authority}"


@lru_cache(maxsize=1024)
def split_url(url: str) -> tuple[str, bytes]:
    """(origin as written, request target). The target is sent exactly as it stands here."""
    if not (url.isascii() and url.isprintable()) or " " in url or "#" in url:
        raise LavaError("invalid_request", "the URL holds a character that may not be sent")
    slash = url.find("/", _SHORTEST_ORIGIN)
    if slash < 0:
        return url, b"/"
    return url[:slash], url[slash:].encode("ascii")


def parse_origin(text: str) -> Origin:
    """``https://host:port`` as an `Origin`. Raises `LavaError`."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        raise LavaError("invalid_request", "the URL must start with http(s)://host")
    scheme, host, digits = match.groups()
    port = int(digits) if digits else _PORTS[scheme]
    if not 0 < port <= _PORT_MAX:
        raise LavaError("invalid_request", "the URL's port does not exist")
    authority = host if port == _PORTS[scheme] else f"{host}:{port}"
    return Origin(scheme == "https", host.strip("[]"), port, authority)


def request_head(
    method: str, target: bytes, authority: bytes, headers: Headers, body_bytes: int | None
) -> bytes:
    """The head, blank line included; `body_bytes` is None for a body in chunks. Raises `LavaError`
    for anything that would not be one line per header."""
    lines = _lines(method, target, authority, tuple(headers))
    if body_bytes is None:
        return lines + b"transfer-encoding: chunked\r\n\r\n"
    if body_bytes or method in _WITH_BODY:
        return b"%bcontent-length: %d\r\n\r\n" % (lines, body_bytes)
    return lines + b"\r\n"


@lru_cache(maxsize=128)
def _lines(
    method: str, target: bytes, authority: bytes, headers: tuple[tuple[bytes, bytes], ...]
) -> bytes:
    """All lines but those that frame the body. Calls of one kind of client with one key have the
    same."""
    verb = method.encode("latin-1", "replace")
    if not _is_token(verb):
        raise LavaError("invalid_request", "the method is not a word")
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (verb, target, authority)]
    for name, value in headers:
        if not _may_be_given(name):
            raise LavaError("invalid_request", "a header's name may not be sent")
        lines.append(b"%b: %b\r\n" % (name, value))
    text = b"".join(lines)
    line_ends = len(lines) + 1
    if text.count(b"\r") != line_ends or text.count(b"\n") != line_ends or b"\0" in text:
        raise LavaError("invalid_request", "a header's value holds CR, LF or NUL")
    return text


@lru_cache(maxsize=64)
def _is_token(word: bytes) -> bool:
    return _TOKEN.fullmatch(word) is not None


@lru_cache(maxsize=1024)
def _may_be_given(name: bytes) -> bool:
    return _TOKEN.fullmatch(name) is not None and name.lower() not in _FRAMING
