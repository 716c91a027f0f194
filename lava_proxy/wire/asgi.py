"""Where a request was sent: its path below a mount (in a mount ASGI still carries the prefix), and
the address that a browser knows us by."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]


def path_of(scope: Scope) -> str:
    """The path minus the mount's prefix: in a mount it still carries it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


def raw_path_of(scope: Scope) -> bytes:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    root = scope.get("root_path", "").encode()
    return raw[len(root) :] if root and raw.startswith(root) else raw


def public_base(public_url: str | None, headers: Sequence[tuple[bytes, bytes]]) -> str:
    """Our address with a slash at its end: as it is set, or else as this request came in."""
    if public_url:
        return public_url.rstrip("/") + "/"
    found = {name: value.decode("latin-1") for name, value in headers}
    scheme = "https" if found.get(b"x-forwarded-proto") == "https" else "http"
    return f"{scheme}://{found.get(b'host', 'localhost')}/"
