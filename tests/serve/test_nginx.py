"""deploy/nginx.conf under the real nginx: what the gateway relies on holds through it.

The shipped file is used with only ports and paths substituted, a smaller body limit (and, in one
test, a second replica).
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from serving import (
    PATIENCE_S,
    ROOT,
    Answer,
    Serving,
    fetch,
    free_port,
    hang_up,
    open_stream,
    read_head,
    rest_of,
    serving,
)

from lava_proxy.core.settings import Settings

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIGURATION = ROOT / "deploy" / "nginx.conf"
BODY_MAX = 32 * 2**20
SERVER_LINE = "server 127.0.0.1:8080 max_fails=0;"

pytestmark = [
    pytest.mark.tool,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


def configuration(folder: Path, listen: int, *replicas: int) -> str:
    text = CONFIGURATION.read_text()
    assert text.count(SERVER_LINE) == 1
    lines = "\n".join(f"server 127.0.0.1:{port} max_fails=0;" for port in replicas)
    text = text.replace(SERVER_LINE, lines)
    text = re.sub(r"^(\s*)listen 80\b", rf"\1listen 127.0.0.1:{listen}", text, flags=re.MULTILINE)
    most = Settings.model_fields["upload_limit_bytes"].default
    assert text.count(f"client_max_body_size {most >> 20}m;") == 1
    # The same with less to send.
    text = text.replace(f"client_max_body_size {most >> 20}m;", f"client_max_body_size {BODY_MAX};")
    for path in ("/run/nginx.pid", "/var/log/nginx", "/var/lib/nginx"):
        assert path in text
        text = text.replace(path, str(folder / path.rpartition("/")[2]))
    return text


@asynccontextmanager
async def nginx(folder: Path, *replicas: int) -> AsyncIterator[int]:
    """A running nginx before these ports; its own port."""
    assert NGINX is not None
    port = free_port()
    (folder / "nginx").mkdir(parents=True)
    (folder / "nginx.conf").write_text(configuration(folder, port, *replicas))
    errors = (folder / "errors").open("w+")
    process = await asyncio.create_subprocess_exec(
        NGINX,
        *("-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"),
        stderr=errors,
    )
    try:
        await listening(port, process, lambda: (folder / "errors").read_text())
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        errors.close()


async def listening(
    port: int, process: asyncio.subprocess.Process, errors: Callable[[], str]
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            assert process.returncode is None, errors()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
                continue
            await hang_up(writer)
            return


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[tuple[Serving, int]]:
    async with serving(folder / "data") as server, nginx(folder / "front", server.port) as port:
        yield server, port


async def test_pieces_of_a_stream_arrive_one_by_one(tmp_path: Path) -> None:
    async with both(tmp_path) as (_, port):
        async with open_stream(port, pieces=4, gap_s=0.25) as (reader, _writer):
            arrived = []
            for number in range(4):
                async with asyncio.timeout(PATIENCE_S):
                    await reader.readuntil(b"data: %d\n\n" % number)
                arrived.append(time.monotonic())
            await rest_of(reader)
        gaps = [after - before for before, after in itertools.pairwise(arrived)]
        assert min(gaps) > 0.15


async def test_a_rolling_restart_fails_no_request(tmp_path: Path) -> None:
    """nginx keeps connections to workers that go: none may be closed under a request."""
    done = asyncio.Event()

    async def load(port: int) -> int:
        count = 0
        while not done.is_set():
            assert (await fetch(port, "/pid")).status == 200
            count += 1
        return count

    async with serving(tmp_path / "data", workers=2) as server:
        async with nginx(tmp_path / "front", server.port) as port:
            clients = [asyncio.create_task(load(port)) for _ in range(3)]
            async with open_stream(port, pieces=50, gap_s=0.1) as (reader, _):
                server.signal(signal.SIGHUP)
                assert (await rest_of(reader)).endswith(b"data: 49\n\n\r\n0\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                while server.notes().count("closed") < 2:  # both old workers are gone
                    await asyncio.sleep(0.05)
            done.set()
            assert min(await asyncio.gather(*clients)) > 100
        assert await server.stop() == 0
        assert server.notes().count("closed") == 4  # two old workers, two new ones


async def test_the_path_survives(tmp_path: Path) -> None:
    paths = [
        "/v1/forward/https://api.openai.com/v1/models?limit=2&after=https://x/y",
        "/v1/forward?u=https%3A%2F%2Fapi.openai.com%2Fv1%2Fmodels",
        "/bedrock/model/arn:aws:bedrock%2Fx%2Fy/converse",
        "//double//slashes/",
    ]
    async with both(tmp_path) as (server, port):
        for path in paths:
            assert (await fetch(port, path)).status == 200
        noted = server.notes()
    assert noted == [f"GET {path.partition('?')[0]}" for path in paths]


async def test_a_client_that_leaves_is_noticed(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, port):
        async with open_stream(port, pieces=1000, gap_s=0.05) as (reader, writer):
            await reader.readuntil(b"data: 1\n\n")
            writer.close()
            await server.noted("gone")


async def test_metrics_are_refused_in_every_spelling(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, port):
        assert (await server.get("/metrics")).status == 200  # from the machine itself
        for path in ("/metrics", "/metrics?x=1", "/%6detrics", "/./metrics", "/x/../metrics"):
            assert (await fetch(port, path)).status == 404
        assert not [line for line in server.notes()[1:] if "metrics" in line]
        # and were nginx to let it through, the gateway would see that it was forwarded
        forwarded = await server.get("/metrics", "X-Forwarded-For: 127.0.0.1")
        assert forwarded.status == 404
        assert (await fetch(server.port, "/metrics")).status == 404  # Host is not this machine's


async def test_only_our_own_name_is_served(tmp_path: Path) -> None:
    async with both(tmp_path) as (server, port):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await fetch(port, "/anything", host="other.example.com")
        assert server.notes() == []


async def test_what_the_gateway_is_told_of_the_client(tmp_path: Path) -> None:
    async with both(tmp_path) as (_, port):
        given = ("X-Forwarded-For: 6.6.6.6", "X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6")
        body = (await fetch(port, "/headers", *given, "X_Under: score")).body.decode()
    headers = dict(line.split(": ", 1) for line in body.splitlines())
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["host"] == "lava.example.com"
    assert not {"x-real-ip", "forwarded", "connection", "x_under"} & headers.keys()


async def test_websockets_get_the_gateways_426(tmp_path: Path) -> None:
    async with both(tmp_path) as (_, port):
        answer = await fetch(
            port, "/v1/realtime", "Upgrade: websocket", "Sec-WebSocket-Version: 13"
        )
    assert answer.status == 426


async def post(port: int, size: int) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /echo HTTP/1.1\r\nHost: lava.example.com\r\nContent-Length: {size}\r\n\r\n"
    writer.write(head.encode())
    sending = asyncio.create_task(send_zeros(writer, size))
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer = await read_head(reader)
            answer.body = await reader.readexactly(int(answer.headers["content-length"]))
        return answer
    finally:
        sending.cancel()
        await hang_up(writer)


async def send_zeros(writer: asyncio.StreamWriter, size: int) -> None:
    piece = bytes(2**18)
    while size > 0:
        writer.write(piece[:size])
        size -= len(piece)
        try:
            await writer.drain()
        except ConnectionError:
            return


async def test_bodies_up_to_the_limit_pass(tmp_path: Path) -> None:
    most = BODY_MAX
    async with both(tmp_path) as (_, port):
        answer = await post(port, most)
        assert (answer.status, answer.body) == (200, str(most).encode())
        assert (await post(port, most + 1)).status == 413


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_is_never_sent_twice(tmp_path: Path, method: str) -> None:
    """Two replicas die before their first byte: each request reaches exactly one of them."""
    taken: list[bytes] = []
    requests = 6

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.readuntil(b"\r\n"))
        writer.transport.abort()

    first = await asyncio.start_server(take, "127.0.0.1", 0)
    second = await asyncio.start_server(take, "127.0.0.1", 0)
    async with first, second:
        ports = [s.sockets[0].getsockname()[1] for s in (first, second)]
        async with nginx(tmp_path, *ports) as port:
            for _ in range(requests):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                head = f"{method} / HTTP/1.1\r\nHost: lava.example.com\r\nContent-Length: 0\r\n"
                writer.write(f"{head}\r\n".encode())
                assert (await read_head(reader)).status == 502
                await hang_up(writer)
    assert len(taken) == requests
