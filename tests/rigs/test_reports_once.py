"""Usage reports are booked exactly once: each id from many clients at two gateways at once, some of
whom hear no reply or send other content, while gateways are killed."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from pathlib import Path

import pytest
from rig_kit import LONG, TOKEN_E10, Payer, Replica, make_payer, started, wait_settled

from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database

SEED = 20261204
IDS = 300 if LONG else 15
AT_ONCE = 50 if LONG else 12
KILL_EVERY = 40 if LONG else 10
TOKENS = 10


async def post(
    replica: Replica, payer: Payer, request_id: str, *, tokens: int, hears: bool
) -> tuple[int, bytes]:
    """(status, body); status 0 where no answer came, or the client did not wait for it."""
    members = {"request_id": request_id, "customer_id": payer.customer_id, "meter_slug": "m"}
    body = json.dumps({**members, "input_tokens": tokens}).encode()
    head = (
        "POST /v1/requests HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
        f"Authorization: Bearer {payer.secret}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
        writer.write(head.encode() + body)
        await writer.drain()
        if not hears:
            await asyncio.sleep(0.002)
            writer.transport.abort()
            return 0, b""
        answer = await reader.read()
        writer.close()
    except OSError:
        return 0, b""
    top, _, content = answer.partition(b"\r\n\r\n")
    return (int(top.split()[1]), content) if top else (0, b"")


async def same_id(
    rng: random.Random, replicas: list[Replica], payer: Payer, request_id: str
) -> list[tuple[int, int, bytes]]:
    """Many clients report one id at once, a tenth with other content, a third without hearing."""

    async def one() -> tuple[int, int, bytes]:
        tokens = TOKENS if rng.random() < 0.9 else TOKENS + 1
        hears = rng.random() < 0.67
        status, body = await post(
            rng.choice(replicas), payer, request_id, tokens=tokens, hears=hears
        )
        return tokens, status, body

    return list(await asyncio.gather(*(one() for _ in range(AT_ONCE))))


@pytest.mark.timeout(90 if not LONG else 900)
async def test_once(database_url: str, database: Database, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    payer = await make_payer(database, "100.00")
    replicas = [Replica(database_url, tmp_path / name, "http://127.0.0.1:9") for name in "ab"]
    await started(*replicas)
    answers: dict[str, dict[int, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    statuses: dict[int, int] = defaultdict(int)
    for number in range(IDS):
        request_id = f"rep_{number}"
        going = asyncio.create_task(same_id(rng, replicas, payer, request_id))
        if number % KILL_EVERY == KILL_EVERY // 2:
            await asyncio.sleep(rng.uniform(0, 0.02))
            victim = rng.choice(replicas)
            victim.kill()
            victim.start()
            await victim.ready()
        for tokens, status, body in await going:
            statuses[status] += 1
            if status == 200:
                answers[request_id][tokens].add(body)
    for number in range(IDS):  # whoever heard nothing asks again, in the end
        for tokens in (TOKENS, TOKENS + 1):
            status, body = await post(
                replicas[number % 2], payer, f"rep_{number}", tokens=tokens, hears=True
            )
            statuses[status] += 1
            assert status in (200, 409)
            if status == 200:
                answers[f"rep_{number}"][tokens].add(body)
    for replica in replicas:
        assert replica.stop() == 0
    await wait_settled(database)
    async with database.connection() as conn:
        rows = await conn.fetch(
            "SELECT request_id, input_tokens, charge_e10 FROM requests WHERE customer_id = $1",
            payer.customer_id,
        )
    assert sorted(row["request_id"] for row in rows) == sorted(f"rep_{n}" for n in range(IDS))
    for row in rows:
        heard = answers[row["request_id"]]
        assert list(heard) == [row["input_tokens"]], "a client heard of content that is not booked"
        assert len(heard[row["input_tokens"]]) == 1, "answers differ"
        assert row["charge_e10"] == row["input_tokens"] * TOKEN_E10
    found = await audit(database)
    assert found.sound, found.differences
    assert set(statuses) <= {0, 200, 409, 503}
    print(f"ids={IDS} clients={AT_ONCE} each, by status {dict(statuses)}, rows={len(rows)} {SEED=}")
