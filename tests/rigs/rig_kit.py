"""Processes for the rigs: real gateways on one database, killed and started again, while the truth
lives outside of them: the simulated provider knows what ran, the client knows what it got."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lava_proxy.core.ids import hash_secret, new_id, new_secret
from lava_proxy.core.money import parse_e10
from lava_proxy.store import credit
from lava_proxy.store.database import Database

ROOT = Path(__file__).resolve().parents[2]
LONG = os.environ.get("RIG_LONG") == "1"
TOKEN_E10 = 100_000
"""10 USD per million tokens."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass
class Replica:
    """One gateway process (or a supervisor with several workers) with a journal folder. Without
    `url` it uses the embedded server of its data directory."""

    url: str
    data_dir: Path
    upstream: str
    port: int = field(default_factory=free_port)
    workers: int = 1
    extra: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith("LAVA_")}
        env |= {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}",
            "LAVA_DATA_DIR": str(self.data_dir),
            "LAVA_UPSTREAM_OVERRIDES": json.dumps({"api.openai.com": self.upstream}),
            "LAVA_PROVIDER_KEY_OPENAI": "managed-key",
            "LAVA_EXACT_TOKENS": "0",
            "LAVA_DRAIN_TIMEOUT_S": "5",
            "LAVA_LOG_LEVEL": os.environ.get("RIG_LOG", "error"),
        }
        if self.url:
            env["LAVA_DATABASE_URL"] = self.url
        env |= self.extra
        command = [sys.executable, "-m", "lava_proxy", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--workers", str(self.workers)],
            env=env,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )

    async def get(self, path: str) -> tuple[int, bytes]:
        """(status, body); status 0 when nobody answers."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
        except OSError:
            return 0, b""
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]) if head else 0, body

    async def state(self) -> str:
        """What /readyz calls the state of the books."""
        _, body = await self.get("/readyz")
        return str(json.loads(body)["status"]) if body else "gone"

    async def becomes(self, *states: str, timeout_s: float = 60 if LONG else 20) -> float:
        """Wait for one of these states; answers how long that took."""
        started = time.monotonic()
        while (now := await self.state()) not in states:
            if time.monotonic() - started > timeout_s:
                raise TimeoutError(f"replica on {self.port} is {now}, not {states}")
            await asyncio.sleep(0.02)
        return time.monotonic() - started

    async def ready(self, timeout_s: float = 60 if LONG else 20) -> float:
        """Wait until it serves; answers how long that took."""
        started = time.monotonic()
        while time.monotonic() - started < timeout_s:
            if (await self.get("/readyz"))[0] == 200:
                return time.monotonic() - started
            await asyncio.sleep(0.02)
        raise TimeoutError(f"replica on {self.port} does not get ready")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout_s: float = 20) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


_running: list[Replica] = []


async def started(*replicas: Replica) -> None:
    """Start replicas, and remember them for `kill_all`."""
    for replica in replicas:
        replica.start()
        _running.append(replica)
    for replica in replicas:
        await replica.ready()


def kill_all() -> None:
    """Nothing of ours outlives its test."""
    while _running:
        replica = _running.pop()
        if replica.process is not None and replica.process.poll() is None:
            replica.kill()


@dataclass(frozen=True)
class Payer:
    token: str
    customer_id: str
    merchant_id: str
    secret: str


async def make_payer(database: Database, amount: str, *, mode: str = "sliced") -> Payer:
    """A merchant with a key, a customer with credit, and a meter ``m`` at 10 USD per million."""
    secret, merchant, customer = new_secret("aks_live_"), new_id("merchant"), new_id("customer")
    async with database.transaction() as conn:
        await conn.execute("INSERT INTO merchants (merchant_id, name) VALUES ($1, 'm')", merchant)
        await conn.execute("INSERT INTO accounts (owner_id, merchant_id) VALUES ($1, $1)", merchant)
        await conn.execute(
            "INSERT INTO secret_keys (secret_key_id, merchant_id, name, key_hash, hint) "
            "VALUES ($1, $2, 'k', $3, 'h')",
            new_id("secret_key"),
            merchant,
            hash_secret(secret),
        )
        await conn.execute(
            "INSERT INTO customers (customer_id, merchant_id) VALUES ($1, $2)", customer, merchant
        )
        await conn.execute(
            "INSERT INTO accounts (owner_id, merchant_id) VALUES ($1, $2)", customer, merchant
        )
        await conn.execute(
            "INSERT INTO meters (meter_id, merchant_id, slug, name, rate_type, tier_type, tiers, "
            "enforcement) VALUES ($1, $2, 'm', 'm', 'fixed', 'tokens_1m', $3, $4)",
            new_id("meter"),
            merchant,
            [[0, TOKEN_E10 * 100_000_000]],
            mode,
        )
        await credit.grant(
            conn,
            grant_id=new_id("credit"),
            owner_id=customer,
            kind="operator",
            amount_e10=parse_e10(amount),
            expires_at=None,
            note=None,
            now=datetime.now(UTC),
        )
    members = {"secret_key": secret, "customer_id": customer, "meter_slug": "m"}
    return Payer(
        base64.b64encode(json.dumps(members).encode()).decode(), customer, merchant, secret
    )


@dataclass
class Got:
    """What a client saw of one call."""

    mark: str
    status: int = 0
    tokens: int = 0
    whole: bool = False
    cut: bool = False
    may_retry: bool = False
    """Retry-After came with it."""
    asked_s: float = 0.0
    took_s: float = 0.0
    first_s: float = 0.0
    """Until the status line."""
    error: str = ""


async def call(
    port: int,
    payer: Payer,
    mark: str,
    *,
    tokens: int,
    pace_ms: int,
    stream: bool,
    host: str = "gateway",
) -> Got:
    """One call; whatever happens to the gateway, it ends."""
    got = Got(mark, asked_s=time.monotonic())
    body = json.dumps(
        {
            "model": f"sim-{tokens}-{pace_ms}",
            "stream": stream,
            "user": mark,
            "messages": [{"role": "user", "content": "say something"}],
        }
    ).encode()
    head = (
        f"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        f"Authorization: Bearer {payer.token}\r\nContent-Type: application/json\r\n"
        f"X-Lava-Metadata-Mark: {mark}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return got
    try:
        writer.write(head.encode() + body)
        line = await reader.readline()
        got.first_s = time.monotonic() - got.asked_s
        rest = await reader.read()
    except OSError:
        return got
    finally:
        got.took_s = time.monotonic() - got.asked_s
        writer.close()
    if not line:
        return got
    got.status = int(line.split()[1])
    got.tokens = rest.count(b'"delta":{"content":') if stream else 0
    got.may_retry = b"retry-after:" in rest.partition(b"\r\n\r\n")[0].lower()
    if got.status != 200:
        got.error = rest.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")[:200]
    got.cut = b"budget_exhausted" in rest
    got.whole = rest.endswith(b"0\r\n\r\n") or (not stream and b'"usage"' in rest)
    return got


async def report(port: int, payer: Payer, request_id: str) -> Got:
    """One usage report of ten tokens."""
    got = Got(request_id, asked_s=time.monotonic())
    body = json.dumps(
        {
            "request_id": request_id,
            "customer_id": payer.customer_id,
            "meter_slug": "m",
            "input_tokens": 10,
            "metadata": {"mark": request_id},
        }
    ).encode()
    head = (
        "POST /v1/requests HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
        f"Authorization: Bearer {payer.secret}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    got.took_s = got.first_s = time.monotonic() - got.asked_s
    got.status = int(answer.split()[1])
    got.may_retry = b"retry-after:" in answer.partition(b"\r\n\r\n")[0].lower()
    return got


async def wait_settled(database: Database, timeout_s: float = 20) -> None:
    """Wait until no lease is open: everything is booked and given back."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        async with database.connection() as conn:
            if not await conn.fetchval("SELECT count(*) FROM leases WHERE closed_at IS NULL"):
                return
        await asyncio.sleep(0.05)
    raise TimeoutError("leases stay open")
