"""Where a request is to go: the caller's text becomes a host, a path and a query, or a 400.

This is the gate against server-side request forgery, so it is a whitelist over bytes and shares
nothing with a URL library: two parsers that disagree are how such gates fall. What it accepts means
the same to every parser (a test compares with yarl's). The rules:

* The text is checked for space, control, non-ASCII, ``\\`` and ``#`` bytes before it is parsed.
* ``u`` that starts with ``https://`` is raw and stays as it is; otherwise it is percent-decoded
  exactly once. One exception: encoders that leave ``:/?`` alone (yarl, aiohttp) turn the target's
  ``=`` into ``%3D``; a query with ``%3D`` and no ``=`` was encoded by one of them.
* A raw ``u`` may hold ``?`` and ``&``, so every other parameter goes back to the target's query, in
  order, except ``metadata`` and ``key``. Those two are ours wherever they stand: ``key`` is a place
  for the caller's credential and must never reach a provider.
* The host is a plain DNS name: no user, no IP literal, no port but 443, no punycode. Hosts that the
  operator names (`plain_hosts`) may be http, have a port, or be loopback (never an IPv6 literal).
* The path must mean the same before and after decoding: no dot or empty segments, no encoded
  delimiters. ``%2F`` is refused later, by `check_path`, unless the provider's row allows it.

The text never builds the upstream URL: `upstream_url` starts from the provider row's own origin.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass, field
from typing import NoReturn
from unicodedata import normalize
from urllib.parse import quote, unquote_to_bytes

from lava_proxy.core.errors import LavaError

TARGET_MAX_BYTES = 8192

NO_HOSTS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. `path` and `query` are raw, as they are to be sent; `port` is None for
    the scheme's own. `metadata` and `key` were taken out of the query, decoded once."""

    host: str
    port: int | None
    path: str
    query: str
    metadata: str | None = None
    key: str | None = field(default=None, repr=False)


_ROUTE = re.compile(rb"(?:/v1)?/forward(?:/(.*))?", re.DOTALL)
_NAMED = re.compile(rb"([a-z0-9][a-z0-9_-]{0,63})(/.*)?", re.DOTALL)
_URL_START = re.compile(rb"https?(?::|%3a)", re.IGNORECASE)
_RAW_START = re.compile(rb"https?://", re.IGNORECASE)
_ENCODED_START = re.compile(rb"(?:https?)?(?:%25|%3a)", re.IGNORECASE)
_MERGED_START = re.compile(rb"https?:/[^/]", re.IGNORECASE)
_URL = re.compile(rb"(https?)://([^/?]+)(?:(/[^?]*)(?:\?(.*))?)?", re.IGNORECASE)
_ALLOWED = bytes(code for code in range(0x21, 0x7F) if chr(code) not in "\\#")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_CONTROL = re.compile(rb"%(?:[01][0-9A-Fa-f]|7[Ff])")

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)

_PCHAR = r"A-Za-z0-9\-._~!$&'()*+,=:@"
_PLAIN_PATH = re.compile(rf"(?:/(?!\.+(?:/|\Z))[{_PCHAR}]+)*/?")
_ESCAPED_PATH = re.compile(rf"/(?:/|%[0-9A-Fa-f]{{2}}|[{_PCHAR}])*")
_TWICE_ENCODED = re.compile(r"%25[0-9A-Fa-f]{2}")
_ENCODED_DELIMITER = re.compile(r"%(?:5[Cc]|3[BbFf]|23)")
_ENCODED_SLASH = re.compile(r"%2[Ff]")


def parse_target(
    raw_path: bytes, query_string: bytes, *, plain_hosts: Set[str] = NO_HOSTS
) -> Target:
    """The target of ``/v1/forward``, in every form; both arguments as on the wire, undecoded.

    `plain_hosts` are the operator's own, ``host`` or ``host:port`` in lower case. The caller still
    looks the host up in the provider table and calls `check_path` with that row's rule.
    """
    route = _ROUTE.fullmatch(raw_path)
    if route is None:
        raise LavaError("not_found", "There is no such route.")
    rest = route.group(1) or b""
    pieces = query_string.split(b"&") if query_string else []
    if _URL_START.match(rest):
        url = rest
    elif not rest or ((named := _NAMED.fullmatch(rest)) and named.group(2) in {None, b"/"}):
        url = _take_u(pieces)
    else:
        _refuse("Write the target as /v1/forward?u=<URL> or /v1/forward/https://host/path.")
    url = _decode_once(url)
    _check_bytes(b"&".join([url, *pieces]))
    return _split(url, pieces, plain_hosts)


def parse_written(url: str, *, plain_hosts: Set[str] = NO_HOSTS) -> Target:
    """The target that a JSON string names: a whole URL as it is, with or without ``https://``."""
    full = url if "://" in url else f"https://{url}"
    encoded = quote(full, safe="", errors="replace").encode()
    return parse_target(b"/v1/forward", b"u=" + encoded, plain_hosts=plain_hosts)


def split_named(raw_path: bytes) -> tuple[str, bytes] | None:
    """``/v1/forward/openai/chat/completions`` -> ``("openai", b"/chat/completions")``: the old form
    that names a provider, for `parse_prefix` with that provider's API base. None for others."""
    route = _ROUTE.fullmatch(raw_path)
    named = _NAMED.fullmatch(route.group(1) or b"") if route else None
    if named is None or named.group(2) in {None, b"/"}:
        return None
    return named.group(1).decode("ascii"), named.group(2)


def parse_prefix(base: str, rest: bytes, query: bytes) -> Target:
    """The target of ``/{provider}/...``: `base` is our own table's origin (it may carry a path),
    `rest` the raw path behind the provider's name, `query` the raw query string."""
    authority, slash, base_path = base.partition("://")[2].rstrip("/").partition("/")
    host, _, port = authority.partition(":")
    if rest and not rest.startswith(b"/"):
        _refuse("A path must follow the provider's name.")
    path = slash.encode() + base_path.encode() + rest
    _check_bytes(path + query)
    return _assemble(host, int(port) if port else None, path, query.split(b"&") if query else [])


def check_path(path: str, *, encoded_slash: bool) -> None:
    """Refuse a path that some reader would take for another one. `encoded_slash`: ``%2F`` is a
    character of a segment for this provider (Bedrock ARNs)."""
    if _PLAIN_PATH.fullmatch(path):
        return
    if _ESCAPED_PATH.fullmatch(path) is None:
        _refuse("The target's path holds a character that must be percent-encoded, or a ';'.")
    if _TWICE_ENCODED.search(path):
        _refuse("The target's path is percent-encoded twice.")
    if _ENCODED_DELIMITER.search(path):
        _refuse("The target's path holds an encoded delimiter.")
    if not encoded_slash and _ENCODED_SLASH.search(path):
        _refuse("The target's path holds %2F, which this provider's paths never do.")
    try:
        plain = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        _refuse("The target's path is not UTF-8.")
    # The slash that may end a path makes no segment; any other empty one is a '//'.
    segments = plain.removesuffix("/").split("/")[1:]
    if any(not segment.strip(" .") for segment in segments):
        _refuse("The target's path holds an empty or dot segment.")
    if not plain.isprintable() or normalize("NFKC", plain) != plain:
        _refuse("The target's path holds invisible characters, or changes when normalised.")


def upstream_url(origin: str, target: Target) -> str:
    """The URL to contact: `origin` is the provider row's own text (or the operator's override, path
    prefix included), never the caller's."""
    query = f"?{target.query}" if target.query else ""
    return f"{origin.rstrip('/')}{target.path}{query}"


def _take_u(pieces: list[bytes]) -> bytes:
    """Remove the one ``u`` from `pieces` and give its value."""
    places = [index for index, piece in enumerate(pieces) if _name(piece) == b"u"]
    if not places:
        _refuse("The parameter u is missing: /v1/forward?u=<URL>.")
    if len(places) > 1:
        _refuse("The parameter u is given twice; percent-encode the target if it holds its own.")
    value = pieces.pop(places[0]).partition(b"=")[2]
    if not value:
        _refuse("The parameter u is empty.")
    return value


def _decode_once(url: bytes) -> bytes:
    if len(url) > TARGET_MAX_BYTES:
        _refuse(f"The target is over {TARGET_MAX_BYTES} bytes.")
    if b"%" in url and _BAD_ESCAPE.search(url):
        _refuse("The target holds a '%' that is not followed by two hexadecimal digits.")
    if _RAW_START.match(url):
        query = url.partition(b"?")[2]
        if b"=" in query or b"%3D" not in query.upper():
            return url
    decoded = unquote_to_bytes(url)
    if _ENCODED_START.match(decoded):
        _refuse("The target is percent-encoded twice.")
    return decoded


def _check_bytes(text: bytes) -> None:
    if text.translate(None, _ALLOWED):
        _refuse("The target holds a space, a control or non-ASCII character, '\\' or '#'.")


def _split(url: bytes, pieces: list[bytes], plain_hosts: Set[str]) -> Target:
    match = _URL.fullmatch(url)
    if match is None:
        if _MERGED_START.match(url):
            _refuse(
                "The target has one slash after its scheme: a proxy before us merged two. "
                "Set nginx's merge_slashes off, or use /v1/forward?u=<URL>."
            )
        _refuse("The target must look like https://host/path?query.")
    scheme, authority, path, query = match.groups()
    host, port = _authority(
        authority.decode("ascii").lower(), scheme.decode("ascii").lower(), plain_hosts
    )
    return _assemble(host, port, path or b"/", (query.split(b"&") if query else []) + pieces)


def _authority(text: str, scheme: str, plain_hosts: Set[str]) -> tuple[str, int | None]:
    """`text` (lower case) as host and port, None for the scheme's own port."""
    if "@" in text:
        _refuse("The target may not name a user.")
    host, colon, port_text = text.partition(":")
    if _HOST.fullmatch(host) is None or host.startswith("xn--") or ".xn--" in host:
        _refuse("The target's host must be a plain ASCII host name.")
    if colon and (_PORT.fullmatch(port_text) is None or int(port_text) > 65535):
        _refuse("The target's port is not a number from 1 to 65535.")
    default = 443 if scheme == "https" else 80
    port = int(port_text) if colon else default
    if host not in plain_hosts and f"{host}:{port}" not in plain_hosts:
        if scheme != "https":
            _refuse("The target must be https.")
        if port != default:
            _refuse("The target may not name a port.")
        _, dot, last_label = host.rpartition(".")
        # No top-level domain starts with a digit; every odd form of an IPv4 address does.
        if not dot or last_label[0] in "0123456789":
            _refuse("The target's host must be a public host name, not an address.")
    return host, None if port == default else port


def _assemble(host: str, port: int | None, path: bytes, pieces: list[bytes]) -> Target:
    kept: list[bytes] = []
    ours: dict[bytes, str] = {}
    for piece in pieces:
        name = _name(piece)
        if name not in {b"metadata", b"key"}:
            if piece:
                kept.append(piece)
            continue
        value = piece.partition(b"=")[2]
        # A form encodes a space as '+'; a base64 credential holds real ones.
        text = _text(value if name == b"key" else value.replace(b"+", b" "))
        if ours.setdefault(name, text) != text:
            _refuse(f"The parameter {name.decode()} is given twice with different values.")
    query = b"&".join(kept)
    whole = path + b"?" + query
    if len(whole) > TARGET_MAX_BYTES:
        _refuse(f"The target is over {TARGET_MAX_BYTES} bytes.")
    if b"%" in whole and (_BAD_ESCAPE.search(whole) or _ENCODED_CONTROL.search(whole)):
        _refuse("The target holds a broken escape or an encoded control character.")
    raw = path.decode("ascii") or "/"
    check_path(raw, encoded_slash=True)
    return Target(
        host=host,
        port=port,
        path=raw,
        query=query.decode("ascii"),
        metadata=ours.get(b"metadata") or None,
        key=ours.get(b"key") or None,
    )


def _name(piece: bytes) -> bytes:
    """A parameter's name as the far side would read it: ``%6Bey`` is ``key``."""
    name = piece.partition(b"=")[0]
    return unquote_to_bytes(name) if b"%" in name else name


def _text(value: bytes) -> str:
    return unquote_to_bytes(value).decode("utf-8", "surrogateescape")


def _refuse(message: str) -> NoReturn:
    raise LavaError("invalid_request", message)
