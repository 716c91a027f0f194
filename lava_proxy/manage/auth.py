"""Who may use the management API: the holder of a secret key in force, and nobody else."""

from __future__ import annotations

from collections.abc import Sequence

from lava_proxy.books.directory import Directory
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import hash_secret
from lava_proxy.store.directory import Principal
from lava_proxy.wire.token import decode_token, find_credential, invalid_token


async def authenticate(directory: Directory, headers: Sequence[tuple[bytes, bytes]]) -> Principal:
    """The principal of a call; 401 without a valid key, 403 for a credential of another kind.

    A forward token carries a secret key, but it is made to be handed to things that call models:
    whoever holds one may spend a customer's credit and not grant any.
    """
    credential = find_credential(headers, None)
    token = decode_token(credential.text)
    if token.kind != "secret_key":
        raise _wrong_kind()
    principal = await directory.principal(hash_secret(token.secret))
    if principal is None:
        raise invalid_token()
    if token.secret != credential.text:
        raise _wrong_kind()
    return principal


def _wrong_kind() -> LavaError:
    return LavaError("forbidden", "this route takes a secret key only")
