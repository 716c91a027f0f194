"""Cancelled, or left by the client, at every single await: books and holds are right all the same.

The coroutine of the call is stepped by hand, so that "every await" is counted and not guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from gateway_kit import CHAT, Gate, Payer
from raw_asgi import Raw

from lava_proxy.proxy import watch
from lava_proxy.proxy.intake import Receive
from lava_proxy.proxy.run import Run, StreamCut

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST = 120
HELLO = [{"role": "user", "content": "hello there"}]

CALLS: dict[str, dict[str, object]] = {
    "stream": {"model": "sim-5-1", "stream": True},
    "plain": {"model": "sim-5-10"},
    "provider error": {"model": "sim-5-1-fail500"},
    "drop": {"model": "sim-6-1-drop", "stream": True},
    "cut": {"model": "sim-200-0", "stream": True},
}
CREDIT, SMALL = "0.0300", "0.0008"
OUTCOMES = {True: {"client_gone", "upstream_error"}, False: {"truncated", "upstream_error"}}
"""One of these must have been seen, or nothing was interrupted."""


def _raw(gate: Gate, payer: Payer, asked: dict[str, object]) -> Raw:
    body = json.dumps(asked | {"messages": HELLO}).encode()
    return Raw(gate.app, CHAT, body, {"authorization": f"Bearer {payer.token()}"})


def _cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.fixture(autouse=True)
def watching_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """These calls are over within the moment that the watcher leaves them."""
    whole = watch.Watchers.watch

    def at_once(self: watch.Watchers, run: Run, receive: Receive) -> watch.Watcher:
        watcher = whole(self, run, receive)
        watcher.start()
        self._newer.remove(watcher)
        return watcher

    monkeypatch.setattr(watch.Watchers, "watch", at_once)


@pytest.mark.parametrize("asked", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "cancelled"])
async def test_at_every_await(
    gate: Gate, asked: dict[str, object], cold: bool, leaves: bool
) -> None:
    """Cold: the caller and its credit have to be looked up first."""
    fresh = cold or asked is CALLS["cut"]
    credit = SMALL if asked is CALLS["cut"] else CREDIT
    payer = await gate.payer(credit)
    if not fresh:
        await _raw(gate, payer, {"model": "sim-1-0"}).run()
    booked = len(await gate.rows(payer))
    outcomes = set()
    for suspension in range(1, MOST):
        if fresh and suspension > 1:
            payer, booked = await gate.payer(credit), 0
        raw = _raw(gate, payer, asked)
        act = raw.leave if leaves else _cancel
        with contextlib.suppress(asyncio.CancelledError, StreamCut):
            await asyncio.create_task(raw.run_until(suspension, act))
        rows = (await gate.rows(payer))[booked:]
        booked += len(rows)
        assert len(rows) <= 1
        assert len(rows) == 1 or not raw.sent, raw.sent
        outcomes |= {row["outcome"] for row in rows}
        assert await gate.left_e10(payer) >= 0
        await gate.check(ledger=False)
        if raw.waited < suspension:
            break
    else:
        pytest.fail("the call never came to its end")
    assert suspension > 3
    assert OUTCOMES[leaves] & outcomes
