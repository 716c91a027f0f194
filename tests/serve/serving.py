"""Start `serve` in a process of its own, and talk to it byte by byte."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0
STAND_IN = "stand_in:StandIn"
START = """
import os, sys
from lava_proxy.cli.serve import serve
from lava_proxy.core.environment import load_settings
from lava_proxy.core.settings import ConfigurationError
try:
    sys.exit(serve(load_settings(os.environ), sys.argv[1]))
except ConfigurationError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Serving:
    """A running server: the process, and where it listens."""

    process: asyncio.subprocess.Process
    port: int
    data_dir: Path
    metrics_port: int | None = None

    def notes(self) -> list[str]:
        path = self.data_dir / "notes"
        return path.read_text().splitlines() if path.exists() else []

    async def noted(self, line: str) -> None:
        """Wait until the application wrote the line."""
        async with asyncio.timeout(PATIENCE_S):
            while line not in self.notes():
                await asyncio.sleep(0.01)

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def stop(self) -> int:
        self.signal()
        return await self.ended()

    async def get(self, path: str, *headers: str, port: int | None = None) -> Answer:
        return await fetch(port or self.port, path, *headers, host="localhost")


def environment(data_dir: Path, **settings: object) -> dict[str, str]:
    """Ours without anybody's settings, plus these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LAVA_")}
    named = {f"LAVA_{name.upper()}": str(value) for name, value in settings.items()}
    path = os.pathsep.join(str(p) for p in (ROOT, ROOT / "adapters", Path(__file__).parent))
    return {**kept, "LAVA_PORT": "0", "LAVA_DATA_DIR": str(data_dir), **named, "PYTHONPATH": path}


async def start(
    data_dir: Path, app: str = STAND_IN, **settings: object
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        START,
        app,
        env=environment(data_dir, **settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def failed(data_dir: Path, app: str = STAND_IN, **settings: object) -> tuple[int, str]:
    """(status, stderr) of a server that must not start."""
    process = await start(data_dir, app, **settings)
    async with asyncio.timeout(PATIENCE_S):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


@asynccontextmanager
async def serving(
    data_dir: Path, app: str = STAND_IN, **settings: object
) -> AsyncIterator[Serving]:
    """A server that is ready; killed at the end when it still runs."""
    process = await start(data_dir, app, **settings)
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[bytes] = []
    reading = asyncio.create_task(_drain(process.stderr, errors))
    try:
        metrics_port = None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                line = (await process.stdout.readline()).decode()
                assert line, b"".join(errors).decode()
                port = int(re.search(r":(\d+)", line.rpartition("http")[2])[1])  # type: ignore[index]
                if "/metrics" not in line:
                    break
                metrics_port = port
        yield Serving(process, port, data_dir, metrics_port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading
        process._transport.close()  # type: ignore[attr-defined]


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


async def _drain(stream: asyncio.StreamReader, into: list[bytes]) -> None:
    async for line in stream:
        into.append(line)


async def fetch(port: int, path: str, *headers: str, host: str = "lava.example.com") -> Answer:
    """GET on a fresh connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer = await read_head(reader)
            size = answer.headers.get("content-length")
            answer.body = await (reader.read() if size is None else reader.readexactly(int(size)))
    finally:
        await hang_up(writer)
    return answer


async def read_head(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Answer(int(head[0].split(" ")[1]), headers, b"")


@asynccontextmanager
async def open_stream(
    port: int, pieces: int, gap_s: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A running event stream whose head has been read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = f"/sse?pieces={pieces}&gap_s={gap_s}"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: lava.example.com\r\n\r\n".encode())
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert (await read_head(reader)).status == 200
        yield reader, writer
    finally:
        await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        return


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end of the chunked body, or of the connection."""
    async with asyncio.timeout(PATIENCE_S):
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            piece = await reader.read(65536)
            if not piece:
                break
            data += piece
    return data
