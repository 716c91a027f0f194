"""A request's head, read once for all requests that have the same.

Who calls us calls again, with the same bytes but for the length of the body. What a head says of
itself (that it is well-formed, the credential, metadata, media type, what of it goes on to the
provider) is decided by those bytes alone, so it is kept by them. Who the credential belongs to, and
whether it may, is not: that is looked up for every call. What was refused is not kept.
"""

from __future__ import annotations

from functools import cached_property

from lava_proxy.core.errors import LavaError
from lava_proxy.proxy.intake import Scope
from lava_proxy.wire.headers import NOTHING, Pairs, guard, guard_method, upstream_headers
from lava_proxy.wire.metadata import read_metadata
from lava_proxy.wire.sigv4 import signed_headers
from lava_proxy.wire.token import Credential, find_credential

KEPT = 1024
KEPT_MAX_BYTES = 4096
"""Longer heads are read anew each time."""

_LENGTH = b"content-length"


class Head:
    """What one head says. Each thing is read when it is asked for, and raises what is wrong."""

    def __init__(self, headers: Pairs) -> None:
        self._headers = headers
        self._passing: tuple[tuple[bytes, bytes], ...] = ()
        self._secrets: tuple[str, ...] | None = None

    def credential(self, key: str | None) -> Credential:
        """The one credential; `key` is the query's."""
        return find_credential(self._headers, key) if key else self._credential

    def metadata(self, query: str | None) -> dict[str, str]:
        """The caller's labels; `query` are those of the URL. Nobody changes them."""
        return self._metadata if query is None else read_metadata(self._headers, query)

    @cached_property
    def signed(self) -> frozenset[bytes] | None:
        """The names that the caller's own AWS signature covers."""
        return signed_headers(self._headers)

    @cached_property
    def content_type(self) -> str:
        """The media type as sent, ``""`` when there is none. Two would be two meanings."""
        found = [value for name, value in self._headers if name == b"content-type"]
        if len(found) > 1:
            raise LavaError("invalid_request", "The Content-Type header is given twice.")
        return found[0].decode("latin-1") if found else ""

    def passing(self, *secrets: str) -> list[tuple[bytes, bytes]]:
        """What goes on to the provider, without what shows one of the caller's secrets. A head
        has one credential, so they are the same each time, save where it is in the query."""
        if secrets != self._secrets:
            hidden = [secret.encode("latin-1", "replace") for secret in secrets]
            kept = upstream_headers(self._headers, secrets=hidden, signed=self.signed or NOTHING)
            self._secrets, self._passing = secrets, tuple(kept)
        return list(self._passing)

    @cached_property
    def _credential(self) -> Credential:
        return find_credential(self._headers, None)

    @cached_property
    def _metadata(self) -> dict[str, str]:
        return read_metadata(self._headers)


NO_HEAD = Head(())


class Heads:
    """The heads of the last callers; one per process."""

    __slots__ = ("_kept", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[tuple[tuple[bytes, bytes], ...], Head] = {}

    def read(self, scope: Scope) -> Head:
        """The head of a request. Raises what `guard` does."""
        guard_method(scope)
        headers = scope["headers"]
        same = tuple([(name, value) for name, value in headers if name != _LENGTH])
        head = self._kept.get(same)
        if head is not None:
            return head
        guard(scope, bytes_max=self._max_bytes)
        head = Head(same)
        if sum(len(name) + len(value) for name, value in same) <= KEPT_MAX_BYTES:
            if len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[same] = head
        return head
