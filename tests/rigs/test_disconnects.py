"""Disconnect storm: clients with kept connections leave at random points, by FIN and by RST.

Afterwards nothing is left of them: no byte in anybody else's answer, no open call, no hold, no
connection too many; and every call that the provider ran is booked once.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from leaver import PIECES, Leaver, Visit, answer
from rig_kit import LONG, TOKEN_E10, Replica, make_payer, started, wait_settled

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store.audit import audit
from lava_proxy.store.database import Database

VISITS = 2000 if LONG else 300
CLIENTS = 20
SEED = 20261127
DRAINS_MAX = 100
"""The default of `LAVA_CLIENT_DRAINS_MAX`."""
PATH = "/v1/chat/completions"


async def gauges(replica: Replica) -> dict[str, float]:
    """The gateway's own figures."""
    _, text = await replica.get("/metrics")
    return {
        name: float(value)
        for name, value in re.findall(r"^(lava_\w+) (\S+)$", text.decode(), re.MULTILINE)
    }


@pytest.mark.parametrize("policy", ["cancel", "drain"])
@pytest.mark.timeout(60 if not LONG else 600)
async def test_clients_leave(
    database_url: str, database: Database, tmp_path: Path, policy: str
) -> None:
    # A busy machine is not what this is about.
    extra = {"LAVA_DATABASE_WAIT_S": "20", "LAVA_DATABASE_TIMEOUT_S": "20"}
    if policy == "drain":
        extra["LAVA_CLIENT_DRAIN_PROVIDERS"] = "openai"
    async with SimulatedProvider({PATH: answer}) as sim:
        replica = Replica(database_url, tmp_path / "a", sim.url, extra=extra)
        await started(replica)
        payers = [await make_payer(database, "100.00") for _ in range(CLIENTS)]
        rng = random.Random(SEED)
        clients = [Leaver(replica.port, p, random.Random(rng.random())) for p in payers]
        await asyncio.gather(*[_visits(n, client) for n, client in enumerate(clients)])
        visits = [visit for client in clients for visit in client.visits]
        await _quiet(replica)
        after = await gauges(replica)
        assert after["lava_open_calls"] == after["lava_holds_open"] == after["lava_held_usd"] == 0
        # Kept ones, and never more than ran at once: clients, and answers without one.
        assert sim.connections_open <= CLIENTS + (DRAINS_MAX if policy == "drain" else 0)
        assert replica.stop() == 0
        await wait_settled(database)
        await _check(database, sim, visits, policy)


async def _visits(number: int, client: Leaver) -> None:
    for n in range(VISITS // CLIENTS):
        await client.visit(f"v-{number}-{n}-v")
    await client.bye()


async def _quiet(replica: Replica) -> None:
    """Until nothing is on its way; the gauges are sampled once a second."""
    for _ in range(100):
        figures = await gauges(replica)
        if not (figures["lava_open_calls"] or figures["lava_ledger_queue_rows"]):
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.2)


async def _check(
    database: Database, sim: SimulatedProvider, visits: list[Visit], policy: str
) -> None:
    assert not [v for v in visits if v.error], [v for v in visits if v.error][:3]
    assert not [v for v in visits if v.crossed], "bytes of one customer reached another"
    assert {v.status for v in visits} <= {0, 200}
    assert all(v.whole for v in visits if v.way in ("whole", "at the end"))
    by_mark = {v.mark: v for v in visits}
    async with database.connection() as conn:
        rows = await conn.fetch("SELECT * FROM requests")
    booked = Counter(row["metadata"]["mark"] for row in rows)
    assert max(booked.values()) == 1, "a call is booked twice"
    ran = {json.loads(request.body)["user"]: request for request in sim.requests}
    assert len(ran) == len(sim.requests), "a call ran twice"
    assert set(ran) <= set(booked), "a call ran and is not booked"
    for row in rows:
        visit = by_mark[row["metadata"]["mark"]]
        if row["outcome"] == "void":
            assert row["charge_e10"] == 0
            continue
        assert row["outcome"] in ("completed", "client_gone")
        assert row["charge_e10"] == (row["input_tokens"] + row["output_tokens"]) * TOKEN_E10
        if visit.whole or policy == "drain":
            assert (row["usage_source"], row["output_tokens"]) == ("provider", PIECES)
    found = await audit(database)
    assert found.sound, found.differences
    assert found.debt_e10 == 0
    _tell(policy, visits, ran, rows)


def _tell(policy: str, visits: list[Visit], ran: dict[str, object], rows: list[object]) -> None:
    ways = Counter(v.way for v in visits)
    assert min(ways.values()) > 0
    late = sorted(
        (request.closed_early_at - visit.left_s) * 1000
        for visit in visits
        if visit.left_s is not None
        and (request := ran.get(visit.mark)) is not None
        and request.closed_early_at is not None
    )
    figures = f"{len(visits)} visits {dict(ways)}, {len(ran)} ran, {len(rows)} booked"
    if policy == "cancel":
        assert late, "nobody was cut short"
        p50, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
        print(f"\ncancel, seed {SEED}: {figures}; provider let go after {p50:.0f}/{p99:.0f} ms")
        assert p50 < 100  # the promise; the tail is this machine's
    else:
        assert not late, "an answer was not read to its end"
        print(f"\ndrain, seed {SEED}: {figures}; all read to their end")
