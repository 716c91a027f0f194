"""The real Prometheus reads us: its linter finds nothing, its sums are ours, its rules load."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from serving import PATIENCE_S, ROOT, free_port, serving

from lava_proxy.telemetry.exposition import render
from lava_proxy.telemetry.metrics import Metrics

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")

pytestmark = pytest.mark.tool
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")


def promtool(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *arguments], input=given, capture_output=True, check=False)


@needs_promtool
def test_the_linter_finds_nothing() -> None:
    metrics = Metrics(["openai"])
    metrics.call_ended(
        provider="openai",
        outcome="completed",
        input_tokens=1,
        output_tokens=1,
        added_s=0.001,
        first_byte_s=0.1,
        duration_s=1.0,
    )
    found = promtool("check", "metrics", given=render(metrics.registry)[0])
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


@needs_promtool
def test_the_documents_rules_load(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    rules = next(
        block for block in re.findall(r"```yaml\n(.*?)```", text, re.S) if "alert:" in block
    )
    (tmp_path / "rules.yml").write_text(rules)
    found = promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{rules.count('alert:')} rules found".encode() in found.stdout


@asynccontextmanager
async def prometheus(folder: Path, *targets: int) -> AsyncIterator[str]:
    """A Prometheus that scrapes these ports; the base of its API."""
    assert PROMETHEUS is not None
    folder.mkdir()
    jobs = [
        {"job_name": str(number), "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for number, port in enumerate(targets)
    ]
    settings = {"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}}
    (folder / "prometheus.yml").write_text(json.dumps({**settings, "scrape_configs": jobs}))
    port = free_port()
    with (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            PROMETHEUS,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


def ask(base: str, query: str) -> float | None:
    url = f"{base}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            result = json.load(answer)["data"]["result"]
    except OSError:  # it is about to start
        return None
    return float(result[0]["value"][1]) if result else None


async def becomes(base: str, query: str, wanted: float) -> None:
    seen: float | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while seen != wanted:
                seen = await asyncio.to_thread(ask, base, query)
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{query} is {seen}, not {wanted}")


@needs_prometheus
async def test_two_workers_are_scraped_as_one(tmp_path: Path) -> None:
    """Both ways in: the private listener, and a worker's public one from the machine itself."""
    async with serving(tmp_path / "serve", workers=2, metrics_port=0) as server:
        pids = set()
        calls = 0
        while len(pids) < 2 or calls < 30:
            pids.add((await server.get("/pid")).body)
            calls += 1
        assert server.metrics_port is not None
        async with prometheus(tmp_path / "prom", server.metrics_port, server.port) as base:
            for job in ("0", "1"):
                done = f'lava_requests_total{{job="{job}",provider="openai",outcome="completed"}}'
                await becomes(base, f"sum({done})", calls)
                tokens = f'sum(lava_tokens_total{{job="{job}",direction="output"}})'
                await becomes(base, tokens, 5 * calls)
                await becomes(base, f'round(lava_charge_usd_total{{job="{job}"}}, 0.01)', calls / 5)
                await becomes(base, f'lava_open_streams{{job="{job}"}}', 2)
                count = f'sum(lava_request_duration_seconds_count{{job="{job}"}})'
                await becomes(base, count, calls)
            await becomes(base, "min(up)", 1)
        assert await server.stop() == 0
