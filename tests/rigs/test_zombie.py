"""A gateway is stopped for longer than its leases last, and wakes up: what it had was taken back
and spent by another one, so it must open, extend and send nothing on it; what it had used before is
charged all the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rig_kit import LONG, TOKEN_E10, Payer, Replica, call, make_payer, started, wait_settled
from truth import check_books

from lava_proxy.core.ids import new_id
from lava_proxy.core.money import parse_e10
from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store import balance as balances
from lava_proxy.store import credit
from lava_proxy.store.database import Database

ROUNDS = 5 if LONG else 1
CREDIT = "0.05"
LEASE = {"LAVA_LEASE_S": "2", "LAVA_LEASE_GRACE_S": "1", "LAVA_LEASE_RECLAIM_S": "1"}
MORE = "1.00"


@dataclass
class Stream:
    """A running stream as its client sees it: when each token came."""

    mark: str
    moments_s: list[float] = field(default_factory=list)
    end: bytes = b""

    async def run(self, port: int, payer: Payer) -> None:
        body = json.dumps(
            {
                "model": "sim-3000-10",
                "stream": True,
                "user": self.mark,
                "messages": [{"role": "user", "content": "say something"}],
            }
        ).encode()
        head = (
            "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
            f"Authorization: Bearer {payer.token}\r\nContent-Type: application/json\r\n"
            f"X-Lava-Metadata-Mark: {self.mark}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + body)
        while data := await reader.read(65536):
            self.moments_s += [time.monotonic()] * data.count(b'"delta":{"content":')
            self.end = (self.end + data)[-600:]
        writer.close()

    def after(self, moment_s: float) -> int:
        return sum(at > moment_s for at in self.moments_s)


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.timeout(60)
async def test_zombie(database_url: str, database: Database, tmp_path: Path, number: int) -> None:
    payer = await make_payer(database, CREDIT)
    async with SimulatedProvider() as sim:
        a, b = (Replica(database_url, tmp_path / n, sim.url, extra=LEASE) for n in ("a", "b"))
        await started(a, b)
        assert a.process is not None
        seen = [await call(a.port, payer, "first", tokens=50, pace_ms=1, stream=True)]
        stream = Stream("zombie")
        going = asyncio.create_task(stream.run(a.port, payer))
        await asyncio.sleep(0.6 + number * 0.1)
        os.kill(a.process.pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        (holder,) = [p.name for p in (tmp_path / "a" / "journals").iterdir()]
        await _reclaimed(database, holder)
        reclaimed_s = time.monotonic() - stopped_s
        spent_before = await _spent(database, holder)
        turn = 0
        while seen[-1].status == 200 and not seen[-1].cut:  # the other one spends all there is
            turn += 1
            seen.append(await call(b.port, payer, f"b{turn}", tokens=300, pace_ms=0, stream=True))
        before = len(stream.moments_s)
        woken_s = time.monotonic()
        os.kill(a.process.pid, signal.SIGCONT)
        refused = await call(a.port, payer, "refused", tokens=5, pace_ms=1, stream=True)
        async with asyncio.timeout(10):
            await going
        cut_s = time.monotonic() - woken_s
        assert refused.status == 402
        late = await _row(database, "zombie")
        assert await _spent(database, holder) == spent_before, "the old lease was used"
        async with database.transaction() as conn:
            debt = (await balances.balance(conn, payer.customer_id)).debt_e10
            await credit.grant(
                conn,
                grant_id=new_id("credit"),
                owner_id=payer.customer_id,
                kind="operator",
                amount_e10=parse_e10(MORE),
                expires_at=None,
                note=None,
                now=datetime.now(UTC),
            )
        await asyncio.sleep(1.1)  # the refusal is remembered for a second
        seen.append(await call(a.port, payer, "again", tokens=5, pace_ms=1, stream=True))
        assert seen[-1].status == 200
        for replica in (a, b):
            assert replica.stop() == 0
        await wait_settled(database)
        found, rows = await check_books(database, sim, seen, [payer.customer_id])
    charged = sum(row["charge_e10"] for row in rows)
    print(
        f"stopped for {woken_s - stopped_s:.1f}s, reclaimed after {reclaimed_s:.1f}s; "
        f"{before} tokens before, {stream.after(woken_s)} sent after waking, cut after "
        f"{cut_s:.2f}s; late row charged {late['charge_e10']}, debt {debt}"
    )
    assert stream.after(woken_s) == 0
    assert b"budget_exhausted" in stream.end
    assert late["charge_e10"] >= before * TOKEN_E10
    assert debt > 0
    assert debt == charged - seen[-1].tokens * TOKEN_E10 - _input(rows, "again") - parse_e10(CREDIT)
    assert found.debt_e10 == 0  # paid from the new credit


def _input(rows: list, mark: str) -> int:  # type: ignore[type-arg]
    return sum(r["input_tokens"] for r in rows if r["metadata"]["mark"] == mark) * TOKEN_E10


async def _row(database: Database, mark: str) -> dict[str, int]:
    for _ in range(200):
        async with database.connection() as conn:
            row = await conn.fetchrow(
                "SELECT charge_e10, output_tokens FROM requests WHERE metadata->>'mark' = $1", mark
            )
        if row is not None:
            return dict(row)
        await asyncio.sleep(0.02)
    raise AssertionError(f"{mark} is not booked")


async def _reclaimed(database: Database, holder: str) -> None:
    for _ in range(400):
        async with database.connection() as conn:
            if not await conn.fetchval(
                "SELECT count(*) FROM leases WHERE holder_id = $1 AND closed_at IS NULL", holder
            ):
                return
        await asyncio.sleep(0.05)
    raise AssertionError("nobody took the lease back")


async def _spent(database: Database, holder: str) -> int:
    async with database.connection() as conn:
        spent = await conn.fetchval(
            "SELECT coalesce(sum(spent_e10), 0)::bigint FROM leases WHERE holder_id = $1", holder
        )
    return int(spent)
