"""Which headers may enter, which go up to the provider, and which come back to the client.

* `guard`: what no server in front of us reliably refuses (two Hosts, TRACE, odd Expect, ...).
* `upstream_headers`: a deny-list. Provider headers we have never heard of must pass; what is ours,
  the hop's, or says who the caller is must not.
* `client_headers`: an allow-list. nginx obeys some headers (X-Accel-Redirect), browsers obey others
  (Set-Cookie), and several name the account behind a managed key.

Names are expected in lower case, as ASGI has them. Values are bytes throughout, so bytes over 0x7F
pass as they are. All three run for every request: one pass, and look-ups in frozen sets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import cast
from urllib.parse import quote

from lava_proxy.core.errors import LavaError
from lava_proxy.wire.mask import shows
from lava_proxy.wire.token import CREDENTIAL_HEADERS

Pairs = Sequence[tuple[bytes, bytes]]

HEADERS_MAX_BYTES = 64 * 1024
HEADERS_MAX_COUNT = 256

NOTHING: frozenset[bytes] = frozenset()

HOP_HEADERS = frozenset(
    {
        b"alt-used",
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    }
)

_NOT_UPSTREAM = (
    HOP_HEADERS
    | CREDENTIAL_HEADERS
    | {
        b"ocp-apim-subscription-key",
        # Signatures and tokens for AWS are made anew when we sign.
        b"x-amz-content-sha256",
        b"x-amz-date",
        b"x-amz-security-token",
        # Made anew by the client that sends the request on.
        b"accept-encoding",
        b"content-encoding",
        b"content-length",
        b"expect",
        b"host",
        # Who the caller is, and what proxies before us said.
        b"cf-connecting-ip",
        b"cookie",
        b"cookie2",
        b"fastly-client-ip",
        b"forwarded",
        b"true-client-ip",
        b"via",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-real-ip",
        # These would change the method or the path behind the provider table's back.
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-host",
        b"x-original-url",
        b"x-rewrite-url",
    }
)
_AWS = frozenset({b"x-amz-content-sha256", b"x-amz-date", b"x-amz-security-token"})
_AS_SENT = frozenset({b"host", b"content-length"})
"""Made anew, with the same value: a caller's signature may cover them."""
_NOT_UPSTREAM_PREFIXES = (b"x-lava-", b"x-forwarded-", b"proxy-", b"sec-websocket-")

_TO_CLIENT = frozenset(
    {
        b"content-length",
        b"content-type",
        b"request-id",
        b"retry-after",
        b"retry-after-ms",
        b"x-request-id",
        b"x-should-retry",
    }
)
_TO_CLIENT_PREFIXES = (b"content-", b"openai-", b"anthropic-")
_NOT_TO_CLIENT_PREFIXES = (
    b"x-accel-",
    b"x-sendfile",
    b"set-cookie",
    b"content-location",
    b"content-security-policy",
    b"openai-organi",
    b"openai-project",
    b"anthropic-organi",
)
"""Names that steer nginx or a browser, or name an account: not even a row lets them pass."""
_RATE_LIMIT = b"ratelimit"

_WATCHED = frozenset(
    {b"authorization", b"connection", b"content-encoding", b"expect", b"host", b"upgrade"}
)
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_HOST_MESSAGE = "The request needs exactly one well-formed Host header."
_LINE_BREAKERS = b"\r\n\x00"
_NO_NAMES = frozenset({b"keep-alive", b"close"})
_METHODS_REFUSED = frozenset({"TRACE", "TRACK", "CONNECT"})
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def guard(
    scope: Mapping[str, object],
    *,
    bytes_max: int = HEADERS_MAX_BYTES,
    count_max: int = HEADERS_MAX_COUNT,
) -> None:
    """Refuse a request by its ASGI scope alone, before anything is looked up."""
    guard_method(scope)
    headers = cast("list[tuple[bytes, bytes]]", scope["headers"])
    text = b"".join(chain.from_iterable(headers))
    if len(text) > bytes_max or len(headers) > count_max:
        message = f"The headers are over {bytes_max} bytes or {count_max} lines."
        raise LavaError("invalid_request", message)
    if len(text.translate(None, _LINE_BREAKERS)) != len(text):
        raise LavaError("invalid_request", "A header holds CR, LF or NUL.")
    _guard_watched([pair for pair in headers if pair[0] in _WATCHED])


def guard_method(scope: Mapping[str, object]) -> None:
    """The part of `guard` that does not look at the headers."""
    if scope["type"] == "websocket":
        raise LavaError("upgrade_not_supported")
    if scope["method"] in _METHODS_REFUSED:
        raise LavaError("method_not_allowed", headers={"allow": _METHODS})


def upstream_headers(
    headers: Pairs,
    *,
    secrets: Sequence[bytes] = (),
    drop: frozenset[bytes] = NOTHING,
    signed: frozenset[bytes] = NOTHING,
) -> list[tuple[bytes, bytes]]:
    """The caller's headers as they go to the provider, without Host, Content-Length and credential:
    whoever sends them adds those.

    `secrets` are the caller's credential and what it decodes to: a value that holds one is dropped,
    whatever its name. `drop` are more names, from the provider's row. `signed` are the names that
    the caller's own signature covers: those of AWS pass, and the signature with them.
    """
    refused = _NOT_UPSTREAM - _AWS if signed else _NOT_UPSTREAM
    kept = [
        pair
        for pair in headers
        if pair[0] not in refused and not pair[0].startswith(_NOT_UPSTREAM_PREFIXES)
    ]
    if signed:
        _check_signed(signed, refused)
        kept += [pair for pair in headers if pair[0] == b"authorization"]
    nominated = _nominated(headers)
    if nominated or drop:
        nominated |= drop
        kept = [pair for pair in kept if pair[0] not in nominated]
    kept = _without(kept, secrets)
    # Usage is read from the bytes as they pass: compressed ones would hide it.
    kept.append((b"accept-encoding", b"identity"))
    return kept


def client_headers(
    headers: Pairs,
    extra_prefixes: tuple[bytes, ...] = (),
    *,
    secrets: Sequence[bytes] = (),
    keep_length: bool = True,
    event_stream: bool = False,
) -> list[tuple[bytes, bytes]]:
    """The provider's headers as they go to the client.

    `extra_prefixes` are names (or beginnings of names) that the provider's row lets pass. `secrets`
    is the provider key: a value that echoes it is dropped. `keep_length` False where the body may
    come out shorter than the provider announced. `event_stream` tells nginx not to buffer.
    """
    kept = [pair for pair in headers if _goes_to_client(pair[0], extra_prefixes)]
    unwanted = _nominated(headers)
    if not keep_length:
        unwanted |= {b"content-length"}
    if unwanted:
        kept = [pair for pair in kept if pair[0] not in unwanted]
    kept = _without(kept, secrets)
    if event_stream:
        kept.append((b"x-accel-buffering", b"no"))
    return kept


@lru_cache(maxsize=4096)
def _goes_to_client(name: bytes, extra_prefixes: tuple[bytes, ...]) -> bool:
    """Providers send the same names again and again."""
    wanted = (
        name in _TO_CLIENT
        or name.startswith(_TO_CLIENT_PREFIXES + extra_prefixes)
        or _RATE_LIMIT in name
    )
    return wanted and not name.startswith(_NOT_TO_CLIENT_PREFIXES)


def header_value(text: str) -> bytes:
    """`text` (an id, a name; often the caller's own) as a header value: whatever is not printable
    ASCII is percent-encoded, so no value can end its line."""
    return quote(text, safe=_PRINTABLE, errors="backslashreplace").encode("ascii")


_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def _guard_watched(watched: Pairs) -> None:
    hosts = authorizations = 0
    for name, value in watched:
        if name == b"host":
            hosts += 1
            if hosts > 1 or _HOST.fullmatch(value) is None:
                raise LavaError("invalid_request", _HOST_MESSAGE)
        elif name == b"authorization":
            authorizations += 1
            if authorizations > 1:
                raise LavaError("invalid_request", "The Authorization header is given twice.")
        elif name == b"expect":
            if value.strip().lower() != b"100-continue":
                raise LavaError("expectation_failed")
        elif name == b"content-encoding":
            if value.strip().lower() not in {b"", b"identity"}:
                raise LavaError("unsupported_media_type", "Send the body without Content-Encoding.")
        elif name == b"upgrade":
            _guard_upgrade(value, watched)
    if not hosts:
        raise LavaError("invalid_request", _HOST_MESSAGE)


def _guard_upgrade(offers: bytes, watched: Pairs) -> None:
    """An upgrade is asked for by two headers together; alone, Upgrade is dropped like any other hop
    header. ``h2c`` is ignored, as RFC 9110 allows: Java's client offers it with every plain-text
    request."""
    protocols = {offer.strip().lower() for offer in offers.split(b",")} - {b"", b"h2c"}
    if b"websocket" in protocols or (protocols and b"upgrade" in _nominated(watched)):
        raise LavaError("upgrade_not_supported")


def _check_signed(signed: frozenset[bytes], refused: frozenset[bytes]) -> None:
    """A header that is signed and does not arrive would break the signature at the provider."""
    lost = sorted(
        name
        for name in signed - _AS_SENT
        if name in refused or name.startswith(_NOT_UPSTREAM_PREFIXES)
    )
    if lost:
        name = lost[0].decode("latin-1")
        raise LavaError("invalid_request", f"The header {name} is signed, and is not passed on.")


def _nominated(headers: Pairs) -> frozenset[bytes]:
    """Names that Connection headers declare to be for this hop only."""
    lines = [value for name, value in headers if name == b"connection"]
    if not lines or (len(lines) == 1 and lines[0] in _NO_NAMES):
        return NOTHING
    return frozenset(name.strip().lower() for line in lines for name in line.split(b","))


def _without(
    pairs: list[tuple[bytes, bytes]], secrets: Sequence[bytes]
) -> list[tuple[bytes, bytes]]:
    if secrets:
        values = b"\n".join([value for _, value in pairs])
        for secret in secrets:
            if shows(secret, values):
                pairs = [pair for pair in pairs if not shows(secret, pair[1])]
    return pairs
