"""The official Node SDK, every method, against the running server; every answer is checked against
the SDK's own published types by the TypeScript compiler."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from pathlib import Path

import pytest
from serving import serving

from lava_proxy.net.simulated import SimulatedProvider
from lava_proxy.store import keys
from lava_proxy.store.database import Database

APP = "lava_proxy.app:LavaProxy"
HOSTS = ("api.openai.com", "api.anthropic.com")

pytestmark = [
    pytest.mark.tool,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]


async def _node(folder: Path, *command: str, **env: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    return told.decode()


def _browser(folder: Path, programs: Path) -> Path:
    """A folder with the command by which the SDK opens a browser."""
    for name in ("xdg-open", "open"):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec node "{programs / "browser.mjs"}" "$1"\n')
        command.chmod(0o755)
    return folder


def _typed(answers: list[dict[str, object]]) -> str:
    """A program that compiles if and only if every answer has the type of its method's result."""
    lines = [
        "import { Lava } from '@lavapayments/nodejs';",
        "const is = <T>() => <V extends T>(value: V): void => { void value; };",
    ]
    for answer in answers:
        resource, method = str(answer["method"]).split(".")
        owner = "(typeof Lava)" if resource == "Lava" else f"Lava['{resource}']"
        kind = f"Awaited<ReturnType<{owner}['{method}']>>"
        lines.append(f"is<{kind}>()({json.dumps(_as_typed(answer['value']))});")
    return "\n".join(lines)


def _as_typed(value: object) -> object:
    """The last page's `next_cursor` is null in the public reference and absent in the SDK's types;
    we follow the reference, and nothing else is looked past."""
    if isinstance(value, dict) and value.get("next_cursor", "") is None and "has_more" in value:
        assert value["has_more"] is False
        return {name: part for name, part in value.items() if name != "next_cursor"}
    return value


@pytest.mark.timeout(180)
async def test_every_method(
    node_folder: Path, tmp_path: Path, database_url: str, database: Database
) -> None:
    async with database.transaction() as conn:
        made = await keys.create_key(conn, name="sdk", test=False, merchant_name="one")
    async with SimulatedProvider() as sim:
        settings = {
            "database_url": database_url,
            "master_key": base64.b64encode(bytes(range(32))).decode(),
            "upstream_overrides": json.dumps(dict.fromkeys(HOSTS, sim.url)),
            "provider_key_openai": "sk-openai",
            "provider_key_anthropic": "sk-anthropic",
        }
        async with serving(tmp_path / "data", APP, **settings) as server:
            out = tmp_path / "answers.json"
            base = f"http://127.0.0.1:{server.port}"
            command = ("node", "drive.mjs", base, made.secret_key, str(out))
            path = f"{_browser(tmp_path, node_folder)}{os.pathsep}{os.environ['PATH']}"
            told = await _node(node_folder, *command, PATH=path, TYPED_KEY=made.secret_key)
            assert "methods" in told
            assert await server.stop() == 0
    answers = json.loads(out.read_text())
    check = node_folder / f"check_{os.getpid()}.ts"
    check.write_text(_typed(answers))
    try:
        compiler = ["npx", "tsc", "--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext"]
        await _node(node_folder, *compiler, "--moduleResolution", "nodenext", check.name)
        check.write_text(_typed(answers) + "\nis<{ never: 1 }>()({});")
        with pytest.raises(AssertionError, match="never"):  # the compiler does look
            await _node(node_folder, *compiler, "--moduleResolution", "nodenext", check.name)
    finally:
        check.unlink()
