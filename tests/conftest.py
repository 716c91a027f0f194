"""One embedded PostgreSQL for the whole run; every test that asks gets a database of its own.

The schema is migrated once, into a template that each `database_url` is a copy of. Crash safety is
off here: what a test writes need not survive the machine, so it lies in memory where there is room.
A database is a thousand small files; a copy of them took 600 ms of CPU on ext4, and 20 in memory.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import hashlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import hypothesis
import pytest

from lava_proxy.store.database import Database
from lava_proxy.store.embedded import EmbeddedServer, start_embedded
from lava_proxy.store.migrate import migrate

NODE = Path(__file__).parent / "node"
TEMPLATE = "lava_template"
MEMORY = Path("/dev/shm")
ROOM = 2 << 30  # bytes; a server and the databases of the tests that run take 200 MB
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

# How long an example takes says nothing about it on a machine with other work.
hypothesis.settings.register_profile(
    "house", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("house")

_numbers = itertools.count(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Workers report in UTF-8, which has no place for the lone surrogates of some tests' logs."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def memory() -> Path | None:
    """Where files lie in memory; None where there is not much room, or no such place."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    return MEMORY if roomy and os.access(MEMORY, os.W_OK) else None


@pytest.fixture(scope="session")
def postgres(memory: Path | None) -> Iterator[EmbeddedServer]:
    """The run's server. Not in pytest's own folder: another run may clean that up meanwhile."""
    with tempfile.TemporaryDirectory(prefix="lava-tests-", dir=memory) as folder:
        server = asyncio.run(start_embedded(Path(folder), settings=UNSAFE_BUT_FAST))
        yield server
        asyncio.run(server.release())


@pytest.fixture(scope="session")
def template(postgres: EmbeddedServer) -> str:
    """The name of a database with the whole schema and no rows."""

    async def make() -> None:
        await _on_server(postgres, f"CREATE DATABASE {TEMPLATE}")
        await migrate(postgres.url_of(TEMPLATE))

    asyncio.run(make())
    return TEMPLATE


@pytest.fixture
async def database_url(postgres: EmbeddedServer, template: str) -> AsyncIterator[str]:
    """A fresh database with the whole schema."""
    async with _copy(postgres, template) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres: EmbeddedServer) -> AsyncIterator[str]:
    """A fresh database with nothing in it."""
    async with _copy(postgres, "template0") as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open pool on a fresh database."""
    pool = Database(database_url)
    await pool.open()
    yield pool
    await pool.close()


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """The SDKs of JavaScript and our programs that drive them, as the lock file pins them; the
    packages are kept between runs."""
    pinned = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"lava-node-{os.getuid()}-{pinned}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one worker installs, the others wait
        if not (folder / "installed").exists():
            _npm_install(folder)
        for program in NODE.glob("*.mjs"):
            shutil.copy(program, folder)
    return folder


def _npm_install(folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, folder)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install the SDKs: {done.stderr[-200:]}")
    (folder / "installed").touch()


@asynccontextmanager
async def _copy(server: EmbeddedServer, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await _on_server(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield server.url_of(name)
    await _on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _on_server(server: EmbeddedServer, statement: str) -> None:
    conn = await asyncpg.connect(server.url_of("postgres"))
    try:
        await conn.execute(statement)
    finally:
        await conn.close()
