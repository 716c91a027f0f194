"""Identifiers: a prefix that says what it is, then a ULID, so that ids sort by time of making.

Callers treat ids as opaque. Secrets are not ids: they come from `new_secret` and carry 256 random
bits; only their SHA-256 is stored.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import time
from functools import lru_cache

PREFIXES = {
    "merchant": "mer_",
    "secret_key": "sk_",
    "customer": "con_",
    "meter": "prd_",
    "request": "req_",
    "credit": "crd_",
    "lease": "lea_",
    "transaction": "txn_",
    "forward_token": "ft_",
    "holder": "hld_",
    "plan": "sc_",
    "credit_bundle": "cb_",
    "subscription": "sub_",
    "checkout_session": "cs_",
    "payment": "pay_",
    "setup": "set_",
    "webhook": "wh_",
    "event": "evt_",
    "spend_key": "spk_",
    "wallet": "wal_",
    "price": "prc_",
}

_SECRET_PREFIX = re.compile(r"(?:aks|lava)_[a-z]+_|whsec_")
"""Named, because the random part may hold an underscore too."""


DRAWN = 64
"""Random halves of ids that are drawn at a time."""

_DIGITS = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_FIVE_BITS = bytes(_DIGITS[byte & 31] for byte in range(256))
_ULID = re.compile(r"_([0-7][0-9A-HJKMNP-TV-Z]{9})[0-9A-HJKMNP-TV-Z]{16}\Z")
_PAIRS = tuple(chr(high) + chr(low) for high in _DIGITS for low in _DIGITS)


def new_id(kind: str, *, test: bool = False) -> str:
    """A fresh id such as ``req_01J...``, or ``req_test_01J...`` for the test mode."""
    # A ULID: 48 bits of milliseconds and 80 random bits, 5 to a digit. Every call needs one, and
    # the library takes six times as long.
    ms = time.time_ns() // 1_000_000
    at = _seconds(ms >> 10) + _PAIRS[ms & 1023]
    return f"{PREFIXES[kind]}{'test_' if test else ''}{at}{_random()}"


def _random() -> str:
    """16 random digits. Many are drawn at once: a system call each would cost more than the id."""
    try:
        return _drawn.pop()
    except IndexError:
        digits = os.urandom(16 * DRAWN).translate(_FIVE_BITS).decode("ascii")
        _drawn.extend(digits[start : start + 16] for start in range(16, len(digits), 16))
        return digits[:16]


_drawn: list[str] = []
os.register_at_fork(after_in_child=_drawn.clear)


@lru_cache(maxsize=16)
def _seconds(at: int) -> str:
    """The first eight digits, the same for a second of 1024 milliseconds."""
    return _PAIRS[at >> 30] + _PAIRS[at >> 20 & 1023] + _PAIRS[at >> 10 & 1023] + _PAIRS[at & 1023]


def wallet_id_of(merchant_id: str, *, test: bool = False) -> str:
    """A merchant's wallet, one per mode: it is there before anything was paid in."""
    own = merchant_id.removeprefix(PREFIXES["merchant"])
    return f"{PREFIXES['wallet']}{'test_' if test else ''}{own}"


def id_from(kind: str, seed: str, *, test: bool = False) -> str:
    """The same id for the same seed: what is asked for twice is made once."""
    digits = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()[:26]
    return f"{PREFIXES[kind]}{'test_' if test else ''}{digits.translate(_FIVE_BITS).decode()}"


def made_ms(object_id: str) -> int | None:
    """When an id of `new_id` was made, in milliseconds since 1970; None for what is none."""
    found = _ULID.search(object_id)
    if found is None:
        return None
    ms = 0
    for digit in found[1].encode():
        ms = ms << 5 | _DIGITS.index(digit)
    return ms


def is_test(object_id: str) -> bool:
    """Whether an object was made in test mode."""
    return "_test_" in object_id


def new_secret(prefix: str) -> str:
    """A fresh secret: `prefix` (``aks_live_``, ...) and 43 url-safe characters."""
    return prefix + secrets.token_urlsafe(32)


def new_webhook_secret() -> str:
    """``whsec_`` and 32 random bytes in standard base64, as Standard Webhooks has it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def hash_secret(secret: str) -> bytes:
    """How a secret is stored and looked up: SHA-256, 32 bytes. The input has 256 random bits, so a
    plain hash is enough: there is nothing to guess."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def preview_of(secret: str) -> str:
    """What a person may see of a spend key again: its prefix and the first eight characters."""
    return f"{secret[: len('lava_sk_') + 8]}****"


def hint_of(secret: str) -> str:
    """What a person may see of a secret again: its prefix and its last four characters."""
    prefix = _SECRET_PREFIX.match(secret)
    return f"{prefix.group() if prefix else ''}****{secret[-4:]}"
