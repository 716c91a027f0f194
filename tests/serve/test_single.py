"""One serving process: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from serving import failed, fetch, open_stream, rest_of, serving

from lava_proxy.cli.serve import check_environment
from lava_proxy.core.settings import ConfigurationError


async def test_it_says_where_it_serves_and_ends_clean(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        answer = await server.get("/anything")
        assert answer.status == 200
        assert answer.headers.keys() == {"content-type", "content-length", "connection"}
        assert await server.stop() == 0
        assert server.notes()[-1] == "closed"


async def test_sigint_does_not_linger(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        began = time.monotonic()
        server.signal(signal.SIGINT)
        assert await server.ended() == 0
        assert time.monotonic() - began < 0.9


async def test_a_drain_lets_the_stream_finish_and_turns_readiness_off(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.get("/readyz")).status == 200
        async with open_stream(server.port, pieces=15, gap_s=0.1) as (reader, _):
            server.signal()
            ready = await server.get("/readyz")
            assert ready.status == 503
            assert ready.headers["connection"] == "close"
            whole = await rest_of(reader)
        assert whole.endswith(b"data: 14\n\n\r\n0\r\n\r\n")
        assert await server.ended() == 0
        assert server.notes()[-2:] == ["streamed", "closed"]


async def test_a_kept_connection_is_given_up_by_the_protocol(tmp_path: Path) -> None:
    """A request on an open connection during the linger is answered, with Connection: close."""
    async with serving(tmp_path) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        request = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request)
        first = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in first
        server.signal()
        while True:  # the signal needs a moment to be seen
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b"503" in head:
                break
        assert b"connection: close" in head
        assert await reader.read() == b""
        writer.close()
        assert await server.ended() == 0


async def test_a_second_sigterm_cancels_what_runs_and_closes_the_books(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with open_stream(server.port, pieces=1000, gap_s=0.1) as (reader, _):
            server.signal()
            while (await server.get("/readyz")).status == 200:
                pass
            began = time.monotonic()
            server.signal()
            assert not (await rest_of(reader)).endswith(b"0\r\n\r\n")
        assert await server.ended() == 0
        assert time.monotonic() - began < 3
        assert server.notes()[-2:] == ["cancelled", "closed"]


async def test_the_drain_ends_at_its_time(tmp_path: Path) -> None:
    async with serving(tmp_path, drain_timeout_s=1) as server:
        async with open_stream(server.port, pieces=1000, gap_s=0.1) as (reader, _):
            server.signal()
            await rest_of(reader)
        assert await server.ended() == 0
        assert server.notes()[-2:] == ["cancelled", "closed"]


async def test_after_the_drain_nobody_listens(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        async with open_stream(server.port, pieces=25, gap_s=0.1) as (reader, _):
            server.signal()
            while await answers(server.port):
                await asyncio.sleep(0.02)
            assert (await rest_of(reader)).endswith(b"data: 24\n\n\r\n0\r\n\r\n")
        assert await server.ended() == 0


async def answers(port: int) -> bool:
    try:
        return (await fetch(port, "/readyz")).status == 503
    except ConnectionError:
        return False


async def test_private_metrics_need_no_token(tmp_path: Path) -> None:
    async with serving(tmp_path, metrics_port=0, metrics_token="m" * 20) as server:
        await server.get("/count")
        assert (await server.get("/metrics")).status == 401
        private = await server.get("/metrics", port=server.metrics_port)
        public = await server.get("/metrics", f"Authorization: Bearer {'m' * 20}")
        assert b'lava_requests_total{outcome="completed",provider="openai"} 1.0' in private.body
        assert public.body == private.body
        assert (await server.get("/", port=server.metrics_port)).status == 404
        assert await server.stop() == 0


async def test_one_process_does_not_use_a_metrics_folder_of_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    async with serving(tmp_path) as server:
        assert b"lava_open_calls 1.0" in (await server.get("/metrics")).body
        assert list(folder.iterdir()) == []


async def test_an_unknown_setting_stops_the_start(tmp_path: Path) -> None:
    status, errors = await failed(tmp_path, drain_timeout="5")
    assert status == 2
    assert "LAVA_DRAIN_TIMEOUT is not a setting, did you mean LAVA_DRAIN_TIMEOUT_S?" in errors
    assert "Known settings: " in errors
    assert "LAVA_METRICS_PORT" in errors


@pytest.mark.parametrize("name", ["httptools", "uvloop"])
def test_without_the_strict_parser_nothing_starts(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=f"pip install {name}"):
        check_environment()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_port_that_is_taken_is_named(tmp_path: Path, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, errors = await failed(tmp_path, port=port, workers=workers)
    assert status == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in errors


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_failed_start_ends_everything(tmp_path: Path, workers: int) -> None:
    status, errors = await failed(tmp_path, "stand_in:Broken", workers=workers)
    assert status == 3
    assert "the database is away" in errors


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_wrong_configuration_ends_everything(tmp_path: Path, workers: int) -> None:
    status, errors = await failed(tmp_path, "stand_in:wrong", workers=workers)
    assert status == 2
    assert "127.0.0.1 will not do" in errors


@pytest.mark.parametrize(("limit", "status"), [(65_536, 431), (131_072, 200)])
async def test_what_the_server_reads_of_a_head_follows_the_setting(
    tmp_path: Path, limit: int, status: int
) -> None:
    """The application, whose limit is the half of it, has the word before the server does."""
    async with serving(tmp_path, header_limit_bytes=limit) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = b"".join(b"X-%d: %b\r\n" % (line, b"y" * 20_000) for line in range(11))
        writer.write(b"GET /pid HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + lines + b"\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 %d " % status)
        writer.close()
