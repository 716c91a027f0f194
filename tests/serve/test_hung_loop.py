"""Under `serve` a process whose event loop hangs is seen from outside, ended and replaced; one that
was only stopped is left alone."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from serving import PATIENCE_S, Serving, serving
from test_supervisor import figure, replaced, workers_of

from lava_proxy.cli.handover import HUNG_STATUS

APP = "hanging:Proxy"
QUICK = {"loop_stall_s": 0.5, "loop_stall_max_s": 2, "metrics_port": 0}


async def _ask_to_hang(server: Serving, seconds: float) -> asyncio.StreamWriter:
    """One worker hangs; nobody waits for its answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /hang/{seconds} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await writer.drain()
    return writer


async def _becomes(server: Serving, status: int, body: bytes) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await server.get("/readyz", port=server.metrics_port)
            if (answer.status, answer.body) == (status, body):
                return
            await asyncio.sleep(0.05)


async def test_it_is_not_ready_while_it_stands(tmp_path: Path, database_url: str) -> None:
    settings = {**QUICK, "loop_stall_max_s": 0}
    async with serving(tmp_path, APP, database_url=database_url, **settings) as server:
        await _becomes(server, 200, b'{"status":"ready"}')
        writer = await _ask_to_hang(server, 3)
        await _becomes(server, 503, b'{"status":"stalled"}')
        await _becomes(server, 200, b'{"status":"ready"}')
        writer.close()
        assert await figure(server, "lava_loop_stalls_total", server.metrics_port) == 1
        assert await server.stop() == 0


async def test_alone_it_ends_with_a_status_of_its_own(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, APP, database_url=database_url, **QUICK) as server:
        writer = await _ask_to_hang(server, 600)
        assert await server.ended() == HUNG_STATUS
        writer.close()


async def test_a_supervisor_puts_another_in_its_place(tmp_path: Path, database_url: str) -> None:
    settings = {"database_url": database_url, "workers": 2, **QUICK}
    async with serving(tmp_path, APP, **settings) as server:
        before = workers_of(server)
        writer = await _ask_to_hang(server, 600)
        await _becomes(server, 503, b'{"status":"stalled"}')
        async with asyncio.timeout(PATIENCE_S):
            while len(before & workers_of(server)) == 2:
                await asyncio.sleep(0.05)
        (lives,) = before & workers_of(server)
        after = await replaced(server, before - {lives})
        writer.close()
        await _becomes(server, 200, b'{"status":"ready"}')
        assert lives in after
        assert await figure(server, "lava_loop_stalls_total", server.metrics_port) == 1
        assert await server.stop() == 0


async def test_one_that_lets_no_thread_run_is_replaced_too(
    tmp_path: Path, database_url: str
) -> None:
    settings = {"database_url": database_url, "workers": 2, **QUICK}
    async with serving(tmp_path, APP, **settings) as server:
        before = workers_of(server)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /spin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            while len(before & workers_of(server)) == 2:
                await asyncio.sleep(0.05)
        writer.close()
        (lives,) = before & workers_of(server)
        assert lives in await replaced(server, before - {lives})
        assert await server.stop() == 0


async def test_a_worker_that_was_stopped_lives_on(tmp_path: Path, database_url: str) -> None:
    settings = {"database_url": database_url, "workers": 2, **QUICK}
    async with serving(tmp_path, APP, **settings) as server:
        before = workers_of(server)
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(4.5)
        for pid in before:
            os.kill(pid, signal.SIGCONT)
        assert (await server.get("/readyz")).status == 200
        assert workers_of(server) == before
        assert await server.stop() == 0


async def test_one_that_was_stopped_lives_on(tmp_path: Path, database_url: str) -> None:
    async with serving(tmp_path, APP, database_url=database_url, **QUICK) as server:
        for _ in range(3):
            os.kill(server.process.pid, signal.SIGSTOP)
            await asyncio.sleep(2.5)
            os.kill(server.process.pid, signal.SIGCONT)
            assert (await server.get("/readyz")).status == 200
        assert await figure(server, "lava_loop_stalls_total", server.metrics_port) == 0
        assert await server.stop() == 0
