"""The embedded server: shared by processes, stopped by the last one, whoever was killed before."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from lava_proxy.core.settings import ConfigurationError
from lava_proxy.store import cluster, server_user
from lava_proxy.store.embedded import EmbeddedServer, start_embedded

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another user")

CHILD = """
import asyncio, pathlib, sys
from lava_proxy.store.embedded import start_embedded
server = asyncio.run(start_embedded(pathlib.Path(sys.argv[1])))
print(server.pid, flush=True)
sys.stdin.read()
asyncio.run(server.release())
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for this module, with a path that is hard in every way; stopped between tests."""
    folder = tmp_path_factory.mktemp("embedded") / ("a long, 'hard' $path " + "x" * 80)
    (folder / "postgres.new").mkdir(parents=True)
    (folder / "postgres.new" / "half-made by somebody who was killed").touch()
    return folder


@contextmanager
def child(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, attached when this returns; it leaves when its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        try:
            yield process
        finally:
            process.kill()


async def value(server: EmbeddedServer, query: str) -> object:
    conn = await asyncpg.connect(server.url)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


async def test_starts_serves_and_stops(data_dir: Path) -> None:
    server = await start_embedded(data_dir)
    pid = server.pid
    assert pid is not None
    assert str(await value(server, "SHOW server_version")).startswith("18")
    assert await value(server, "SELECT current_database()") == "lava"
    assert await value(server, "SHOW synchronous_commit") == "on"
    assert await value(server, "SHOW fsync") == "on"
    assert await value(server, "SHOW max_connections") == "200"
    assert await value(server, "SHOW listen_addresses") == ""
    assert stat.S_IMODE((data_dir / "postgres").stat().st_mode) == 0o700
    await server.release()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    await server.release()
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


async def test_last_of_two_stops_it(data_dir: Path) -> None:
    first, second = await asyncio.gather(start_embedded(data_dir), start_embedded(data_dir))
    assert first.pid == second.pid
    await first.release()
    assert await value(second, "SELECT 1") == 1
    await second.release()
    assert second.pid is None


async def test_a_killed_user_does_not_keep_it_running(data_dir: Path) -> None:
    server = await start_embedded(data_dir)
    with child(data_dir) as killed, child(data_dir) as gone:
        killed.kill()
        killed.wait()
        gone.communicate("")
        assert gone.returncode == 0
        assert await value(server, "SELECT 1") == 1
        await server.release()
        assert server.pid is None


async def test_the_other_process_stops_it(data_dir: Path) -> None:
    server = await start_embedded(data_dir)
    process = psutil.Process(server.pid)
    with child(data_dir) as other:
        await server.release()
        assert process.is_running()
        other.communicate("")
        assert server.pid is None


async def test_all_users_killed(data_dir: Path) -> None:
    with child(data_dir) as killed:
        killed.kill()
    server = await start_embedded(data_dir)
    assert await value(server, "SELECT 1") == 1
    await server.release()
    assert server.pid is None


async def test_everything_killed_with_the_server(data_dir: Path) -> None:
    with child(data_dir) as killed:
        left = await start_embedded(data_dir)
        await value(left, "CREATE TABLE kept AS SELECT 42 AS n")
        os.kill(left.pid or 0, signal.SIGKILL)
        killed.kill()
    await left.release()
    assert (data_dir / "postgres" / "postmaster.pid").exists()
    server = await start_embedded(data_dir)
    assert await value(server, "SELECT n FROM kept") == 42
    await server.release()
    assert server.pid is None


async def test_server_killed_under_its_user(data_dir: Path) -> None:
    first = await start_embedded(data_dir)
    os.kill(first.pid or 0, signal.SIGKILL)
    second = await start_embedded(data_dir)
    assert await value(first, "SELECT 1") == 1
    await second.release()
    assert await value(first, "SELECT 1") == 1
    await first.release()
    assert first.pid is None


async def test_pid_file_names_somebody_else(data_dir: Path) -> None:
    await (await start_embedded(data_dir)).release()
    pid_file = data_dir / "postgres" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{data_dir}/postgres\n0\n5432\n.\n\n0 0\nready\n")
    os.chown(pid_file, *_owner(data_dir / "postgres"))
    server = await start_embedded(data_dir)
    assert server.pid not in (None, os.getpid())
    await server.release()
    assert server.pid is None


async def test_arriving_and_leaving_never_collide(data_dir: Path) -> None:
    async def visit(times: int) -> None:
        for _ in range(times):
            server = await start_embedded(data_dir)
            assert await value(server, "SELECT 1") == 1
            await server.release()

    await asyncio.gather(*(visit(3) for _ in range(4)))
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


async def test_cancelled_arrival_lets_go(data_dir: Path) -> None:
    task = asyncio.create_task(start_embedded(data_dir))
    while not (data_dir / "postgres" / "postmaster.pid").exists():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server = await start_embedded(data_dir)
    await server.release()
    assert server.pid is None


async def test_waits_for_the_gate_only_so_long(data_dir: Path) -> None:
    with (data_dir / "postgres.gate").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="starting or stopping"):
            await start_embedded(data_dir, timeout_s=0.1)


async def test_a_failed_start_says_why_and_lets_go(data_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pg_ctl failed(.|\n)*no_such_setting"):
        await start_embedded(data_dir, settings={"no_such_setting": "1"})
    server = await start_embedded(data_dir)
    await server.release()
    assert server.pid is None


async def test_large_log_is_turned(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LOG_BYTES_MAX", 1)
    server = await start_embedded(data_dir)
    await server.release()
    assert (data_dir / "postgres.log.1").stat().st_size > 1
    assert (data_dir / "postgres.log").exists()


async def test_files_of_another_release(data_dir: Path) -> None:
    await (await start_embedded(data_dir)).release()
    version = data_dir / "postgres" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 17.*LAVA_DATABASE_URL"):
        await start_embedded(data_dir)
    version.write_text("18\n")


@as_root
async def test_a_copy_made_by_root_works(data_dir: Path, tmp_path: Path) -> None:
    server = await start_embedded(data_dir)
    copied = tmp_path / "copy"
    try:
        shutil.copytree(data_dir, copied, ignore=shutil.ignore_patterns(".s.*"))
    finally:
        await server.release()
    assert (copied / "postgres").stat().st_uid == 0
    server = await start_embedded(copied)
    assert await value(server, "SELECT 1") == 1
    assert (copied / "postgres").stat().st_uid != 0
    await server.release()


@as_root
@pytest.mark.parametrize("lists", [True, False])
async def test_closed_parent(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: bool
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    await (await start_embedded(data_dir)).release()
    shutil.move(data_dir, closed / "data")
    if not lists:
        monkeypatch.setattr(server_user, "_add_passage", _no_lists)
    try:
        server = await start_embedded(closed / "data")
        assert await value(server, "SELECT 1") == 1
        await server.release()
        others = 0 if lists else stat.S_IXOTH
        assert closed.stat().st_mode & 0o007 == others
    finally:
        shutil.move(closed / "data", data_dir)


@as_root
def test_a_parent_that_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    closed.chmod(0o700)
    monkeypatch.setattr(server_user, "_add_passage", _no_lists)
    monkeypatch.setattr(Path, "chmod", _no_lists)
    with pytest.raises(ConfigurationError, match=r"cannot enter /.*: .*chmod o[+]x"):
        server_user.let_pass(server_user.ServerUser(65534, 65534, switch=True), closed / "data")


@as_root
def test_passage_is_for_one_user_and_keeps_other_entries(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o750)
    for uid in (65533, 65534, 65534):
        try:
            server_user._add_passage(folder, uid)
        except OSError as error:
            pytest.skip(f"no access control lists on this file system: {error}")
    users = {who: perm for (tag, who), perm in server_user._acl_of(folder).items() if tag == 2}
    assert users == {65533: 1, 65534: 1}
    assert folder.stat().st_mode & 0o707 == 0o700


def test_no_build_for_this_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"no build for it.*LAVA_DATABASE_URL"):
        EmbeddedServer(tmp_path, {}, 1)


async def test_data_dir_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="LAVA_DATA_DIR"):
        await start_embedded(tmp_path / "file")


def _owner(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_uid, facts.st_gid


def _no_lists(*_: object) -> None:
    raise OSError("not here")
