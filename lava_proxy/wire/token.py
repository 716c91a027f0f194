"""Who is calling: find the credential in a request, read its form, and hide it from logs.

A credential is a raw secret key (``aks_live_``, ``aks_test_``), an opaque forward token
(``lava_ft_``), a spend key (``lava_sk_``), or the public forward token: base64 of a JSON object
that carries the secret key itself. So the last one is a full credential in every log.

Two kinds of refusal. What cannot be recognised is 401 `invalid_token` with one body, the same as
for unknown and for not yours (`invalid_token`). A JSON object with wrong members is 400
`invalid_request` that says what to change: nothing was looked up, so nothing is given away.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Literal, NoReturn

import orjson

from lava_adapters.values import dataclass
from lava_proxy.core.errors import LavaError
from lava_proxy.wire.sigv4 import is_signature

TOKEN_MAX_CHARS = 8192

CREDENTIAL_HEADERS = frozenset(
    {b"authorization", b"x-api-key", b"x-goog-api-key", b"xi-api-key", b"api-key"}
)

TokenKind = Literal["secret_key", "opaque", "spend_key"]


@dataclass(frozen=True, slots=True)
class Credential:
    """The text a caller proves itself with, and where it stood."""

    text: str = field(repr=False)
    place: str


@dataclass(frozen=True, slots=True)
class Token:
    """What a credential says. `secret` is the text to look up by its hash."""

    kind: TokenKind
    secret: str = field(repr=False)
    customer_id: str | None = None
    meter_slug: str | None = None
    provider_key: str | None = field(default=None, repr=False)
    disable_billing: bool = False


_PREFIXES: tuple[tuple[str, TokenKind], ...] = (
    ("aks_live_", "secret_key"),
    ("aks_test_", "secret_key"),
    ("lava_ft_", "opaque"),
    ("lava_sk_", "spend_key"),
)
_SECRET_KEY = re.compile(r"aks_(?:live|test)_[A-Za-z0-9_-]{1,200}")
_OPAQUE = re.compile(r"lava_(?:ft|sk)_[A-Za-z0-9_-]{1,200}")
_HEADER_SAFE = re.compile(r"[\x21-\x7e]{1,4096}")
_SCHEMES = frozenset({"bearer", "token", "key"})
"""``Token`` and ``Key`` are what some speech and media SDKs write for ``Bearer``."""

_TAIL = r"(?:[A-Za-z0-9._~+/-]|%2[BbFfDd]|%5[Ff])"
_START = r"(?:(?<![A-Za-z0-9_])|(?<=%[0-9A-Fa-f][0-9A-Fa-f]))"
_SHAPES = re.compile(
    rf"""
      (?P<ours>(?:aks|css)_(?:live|test)_|lava_(?:sk|ft)_|whsec_){_TAIL}+=*
    | (?P<head>\b(?:bearer|basic)[ ]+){_TAIL}+=*
    | (?P<scheme>\b(?:token|key)[ ]+)(?={_TAIL}*[0-9]){_TAIL}{{16,}}=*
    | (?P<param>{_START}(?:api[_-]?key|key|access_token|provider_key|secret_key)["']?
        (?:=|%3d|:[ ]?)["']?)[^\s&"',;#}}]+
    | {_START}(?P<theirs>sk-|sk_(?!(?:test_)?[0-9a-hjkmnp-tv-z]{{26}}\b)|gsk_|xai-|pplx-|hf_
        |r8_|AIza|AKIA|ASIA|nvapi-|fw_|csk-)[a-z0-9_*-]{{12,}}
    | {_START}(?-i:ey[JA]|ewo|ewk|ew0){_TAIL}{{16,}}(?:=|%3d)*
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Prefixes of ours and of common providers; the last line is how a forward token begins: base64 of
``{`` and a quote, a space or a line break."""

_FIELDS = frozenset(
    {
        "secret_key",
        "customer_id",
        "connection_id",
        "meter_slug",
        "provider_key",
        "disable_billing",
    }
)
_LEGACY = frozenset({"product_secret", "meter_secret", "connection_secret"})


def find_credential(headers: Sequence[tuple[bytes, bytes]], key_param: str | None) -> Credential:
    """The one credential of a request; `headers` have lower-case names, `key_param` is the query's
    ``key``. 401 where there is none, 400 where two places say different things."""
    found: Credential | None = None
    for name, value in headers:
        if name not in CREDENTIAL_HEADERS:
            continue
        if name == b"authorization" and is_signature(value):
            continue  # of the caller's own for AWS: ours stands elsewhere
        text = value.decode("latin-1").strip()
        if name == b"authorization":
            text = _bearer(text)
        if text:
            found = _agree(found, Credential(text, name.decode("ascii")))
    if key_param:
        found = _agree(found, Credential(key_param, "key"))
    if found is None:
        message = "No credential: send Authorization: Bearer <secret key or forward token>."
        raise LavaError("invalid_token", message)
    return found


def decode_token(text: str) -> Token:
    """`text` as a token; its secret is not checked here. Raises 401 or 400, see above."""
    if len(text) > TOKEN_MAX_CHARS:
        raise invalid_token()
    for prefix, kind in _PREFIXES:
        if text.startswith(prefix):
            shape = _SECRET_KEY if kind == "secret_key" else _OPAQUE
            if shape.fullmatch(text) is None:
                raise invalid_token()
            return Token(kind, text)
    return _forward_token(_members(text))


def invalid_token() -> LavaError:
    """The one answer to malformed, unknown, revoked and not yours."""
    return LavaError("invalid_token", "The credential is not valid.")


def redact(text: str) -> str:
    """`text`, bound for a log, with every credential-shaped part hidden and its telling prefix
    kept. Rather too much goes than too little; our own ids stay readable."""
    return _SHAPES.sub(_mark, text)


def _mark(match: re.Match[str]) -> str:
    return next(filter(None, match.groups()), "") + "[redacted]"


def _bearer(text: str) -> str:
    scheme, space, rest = text.partition(" ")
    if not space:
        return "" if scheme.lower() in _SCHEMES else text
    if scheme.lower() not in _SCHEMES:
        raise LavaError("invalid_token", "The Authorization header must be Bearer <token>.")
    return rest.strip()


def _agree(found: Credential | None, other: Credential) -> Credential:
    if found is None or found.text == other.text:
        return found or other
    raise LavaError(
        "invalid_request",
        f"{found.place} and {other.place} carry different credentials; send one. "
        "A provider's own key belongs in the forward token's provider_key.",
    )


def _members(text: str) -> dict[str, object]:
    """The JSON object inside a forward token."""
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    digits = text.rstrip("=")
    if len(digits) != len(text) and (len(text) % 4 or len(text) - len(digits) > 2):
        raise invalid_token()
    text = digits + "=" * (-len(digits) % 4)
    try:
        body = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
        members: object = orjson.loads(body)
    except ValueError:
        # binascii's, orjson's and the codec's errors are all of this class.
        raise invalid_token() from None
    if not isinstance(members, dict):
        _refuse("The forward token's JSON must be an object.")
    # Every member has a colon outside its strings, so as many colons as keys means no key twice.
    if body.count(b":") != len(members):
        try:
            json.loads(body, object_pairs_hook=_no_duplicates, parse_int=str)
        except (ValueError, RecursionError):
            raise invalid_token() from None
    return members


def _no_duplicates(pairs: list[tuple[str, object]]) -> Mapping[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse("The forward token's JSON has a key twice.")
    return members


def _forward_token(members: dict[str, object]) -> Token:
    if not _FIELDS.issuperset(members):
        _refuse_fields(members)
    secret = members.get("secret_key")
    if not isinstance(secret, str):
        _refuse("The forward token needs secret_key, a string.")
    if _SECRET_KEY.fullmatch(secret) is None:
        raise invalid_token()
    customer = _name_field(members, "customer_id")
    if "connection_id" in members:
        alias = _name_field(members, "connection_id")
        if customer is not None and alias is not None and customer != alias:
            _refuse("The forward token's customer_id and connection_id differ.")
        customer = customer or alias
    meter = _name_field(members, "meter_slug")
    if customer is not None and meter is None:
        _refuse("The forward token has customer_id but no meter_slug.")
    provider_key = members.get("provider_key")
    if provider_key is not None and not (
        isinstance(provider_key, str) and _HEADER_SAFE.fullmatch(provider_key)
    ):
        _refuse("The forward token's provider_key must be printable ASCII without spaces.")
    disable = members.get("disable_billing")
    if disable is not None and not isinstance(disable, bool):
        _refuse("The forward token's disable_billing must be true or false.")
    return Token("secret_key", secret, customer, meter, provider_key, disable is True)


def _name_field(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 255:
        _refuse(f"The forward token's {name} must be a string of 1 to 255 printable characters.")
    return value


def _refuse_fields(members: Mapping[str, object]) -> NoReturn:
    unknown = sorted(members.keys() - _FIELDS)
    legacy = ", ".join(name for name in unknown if name in _LEGACY)
    if legacy:
        _refuse(f"The forward token has {legacy}, no longer used: send customer_id and meter_slug.")
    names = ", ".join(f"{name[:32]!a}" for name in unknown[:5])
    _refuse(f"The forward token has unknown fields: {names}.")


def _refuse(message: str) -> NoReturn:
    raise LavaError("invalid_request", message)
