"""A loop that does not turn is noticed from beside it, and what only looks like it is not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lava_proxy.core.settings import Settings
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers import watchdog as module
from lava_proxy.workers.watchdog import LOOKS_PER_STALL, Watchdog, watching

STALL_S = 0.1
LONG_S = 0.4
"""A stall, but not the end."""


def block_the_loop(seconds: float) -> None:
    time.sleep(seconds)


async def _watched(
    block: Callable[[float], None],
    seconds: float,
    *,
    end_s: float = 0.6,
    on_hung: Callable[[], object] | None = None,
) -> Metrics:
    metrics = Metrics([])
    watchdog = Watchdog(metrics, stall_s=STALL_S, end_s=end_s, on_hung=on_hung)
    watchdog.start()
    await asyncio.sleep(STALL_S)
    block(seconds)
    await asyncio.sleep(STALL_S)
    watchdog.stop()
    return metrics


def _figures(metrics: Metrics) -> tuple[float | None, float | None]:
    value = metrics.registry.get_sample_value
    return value("lava_loop_stalls_total"), value("lava_loop_stalled")


async def test_it_is_logged_once_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    metrics = await _watched(block_the_loop, LONG_S)
    assert _figures(metrics) == (1, 0)
    (stands, turns) = [r.getMessage() for r in caplog.records if r.name == module.__name__]
    assert "in block_the_loop" in stands
    assert "turns again" in turns


async def test_others_see_it_meanwhile() -> None:
    metrics = Metrics([])
    watchdog = Watchdog(metrics, stall_s=STALL_S, end_s=0, on_hung=None)
    seen: list[object] = []
    watchdog.start()
    other = threading.Timer(LONG_S / 2 + STALL_S, lambda: seen.append(_figures(metrics)))
    other.start()
    block_the_loop(LONG_S + STALL_S)
    other.join()
    await asyncio.sleep(STALL_S)
    watchdog.stop()
    assert seen == [(1, 1)]
    assert _figures(metrics) == (1, 0)


async def test_who_turns_is_left_alone() -> None:
    metrics = Metrics([])
    watchdog = Watchdog(metrics, stall_s=STALL_S, end_s=0, on_hung=None)
    watchdog.start()
    for _ in range(20):
        block_the_loop(STALL_S / LOOKS_PER_STALL)
        await asyncio.sleep(0)
    watchdog.stop()
    assert _figures(metrics) == (0, 0)


async def test_what_hangs_for_good_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[bool] = []
    await _watched(block_the_loop, 1.0, on_hung=lambda: ended.append(True))
    assert ended
    assert "its journal keeps what was open" in caplog.text


@pytest.mark.parametrize("end_s", [0.0, 0.6])
async def test_a_host_is_never_ended(caplog: pytest.LogCaptureFixture, end_s: float) -> None:
    metrics = await _watched(block_the_loop, 1.0, end_s=end_s, on_hung=None)
    assert _figures(metrics) == (1, 0)
    assert "this process ends" not in caplog.text


async def test_never_means_never() -> None:
    ended: list[bool] = []
    await _watched(block_the_loop, 1.0, end_s=0.0, on_hung=lambda: ended.append(True))
    assert not ended


async def test_a_debugger_at_its_prompt_is_no_fault() -> None:
    space: dict[str, Callable[[float], None]] = {"__name__": "bdb"}  # type: ignore[dict-item]
    exec("import time\ndef prompt(seconds):\n    time.sleep(seconds)", space)
    ended: list[bool] = []
    metrics = await _watched(space["prompt"], 1.0, on_hung=lambda: ended.append(True))
    assert _figures(metrics) == (0, 0)
    assert not ended


async def test_nor_is_one_that_traces_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nTracerPid:\t4711\nUid:\t0\n")
    monkeypatch.setattr(module, "_STATUS", status)
    assert _figures(await _watched(block_the_loop, LONG_S)) == (0, 0)
    monkeypatch.setattr(module, "_STATUS", tmp_path / "none")  # not Linux
    assert _figures(await _watched(block_the_loop, LONG_S)) == (1, 0)


async def test_a_log_that_hangs_too_does_not_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loop waits for may be the log itself."""
    monkeypatch.setattr(module, "LOG_WAIT_S", 0.05)
    monkeypatch.setattr(module.log, "log", lambda *args: time.sleep(0.5))
    ended: list[bool] = []
    await _watched(block_the_loop, 1.2, on_hung=lambda: ended.append(True))
    assert ended


async def test_zero_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(module, "Watchdog", lambda *a, **k: made.append(a))
    with watching(Settings(loop_stall_s=0), Metrics([]), None):
        pass
    assert made == []
