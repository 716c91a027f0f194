"""AWS Signature Version 4: signing a request, and reading what a caller's own signature covers.

The whole body is hashed, so nothing may change after this. The path is signed as it will be sent,
encoded once more: that is the rule of every service but S3, and our paths hold no dot segments
(`target.check_path`). Signed are Host, Content-Type and all ``x-amz-`` headers.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from lava_proxy.core.errors import LavaError

Pairs = Sequence[tuple[bytes, bytes]]

ALGORITHM = b"AWS4-HMAC-SHA256"

_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d{1,2}")
_KEYS = re.compile(r"([A-Z0-9]{16,128}):([\x21-\x39\x3b-\x7e]{16,512})(?::([\x21-\x7e]{1,8192}))?")
_SIGNED = re.compile(rb"[ ,]SignedHeaders=([a-z0-9;._~-]{1,4096})(?:,|\Z)")


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """An access key, and the session token of a temporary one."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def parse_keys(text: str) -> AwsKeys | None:
    """``ACCESS:SECRET`` or ``ACCESS:SECRET:SESSION``; None for anything else."""
    match = _KEYS.fullmatch(text)
    return AwsKeys(match[1], match[2], match[3]) if match else None


def region_of(host: str) -> str | None:
    """The region that a host of AWS names: one of its labels."""
    found = [label for label in host.split(".") if _REGION.fullmatch(label)]
    return found[0] if len(found) == 1 else None


def sign(
    keys: AwsKeys,
    method: str,
    path: str,
    query: str,
    headers: Pairs,
    body: bytes,
    *,
    host: bytes,
    region: str,
    service: str,
    at: datetime,
) -> list[tuple[bytes, bytes]]:
    """The headers to add. `path` and `query` as they will be sent; `host` the Host header."""
    time = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    added = [(b"x-amz-date", time.encode())]
    if keys.session_token is not None:
        added.append((b"x-amz-security-token", keys.session_token.encode()))
    names, lines = _canonical_headers([(b"host", host), *headers, *added])
    digest = hashlib.sha256(body).hexdigest().encode()
    request = b"\n".join(
        (
            method.encode(),
            quote(path, safe="/~").encode(),
            _canonical_query(query),
            lines,
            names,
            digest,
        )
    )
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    text = b"\n".join(
        (ALGORITHM, time.encode(), scope.encode(), hashlib.sha256(request).hexdigest().encode())
    )
    key = _signing_key(keys.secret_key, time[:8], region, service)
    signature = hmac.new(key, text, hashlib.sha256).hexdigest()
    authorization = b"%b Credential=%b/%b, SignedHeaders=%b, Signature=%b" % (
        ALGORITHM,
        keys.access_key.encode(),
        scope.encode(),
        names,
        signature.encode(),
    )
    return [*added, (b"authorization", authorization)]


def is_signature(authorization: bytes) -> bool:
    """Whether an Authorization header is a signature and no credential of ours."""
    return authorization.startswith(ALGORITHM + b" ")


def signed_headers(headers: Pairs) -> frozenset[bytes] | None:
    """The names that a caller's own signature covers; None where there is no signature."""
    for name, value in headers:
        if name == b"authorization" and is_signature(value):
            match = _SIGNED.search(value)
            if match is None:
                raise LavaError("invalid_request", "The AWS signature names no signed headers.")
            return frozenset(match[1].split(b";"))
    return None


def _canonical_headers(headers: Pairs) -> tuple[bytes, bytes]:
    """(names, lines): sorted, values of one name joined, runs of spaces made one."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in (b"host", b"content-type") or name.startswith(b"x-amz-"):
            values.setdefault(name, []).append(b" ".join(value.split()))
    ordered = sorted(values)
    lines = b"".join(b"%b:%b\n" % (name, b",".join(values[name])) for name in ordered)
    return b";".join(ordered), lines


def _canonical_query(query: str) -> bytes:
    pairs = [piece.partition("=") for piece in query.split("&") if piece]
    encoded = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded).encode()


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="-_.~")


@lru_cache(maxsize=256)
def _signing_key(secret_key: str, day: str, region: str, service: str) -> bytes:
    key = b"AWS4" + secret_key.encode()
    for text in (day, region, service, "aws4_request"):
        key = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return key
