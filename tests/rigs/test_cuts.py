"""How exact a cut is, and how fast: streams at a known pace, for customers whose credit ends in the
middle of them."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rig_kit import LONG, TOKEN_E10, Payer, Replica, make_payer, started, wait_settled

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database

PACES_MS = (50, 10, 2, 0)
"""20, 100 and 500 tokens a second, and as fast as it goes."""
STREAMS = 25 if LONG else 1
CREDIT = "0.0003"
"""30 tokens, the prompt's among them."""


@dataclass
class Cut:
    mark: str
    pace_ms: int
    moments_s: list[float] = field(default_factory=list)
    end_s: float = 0.0
    last: bytes = b""

    @property
    def late_s(self) -> float:
        """From the last token to the end, less the time until the token that was not affordable."""
        return max(self.end_s - self.moments_s[-1] - self.pace_ms / 1000, 0)


async def stream(port: int, payer: Payer, cut: Cut) -> None:
    body = {"model": f"sim-5000-{cut.pace_ms}", "stream": True, "user": cut.mark}
    body["messages"] = [{"role": "user", "content": "say something"}]
    sent = json.dumps(body).encode()
    head = (
        "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
        f"Authorization: Bearer {payer.token}\r\nContent-Type: application/json\r\n"
        f"X-Lava-Metadata-Mark: {cut.mark}\r\nContent-Length: {len(sent)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + sent)
    while data := await reader.read(65536):
        cut.moments_s += [time.monotonic()] * data.count(b'"delta":{"content":')
        cut.last = (cut.last + data)[-600:]
    cut.end_s = time.monotonic()
    writer.close()


@pytest.mark.timeout(60 if not LONG else 600)
async def test_cuts(database_url: str, database: Database, tmp_path: Path) -> None:
    async with SimulatedProvider() as sim:
        replica = Replica(database_url, tmp_path / "a", sim.url)
        await started(replica)
        cuts: list[Cut] = []
        payers: list[str] = []
        for pace_ms in PACES_MS:
            for number in range(STREAMS):
                payer, cut = (
                    await make_payer(database, CREDIT),
                    Cut(f"p{pace_ms}n{number}", pace_ms),
                )
                await stream(replica.port, payer, cut)
                cuts.append(cut)
                payers.append(payer.customer_id)
        assert replica.stop() == 0
        await wait_settled(database)
        made = {json.loads(r.body)["user"]: r.tokens_sent for r in sim.requests}
    async with database.connection() as conn:
        rows = await conn.fetch(
            "SELECT * FROM requests WHERE customer_id = ANY($1::text[])", payers
        )
    booked = {row["metadata"]["mark"]: row for row in rows}
    assert len(booked) == len(cuts)
    for cut in cuts:
        row = booked[cut.mark]
        assert row["outcome"] == "cut_off"
        assert b"budget_exhausted" in cut.last
        assert row["output_tokens"] == len(cut.moments_s), "charged and delivered differ"
        left = 30 - row["input_tokens"] - row["output_tokens"]
        assert left == 0, f"{cut.mark}: cut {left} tokens from the end of the credit"
        assert row["charge_e10"] == 30 * TOKEN_E10
    found = await audit(database)
    assert found.sound, found.differences
    assert found.debt_e10 == 0
    for pace_ms in PACES_MS:
        of = [cut for cut in cuts if cut.pace_ms == pace_ms]
        late = sorted(cut.late_s * 1000 for cut in of)
        beyond = sorted(made[cut.mark] - len(cut.moments_s) for cut in of)
        print(
            f"{len(of)} streams at {pace_ms} ms a token: 0 tokens beyond the budget delivered, "
            f"{beyond[len(beyond) // 2]} made for nothing (most {beyond[-1]}), cut after "
            f"{late[len(late) // 2]:.1f} ms (most {late[-1]:.1f})"
        )
