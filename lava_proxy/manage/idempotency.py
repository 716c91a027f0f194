"""The ``Idempotency-Key`` header: a POST that is sent twice works once.

A key belongs to the merchant and is kept for 30 days with a hash of route and body. The same key
with the same content gets the first answer again (``idempotent-replayed: true``); with other
content it is 409. Only success is kept: after an error the key is free, so the caller may mend the
request and send it under the same key.

`once` claims the key in the transaction that does the work, so both happen or neither; a second
caller waits for the first one's commit. `once_apart` is for work that commits elsewhere and is
idempotent by itself (reports): the claim is committed first, and a claim without an answer, left
by a crash, is simply worked again. `anew` is for what changes nothing (quotes): the key stands for
one request, and a repeat is answered by what holds now.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from hashlib import sha256

from lava_proxy.core.errors import LavaError
from lava_proxy.manage.call import Answer, Call
from lava_proxy.manage.desk import Desk
from lava_proxy.manage.text import exact_json
from lava_proxy.store import idempotency as store
from lava_proxy.store.database import Connection
from lava_proxy.store.idempotency import Used

_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


async def once(desk: Desk, call: Call, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """Do `work` in a transaction, or answer what it answered before."""
    key = _key_of(call)
    if key is None:
        async with desk.writing() as conn:
            return await work(conn)
    body_hash = _hash(call)
    async with desk.writing() as conn:
        used = await store.claim(conn, call.merchant_id, key, body_hash, desk.books.now())
        known = None if used is None else _replay(used, body_hash)
        if known is not None:
            return known
        made = await work(conn)
        await store.answer(conn, call.merchant_id, key, made.status, made.kept or made.body)
    return made


async def anew(desk: Desk, call: Call, work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Do `work`, which changes nothing, each time; with other content under the key it is 409."""
    return await once_apart(desk, call, lambda _: work(), kept=False)


async def once_apart(
    desk: Desk,
    call: Call,
    work: Callable[[str | None], Awaitable[Answer]],
    *,
    kept: bool = True,
) -> Answer:
    """Do `work`, which may be done twice without harm, or answer what it answered before. It is
    given a text that is the same whenever it is done again for this key, and no other's; None
    without a key. Its answer is `kept` for repeats, or made each time."""
    key = _key_of(call)
    if key is None:
        return await work(None)
    body_hash = _hash(call)
    now = desk.books.now()
    async with desk.writing() as conn:
        used = await store.claim(conn, call.merchant_id, key, body_hash, now)
    known = None if used is None else _replay(used, body_hash)
    if known is not None:
        return known
    since = now if used is None else used.created_at
    try:
        made = await work(f"{call.merchant_id} {since.isoformat()} {key}")
    except LavaError as error:
        if error.fault == "caller":
            async with desk.writing() as conn:
                await store.free(conn, call.merchant_id, key, body_hash)
        raise
    if kept:
        async with desk.writing() as conn:
            await store.answer(conn, call.merchant_id, key, made.status, made.body)
    return made


def _replay(used: Used, body_hash: bytes) -> Answer | None:
    """The stored answer; None where there is none yet."""
    if used.body_hash != body_hash:
        raise LavaError("idempotency_conflict", "this Idempotency-Key came with another request")
    if used.status == 0:
        return None
    return Answer(used.status, used.answer, {"idempotent-replayed": "true"})


def _key_of(call: Call) -> str | None:
    keys = {value for name, value in call.headers if name == b"idempotency-key"}
    if not keys:
        return None
    text = keys.pop().decode("latin-1")
    if keys or _KEY.fullmatch(text) is None:
        raise LavaError(
            "invalid_request", "Idempotency-Key must be given once, 1 to 255 ASCII characters"
        )
    return text


def _hash(call: Call) -> bytes:
    """By meaning, not by bytes: key order and white space are the client library's business."""
    return sha256(exact_json([call.method, call.path, call.members()])).digest()
