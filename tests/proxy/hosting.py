"""Bringing a gateway up for tests: a database of its own, a server on loopback, one simulated
provider behind every host of the table."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import uvicorn
from gateway_kit import MANAGED, Gate

from lava_proxy.app import LavaProxy
from lava_proxy.cli.protocol import ServerProtocol
from lava_proxy.core.environment import load_settings
from lava_proxy.core.providers import registry_of
from lava_proxy.net.google_account import TOKEN_HOST
from lava_proxy.net.simulated import SimulatedProvider

_numbers = itertools.count(1)


@asynccontextmanager
async def database_copy(server: Any, template: str) -> AsyncIterator[str]:
    """A database of one's own, for as long as a module of tests runs."""
    name = f"proxy_{next(_numbers)}"
    admin = await asyncpg.connect(server.url_of("postgres"))
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield server.url_of(name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


def gate_settings(url: str, folder: Path, sim: SimulatedProvider, **more: object) -> Any:
    """Every host of the provider table is the simulated provider."""
    file = more.get("providers_file")
    registry = registry_of(load_settings({}, **({"providers_file": file} if file else {})))
    hosts = [host for provider in registry.providers for host in provider.hosts]
    hosts.append(TOKEN_HOST)
    return load_settings(
        {},
        **{
            "data_dir": folder,
            "database_url": url,
            "upstream_overrides": dict.fromkeys(hosts, sim.url),
            "provider_keys": MANAGED,
            "writer_interval_ms": 5,
            "drain_timeout_s": 2,
            **more,
        },
    )


@asynccontextmanager
async def serving(app: Any, http: Any = "httptools") -> AsyncIterator[int]:
    """`app` behind uvicorn on a loopback port of its own, with its own connections or others."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        loop="none",
        http=http,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            task.result()
            raise RuntimeError("the server did not start")
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def gate_running(url: str, folder: Path, **settings: object) -> AsyncIterator[Gate]:
    """A gateway with its server and providers."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    async with SimulatedProvider() as sim:
        app = LavaProxy(gate_settings(url, folder, sim, **settings))
        async with serving(app, ServerProtocol) as port:  # as `lava-proxy serve` has it
            opened = app._open
            assert opened is not None
            yield Gate(app, sim, opened._database, port)
