"""A Google service account's key file, and the signed request for an access token that it makes."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

TOKEN_HOST = "oauth2.googleapis.com"  # noqa: S105 - a host
TOKEN_PATH = "/token"  # noqa: S105 - a path
TOKEN_URL = f"https://{TOKEN_HOST}{TOKEN_PATH}"
"""The only address that a key is ever shown to, whatever its file says."""

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LIFETIME_S = 3600
_TEXTS = ("client_email", "private_key_id", "private_key")


class AccountError(ValueError):
    """The file is no usable service account key; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Who asks for tokens, and the key that proves it."""

    email: str
    key_id: str
    key: rsa.RSAPrivateKey = field(repr=False)


def read_account(text: bytes) -> ServiceAccount:
    """The account in a key file. Raises `AccountError`."""
    try:
        body: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise AccountError("it is not JSON") from None
    if type(body) is not dict or body.get("type") != "service_account":
        raise AccountError("it is no service account's key (its type says otherwise)")
    if any(type(body.get(name)) is not str for name in _TEXTS):
        raise AccountError(f"it needs {', '.join(_TEXTS)}")
    if body.get("universe_domain", "googleapis.com") != "googleapis.com":
        raise AccountError("its universe_domain is not googleapis.com")
    try:
        key = serialization.load_pem_private_key(body["private_key"].encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise AccountError("its private_key cannot be read") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise AccountError("its private_key is not an RSA key")
    return ServiceAccount(body["client_email"], body["private_key_id"], key)


def token_request(account: ServiceAccount, at: datetime) -> bytes:
    """The form that asks for a token of an hour."""
    issued = int(at.timestamp())
    claims = {
        "iss": account.email,
        "scope": _SCOPE,
        "aud": TOKEN_URL,
        "iat": issued,
        "exp": issued + _LIFETIME_S,
    }
    head = {"alg": "RS256", "typ": "JWT", "kid": account.key_id}
    text = _encoded(orjson.dumps(head)) + b"." + _encoded(orjson.dumps(claims))
    signature = account.key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    assertion = text + b"." + _encoded(signature)
    return urlencode({"grant_type": _GRANT, "assertion": assertion}).encode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
