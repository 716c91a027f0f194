"""``python -m benchmarks.reports``: usage reports per second, each acknowledged after its commit.

`POST /v1/requests` on `lava-proxy serve` with the embedded PostgreSQL: one report in flight per
connection (a closed loop), spread over customers, and with one hot customer. Every answer is
checked, and the books are audited at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop

SECONDS = 5.0
CONNECTIONS = 128
CUSTOMERS = 200
START_S = 30.0


class Client:
    """One keep-alive connection that asks and reads one answer at a time."""

    def __init__(self, port: int, secret: str) -> None:
        self._port = port
        self._head = (
            f"Host: 127.0.0.1\r\nAuthorization: Bearer {secret}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer's object; anything but 200 is an error."""
        raw = json.dumps(body).encode()
        head = b"POST /v1/%b HTTP/1.1\r\n%b%d\r\n\r\n" % (path.encode(), self._head, len(raw))
        self._writer.write(head + raw)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        size = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        text = await self._reader.readexactly(size)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{path}: {text!r}")
        found: dict[str, Any] = json.loads(text)
        return found


async def _serve(folder: Path) -> tuple[asyncio.subprocess.Process, int]:
    """The server, ready, and its port."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LAVA_")}
    env |= {"LAVA_DATA_DIR": str(folder), "LAVA_PORT": "0", "LAVA_LOG_LEVEL": "warning"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lava_proxy", "serve", env=env, stdout=asyncio.subprocess.PIPE
    )
    if process.stdout is None:
        raise RuntimeError("no output")
    async with asyncio.timeout(START_S):
        line = (await process.stdout.readline()).decode()
    return process, int(line.rpartition(":")[2].split("/")[0].split()[0])


async def _run(*command: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lava_proxy", *command,
        env=os.environ | {"LAVA_DATA_DIR": str(folder)}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command}: status {process.returncode}")
    return told.decode()


async def measure(port: int, secret: str, pid: int, customers: list[str]) -> tuple[float, float]:
    """Reports per second, and CPU of the gateway per report in microseconds."""
    done, ends_s = 0, time.monotonic() + SECONDS

    async def report(number: int) -> None:
        nonlocal done
        client = Client(port, secret)
        await client.open()
        count = 0
        while time.monotonic() < ends_s:
            count += 1
            name = f"{time.time_ns()}-{number}-{count}"
            body = {
                "request_id": name,
                "customer_id": customers[(number + count) % len(customers)],
                "meter_slug": "m",
                "input_tokens": 500,
                "output_tokens": 200,
                "metadata": {"feature": "chat"},
            }
            found = await client.post("requests", body)
            if (found["request_id"], found["status"]) != (name, "completed"):
                raise RuntimeError(str(found))
            done += 1

    process = psutil.Process(pid)
    before, began_s = process.cpu_times(), time.monotonic()
    await asyncio.gather(*[report(number) for number in range(CONNECTIONS)])
    took_s, after = time.monotonic() - began_s, process.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    return done / took_s, cpu_s / done * 1e6


async def main() -> None:
    """Measure both cases, prove the books, print a table."""
    with tempfile.TemporaryDirectory(prefix="bench-reports-") as name:
        folder = Path(name)
        process, port = await _serve(folder)
        try:
            made = json.loads(
                await _run("keys", "create", "--name", "bench", "--json", folder=folder)
            )
            client = Client(port, made["secret_key"])
            await client.open()
            tiers = [{"start": "0", "rate": "2"}, {"start": "1000000000", "rate": "1"}]
            meter = {"name": "m", "meter_slug": "m", "rate_type": "fixed", "tiers": tiers}
            await client.post("meters", meter | {"tier_type": "tokens_1m"})
            customers = []
            for _ in range(CUSTOMERS):
                customer = (await client.post("customers", {}))["customer_id"]
                await client.post(f"customers/{customer}/credit", {"amount": "1000"})
                customers.append(customer)
            print(f"{CONNECTIONS} connections, {os.cpu_count()} cores, embedded PostgreSQL\n")
            print("| customers | reports/s | gateway CPU us/report |\n|---|---|---|")
            for some in (customers, customers[:1]):
                rate, cpu_us = await measure(port, made["secret_key"], process.pid, some)
                print(f"| {len(some)} | {rate:,.0f} | {cpu_us:.0f} |", flush=True)
            print("\n" + (await _run("audit", "--full", folder=folder)).splitlines()[-1])
        finally:
            process.terminate()
            await process.wait()


if __name__ == "__main__":
    uvloop.run(main())
