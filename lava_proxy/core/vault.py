"""Secrets that must be had again (to sign with, to call with), sealed before they are stored.

AES-256-GCM. A sealed value names the key that sealed it, so keys can be changed: the first of
``LAVA_MASTER_KEY`` seals, all of them open. `context` (an id) is bound in: a sealed value that is
copied to another row does not open there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lava_proxy.core.settings import ConfigurationError, Settings

KEY_BYTES = 32
KEY_FILE = "master.key"

_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_HEAD_BYTES = len(_VERSION) + _KEY_ID_BYTES + _NONCE_BYTES

NO_KEY = (
    "LAVA_MASTER_KEY is not set: with LAVA_DATABASE_URL, secrets are sealed with a key that every "
    "machine must share (32 bytes in base64 or hex; `openssl rand -base64 32` makes one)"
)


class Vault:
    """Seals with the first key, opens with any."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ConfigurationError(f"a master key has {KEY_BYTES} bytes")
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._first = _key_id(keys[0])

    def seal(self, secret: str, context: str) -> bytes:
        """`secret` as bytes that may be stored."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._first].encrypt(nonce, secret.encode(), context.encode())
        return _VERSION + self._first + nonce + sealed

    def unseal(self, sealed: bytes, context: str) -> str:
        """What was sealed. Raises `ConfigurationError` when no key of ours opens it."""
        key_id = sealed[len(_VERSION) : len(_VERSION) + _KEY_ID_BYTES]
        cipher = self._ciphers.get(key_id)
        if cipher is None or not sealed.startswith(_VERSION):
            raise ConfigurationError(
                f"a secret is sealed with the master key {key_id.hex()}, which LAVA_MASTER_KEY "
                "does not hold"
            )
        nonce = sealed[_HEAD_BYTES - _NONCE_BYTES : _HEAD_BYTES]
        try:
            return cipher.decrypt(nonce, sealed[_HEAD_BYTES:], context.encode()).decode()
        except InvalidTag:
            raise ConfigurationError("a sealed secret was changed, or is another row's") from None


def open_vault(settings: Settings) -> Vault:
    """The vault of this configuration. Raises `ConfigurationError`. On an embedded database without
    ``LAVA_MASTER_KEY`` a key is made next to it."""
    if settings.master_key is not None:
        words = settings.master_key.get_secret_value().split(",")
        return Vault([parse_key(word.strip()) for word in words if word.strip()])
    if settings.database_url is not None:
        raise ConfigurationError(NO_KEY)
    return Vault([_own_key(settings.data_dir / KEY_FILE)])


def parse_key(text: str) -> bytes:
    """32 bytes in hex or base64. Raises `ConfigurationError`."""
    with suppress(ValueError):
        key = bytes.fromhex(text)
        if len(key) == KEY_BYTES:
            return key
    with suppress(binascii.Error, ValueError):
        key = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
        if len(key) == KEY_BYTES:
            return key
    raise ConfigurationError(f"LAVA_MASTER_KEY: each key is {KEY_BYTES} bytes in base64 or hex")


def _own_key(path: Path) -> bytes:
    """The key file's key. It appears whole or not at all, and only once, whoever else starts."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        number, made = tempfile.mkstemp(prefix=f".{KEY_FILE}-", dir=path.parent)  # mode 0600
        try:
            with open(number, "wb") as file:
                file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(made, path)
        finally:
            os.unlink(made)
    return parse_key(path.read_text("ascii").strip())


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"lava master key " + key).digest()[:_KEY_ID_BYTES]
