"""The README's commands are cut out and run, line by line, against the server they start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import ROOT, Serving, environment, serving

from lava_proxy.net.simulated import SimulatedProvider

APP = "lava_proxy.app:LavaProxy"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def commands(block: str) -> list[str]:
    """A block's commands, each whole however many lines it has."""
    found: list[str] = []
    for line in block.splitlines():
        if found and (found[-1].endswith("\\") or found[-1].count("'") % 2):
            found[-1] += "\n" + line
        elif line:
            found.append(line)
    return found


def blocks() -> list[list[str]]:
    text = (ROOT / "README.md").read_text("utf-8")
    return [commands(block) for block in BLOCK.findall(text)]


async def test_the_commands_of_serve(tmp_path: Path, database_url: str) -> None:
    serve, use = next(
        pair for pair in zip(blocks(), blocks()[1:], strict=False) if "serve" in pair[0][-1]
    )
    async with SimulatedProvider() as provider:
        origin = {"api.openai.com": provider.url}
        settings = {
            "database_url": database_url,
            "provider_key_openai": "sk-of-the-readme",
            "upstream_overrides": json.dumps(origin),
        }
        async with serving(tmp_path, APP, **settings) as server:
            env = _with_command(tmp_path, environment(tmp_path, **settings))
            (create,) = (line for line in serve if line.startswith("lava-proxy keys"))
            secret_key = json.loads(await _run(create, env, server))["secret_key"]
            assert serve[-1].startswith("lava-proxy serve")
            said = await _use(use, env, server, secret_key)
    assert said[-1].rstrip().endswith("data: [DONE]")
    assert json.loads(said[0])["reference_id"] == "acme"
    assert "5.00" in said[2]


async def _use(
    lines: list[str], env: dict[str, str], server: Serving, secret_key: str
) -> list[str]:
    """What the commands of the second block say, the secrets of earlier answers filled in."""
    said: list[str] = []
    token = ""
    for line in lines[1:]:
        filled = f"{lines[0]}\n{line}".replace("aks_live_...", secret_key)
        said.append(await _run(filled.replace("lava_ft_...", token), env, server))
        if "/v1/forward_tokens" in line:
            made: dict[str, Any] = json.loads(said[-1])
            token = made["token"]
    return said


def _with_command(folder: Path, env: dict[str, str]) -> dict[str, str]:
    """`lava-proxy` on the PATH, as after the activation of the environment."""
    binary = folder / "bin" / "lava-proxy"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec {sys.executable} -m lava_proxy "$@"\n')
    binary.chmod(0o755)
    return {**env, "PATH": f"{binary.parent}{os.pathsep}{env['PATH']}"}


async def _run(command: str, env: dict[str, str], server: Serving) -> str:
    shell = await asyncio.create_subprocess_exec(
        "/bin/sh", "-ec", command.replace("localhost:8080", f"localhost:{server.port}"),
        env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, errors = await shell.communicate()
    assert shell.returncode == 0, f"{command}\n{errors.decode()}"
    assert b'"error"' not in out, f"{command}\n{out.decode()}"
    return out.decode()
