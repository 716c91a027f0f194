"""What a connection tells the application of a request, as ASGI has it."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools

Headers = list[tuple[bytes, bytes]]
Addresses = tuple[tuple[str, int] | None, tuple[str, int] | None]


def scope_of(
    method: bytes,
    url: bytes,
    version: str,
    headers: Headers,
    ends: Addresses,
    state: dict[str, Any],
) -> dict[str, Any]:
    """The scope; `ends` as from `addresses`. Raises what is no path: the parser makes an error of
    it."""
    if url[:1] == b"/" and url.find(b"#") < 0:
        raw_path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        raw_path, query = parsed.path, parsed.query or b""
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": version,
        "server": ends[0],
        "client": ends[1],
        "scheme": "http",
        "root_path": "",
        "headers": headers,
        "state": state.copy(),
        "method": method.decode("ascii"),
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
    }


def addresses(transport: asyncio.BaseTransport) -> Addresses:
    """Ours and the client's, where the socket has such."""
    found = (transport.get_extra_info("sockname"), transport.get_extra_info("peername"))
    server, client = (
        (str(each[0]), int(each[1])) if isinstance(each, tuple) else None for each in found
    )
    return server, client
