"""The samples of the README are cut out and run: each serves the gateway inside a host app."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import subprocess
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lava_proxy.app import ASGIApp, LogFilter
from lava_proxy.core.providers import OWN_PATHS

README = Path(__file__).resolve().parents[2] / "README.md"
SAMPLE = re.compile(r"<!-- sample: (\w+) -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SAMPLES = dict(SAMPLE.findall(README.read_text(encoding="utf-8")))

Message = MutableMapping[str, Any]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> None:
    """What the samples' ``LavaProxy()`` reads."""
    monkeypatch.setenv("LAVA_DATABASE_URL", database_url)
    monkeypatch.setenv("LAVA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LAVA_DRAIN_TIMEOUT_S", "1")


def _app_of(name: str) -> ASGIApp:
    names: dict[str, Any] = {"__name__": f"sample_{name}"}
    exec(compile(SAMPLES[name], f"README.md, sample {name}", "exec"), names)
    app: ASGIApp = names["app"]
    return app


@asynccontextmanager
async def _running(app: ASGIApp) -> AsyncIterator[None]:
    """Drive the lifespan as a server does."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope: Message = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def run() -> None:
        await app(scope, to_app.get, from_app.put)

    task = asyncio.create_task(run())
    to_app.put_nowait({"type": "lifespan.startup"})
    assert (await from_app.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        to_app.put_nowait({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await task


async def _get(app: ASGIApp, path: str) -> tuple[int, bytes]:
    sent: list[Message] = []
    asked = asyncio.Event()

    async def receive() -> Message:
        if not asked.is_set():
            asked.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        return await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Message = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"host.test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)
    body = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
    return sent[0]["status"], body


def test_the_readme_has_its_samples() -> None:
    assert set(SAMPLES) == {"starlette", "fastapi", "middleware", "logs"}


def test_the_log_sample_reaches_the_hosts_handlers() -> None:
    server, handler = logging.getLogger("uvicorn"), logging.NullHandler()
    root = logging.getLogger()
    before = {one: one.filters[:] for one in root.handlers}
    server.addHandler(handler)
    try:
        exec(compile(SAMPLES["logs"], "README.md, sample logs", "exec"), {})
        for one in (handler, *root.handlers):
            assert isinstance(one.filters[-1], LogFilter)
    finally:
        server.removeHandler(handler)
        for one, filters in before.items():
            one.filters[:] = filters


def test_a_forward_token_can_be_made_in_a_shell() -> None:
    """On macOS too, whose base64 breaks no lines and has no -w."""
    text = (README.parent / "docs" / "api.md").read_text(encoding="utf-8")
    (made,) = re.findall(r"^TOKEN=.*$", text, re.MULTILINE)
    done = subprocess.run(
        ["/bin/sh", "-c", f'{made}; printf %s "$TOKEN"'], capture_output=True, check=True
    )
    token = json.loads(base64.b64decode(done.stdout, validate=True))
    assert token.keys() == {"secret_key", "customer_id", "meter_slug"}
    assert "-w" not in made


def test_the_readme_activates_the_environment_first() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.index(". .venv/bin/activate") < text.index("lava-proxy serve")


def test_the_readme_names_all_paths_that_middleware_takes() -> None:
    text = README.read_text(encoding="utf-8")
    (line,) = re.findall(r"^Or as middleware. It takes its own paths \((.*?)\)", text, re.MULTILINE)
    named = set(re.findall(r"`/([^/`]+)", line))
    assert named == {*OWN_PATHS, "<provider>"}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", ["starlette", "fastapi"])
async def test_mounted(name: str) -> None:
    app = _app_of(name)
    async with _running(app):
        assert await _get(app, "/ai/readyz") == (200, b'{"status":"normal"}')
        status, body = await _get(app, "/ai/openai/v1/models")
        assert (status, b"invalid_token" in body) == (401, True)
        assert (await _get(app, "/elsewhere"))[0] == 404


@pytest.mark.usefixtures("environment")
async def test_as_middleware() -> None:
    app = _app_of("middleware")
    async with _running(app):
        assert await _get(app, "/readyz") == (200, b'{"status":"normal"}')
        assert await _get(app, "/hello") == (200, b'{"from":"the host"}')
        status, body = await _get(app, "/openai/v1/models")
        assert (status, b"invalid_token" in body) == (401, True)


@pytest.mark.usefixtures("environment")
async def test_a_mount_whose_lifespan_nobody_runs_says_so() -> None:
    app = _app_of("starlette")
    with pytest.raises(RuntimeError, match="lifespan"):
        await _get(app, "/ai/readyz")
