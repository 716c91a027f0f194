"""kill -9 at random moments: after the replay every call that was sent is booked, once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from books_kit import UNIT_METER, Shop, fetch, insert_meter, open_shop, sound

from lava_proxy.books.replay import take_over
from lava_proxy.core.clock import SystemClock
from lava_proxy.rules.pricebook import PriceBook
from lava_proxy.store.database import Database

KILLS = 5
CHILD = Path(__file__).with_name("crashing.py")


class Truth:
    """What the killed processes said of their calls."""

    def __init__(self) -> None:
        self.admitted: set[str] = set()
        self.sent: dict[str, int] = {}
        self.settled: dict[str, int] = {}

    def hear(self, line: bytes) -> None:
        kind, name, *tokens = line.decode().split()
        if kind == "admitted":
            self.admitted.add(name)
        elif kind == "sent":
            self.sent[name] = int(tokens[0])
        elif kind == "settled":
            self.settled[name] = int(tokens[0])


def _run_and_kill(arguments: list[str], truth: Truth, after_s: float) -> None:
    child = subprocess.Popen(
        [sys.executable, str(CHILD), *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith(b"ready")
        timer = threading.Timer(after_s, child.kill)
        timer.start()
        for line in child.stdout:
            if line.endswith(b"\n"):
                truth.hear(line)
        timer.join()


@pytest.mark.parametrize("seed", [20261123])
async def test_kill_nine(database: Database, database_url: str, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    shop = await open_shop(database)
    await insert_meter(database, shop, UNIT_METER)
    owners = [await shop.customer(60_000) for _ in range(3)]
    truth, clock, prices = Truth(), SystemClock(), PriceBook()
    recovered = 0
    for number in range(KILLS):
        arguments = [database_url, str(tmp_path), shop.merchant_id, f"{seed + number}", *owners]
        _run_and_kill(arguments, truth, rng.uniform(0.05, 0.4))
        (done,) = await take_over(tmp_path / "journals", database, clock, prices)
        recovered += done.booked
        found = await sound(database)
        assert found.leased_e10 == 0
        assert list((tmp_path / "journals").iterdir()) == []
    assert recovered > 0
    assert len(truth.settled) > 20

    await books_are_right(database, shop, truth, owners, 60_000)


async def books_are_right(
    database: Database, shop: Shop, truth: Truth, owners: list[str], credit_e10: int
) -> None:
    """Every call that was sent is booked once, for what was said of it, and everything adds up."""
    rows = {
        str(name): (outcome, charge)
        for name, outcome, charge in await fetch(
            database, "SELECT request_id, outcome, charge_e10 FROM requests"
        )
    }
    assert set(truth.sent) <= set(rows) <= truth.admitted
    for name, tokens in truth.settled.items():
        assert rows[name] == ("completed", tokens)
    for name in rows.keys() - truth.settled.keys():
        # One more step may have been journaled than was said.
        outcome, charge = rows[name]
        assert outcome in ("recovered", "completed")
        said = truth.sent.get(name, 0)
        assert said <= charge <= said + 8
    charged = sum(int(str(charge)) for _, charge in rows.values())
    assert charged == len(owners) * credit_e10 - sum(
        [await shop.ledger(f"customer:{o}") for o in owners]
    )
    assert (await sound(database)).debt_e10 == 0
