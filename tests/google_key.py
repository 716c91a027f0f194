"""A service account's key file for tests, its key made anew in every run."""

from __future__ import annotations

import json
from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@cache
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_file(**more: object) -> bytes:
    pem = private_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    body: dict[str, object] = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "key-1",
        "private_key": pem.decode(),
        "client_email": "gateway@p.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    return json.dumps({k: v for k, v in (body | more).items() if v is not None}).encode()
