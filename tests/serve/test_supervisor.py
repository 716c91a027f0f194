"""Several workers: they share a port and their figures, are replaced, and end together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from serving import PATIENCE_S, Serving, open_stream, rest_of, serving

PRICE = 0.2
"""USD that the stand-in charges for a call."""


def workers_of(server: Serving) -> set[int]:
    """Pids of the serving children."""
    pids = set()
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies too: they no longer serve
            if "lava_proxy.cli.worker" in child.cmdline():
                pids.add(child.pid)
    return pids


async def seen_workers(server: Serving, wanted: set[int]) -> None:
    """Ask until every one of these pids has answered."""
    seen: set[int] = set()
    async with asyncio.timeout(PATIENCE_S):
        while not wanted <= seen:
            seen.add(int((await server.get("/pid")).body))


async def figure(server: Serving, name: str, port: int | None = None) -> float:
    text = (await server.get("/metrics", port=port)).body.decode()
    found = re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def replaced(server: Serving, gone: set[int], count: int = 2) -> set[int]:
    """Wait until `count` workers live, none of them of `gone`."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            now = workers_of(server)
            if len(now) == count and not now & gone:
                return now
            await asyncio.sleep(0.05)


async def test_workers_share_the_port_and_their_figures(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2, metrics_port=0) as server:
        pids = workers_of(server)
        assert len(pids) == 2
        await seen_workers(server, pids)
        calls = len([line for line in server.notes() if line == "GET /pid"])
        for port in (server.port, server.metrics_port):
            assert await figure(server, "lava_requests_total", port) == calls
            charged = await figure(server, "lava_charge_usd_total", port)
            assert charged == pytest.approx(calls * PRICE)
            assert await figure(server, "lava_open_streams", port) == 2
            assert await figure(server, "lava_build_info", port) == 1
        assert await server.stop() == 0
        assert server.notes().count("closed") == 2
        assert list((tmp_path / "metrics").glob("run-*")) == []


async def test_a_killed_worker_is_replaced_and_its_counters_stay(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2) as server:
        before = workers_of(server)
        await seen_workers(server, before)
        calls = await figure(server, "lava_requests_total")
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        after = await replaced(server, {victim})
        await seen_workers(server, after)
        assert await figure(server, "lava_requests_total") > calls
        assert await figure(server, "lava_open_streams") == 2  # the dead one's are not counted
        assert await server.stop() == 0


async def test_a_rolling_restart_fails_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2) as server:
        before = workers_of(server)
        done = asyncio.Event()

        async def load() -> int:
            count = 0
            while not done.is_set():
                assert (await server.get("/pid")).status == 200
                count += 1
            return count

        clients = [asyncio.create_task(load()) for _ in range(3)]
        async with open_stream(server.port, pieces=30, gap_s=0.1) as (reader, _):
            server.signal(signal.SIGHUP)
            after = await replaced(server, before)
            assert (await rest_of(reader)).endswith(b"data: 29\n\n\r\n0\r\n\r\n")
        await seen_workers(server, after)
        done.set()
        assert min(await asyncio.gather(*clients)) > 10
        assert await server.stop() == 0


async def test_a_worker_that_is_told_to_stop_gets_a_replacement_beside_it(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2) as server:
        before = workers_of(server)
        async with open_stream(server.port, pieces=40, gap_s=0.1) as (reader, _):
            for pid in before:
                os.kill(pid, signal.SIGTERM)
            after = await replaced(server, before, count=2)
            await seen_workers(server, after)
            assert (await rest_of(reader)).endswith(b"data: 39\n\n\r\n0\r\n\r\n")
        assert await server.stop() == 0


async def test_a_signal_to_the_whole_group_is_one_drain(tmp_path: Path) -> None:
    """systemd tells every process; a worker must not take that for impatience."""
    async with serving(tmp_path, workers=2) as server:
        async with open_stream(server.port, pieces=15, gap_s=0.1) as (reader, _):
            for pid in workers_of(server):
                os.kill(pid, signal.SIGTERM)
            server.signal()
            for pid in workers_of(server):
                os.kill(pid, signal.SIGINT)
            assert (await rest_of(reader)).endswith(b"data: 14\n\n\r\n0\r\n\r\n")
        assert await server.ended() == 0


async def test_a_second_signal_cancels_and_books(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2) as server:
        async with open_stream(server.port, pieces=1000, gap_s=0.1) as (reader, _):
            server.signal()
            while (await server.get("/readyz")).status == 200:
                pass
            began = time.monotonic()
            server.signal()
            await rest_of(reader)
        assert await server.ended() == 0
        assert time.monotonic() - began < 4
        assert "cancelled" in server.notes()
        assert server.notes().count("closed") == 2


async def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2) as server:
        children = [psutil.Process(pid) for pid in workers_of(server)]
        server.process.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, PATIENCE_S)
        assert alive == []
        assert server.notes().count("closed") == 2
    async with serving(tmp_path, workers=2) as server:  # what the killed one left is removed
        assert len(list((tmp_path / "metrics").glob("run-*"))) == 1
        assert await server.stop() == 0
