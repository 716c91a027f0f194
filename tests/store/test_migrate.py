"""The migration runner: in order, once, whole or not at all, and never over a doubt."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from lava_proxy.store.database import connect
from lava_proxy.store.migrate import (
    DIRECTORY,
    MigrationError,
    Status,
    migrate,
    read_migrations,
    status,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (n int); INSERT INTO one VALUES (1);")
    (tmp_path / "0002_two.sql").write_text("INSERT INTO one SELECT n + 1 FROM one;")
    (tmp_path / "README.md").write_text("not a migration")
    return tmp_path


async def rows(url: str, query: str = "SELECT n FROM one ORDER BY n") -> list[object]:
    conn = await asyncpg.connect(url)
    try:
        return [row[0] for row in await conn.fetch(query)]
    finally:
        await conn.close()


async def test_applies_in_order_and_once(empty_database_url: str, directory: Path) -> None:
    assert await status(empty_database_url, directory) == Status((), ("0001_one", "0002_two"), None)
    assert await migrate(empty_database_url, directory) == ["0001_one", "0002_two"]
    assert await migrate(empty_database_url, directory) == []
    assert await rows(empty_database_url) == [1, 2]
    assert await status(empty_database_url, directory) == Status(("0001_one", "0002_two"), (), None)
    (directory / "0003_three.sql").write_text("DELETE FROM one WHERE n = 1")
    assert await migrate(empty_database_url, directory) == ["0003_three"]
    assert await rows(empty_database_url) == [2]


async def test_status_changes_nothing(empty_database_url: str, directory: Path) -> None:
    await status(empty_database_url, directory)
    assert await rows(empty_database_url, "SELECT to_regclass('lava_migrations')") == [None]


async def test_several_at_once(empty_database_url: str, directory: Path) -> None:
    done = await asyncio.gather(*(migrate(empty_database_url, directory) for _ in range(5)))
    assert sorted(done) == [[], [], [], [], ["0001_one", "0002_two"]]
    assert await rows(empty_database_url) == [1, 2]


async def test_a_failing_file_leaves_nothing_but_those_before_it(
    empty_database_url: str, directory: Path
) -> None:
    (directory / "0002_two.sql").write_text("INSERT INTO one VALUES (7); SELECT no_such_column;")
    with pytest.raises(MigrationError, match=r"0002_two failed and left nothing.*no_such_column"):
        await migrate(empty_database_url, directory)
    assert await rows(empty_database_url) == [1]
    (directory / "0002_two.sql").write_text("INSERT INTO one VALUES (8)")
    assert await migrate(empty_database_url, directory) == ["0002_two"]


async def test_a_changed_file_is_refused(empty_database_url: str, directory: Path) -> None:
    await migrate(empty_database_url, directory)
    (directory / "0001_one.sql").write_text("CREATE TABLE one (n bigint)")
    with pytest.raises(MigrationError, match="0001_one was changed after it was applied"):
        await migrate(empty_database_url, directory)
    state = await status(empty_database_url, directory)
    assert state.problem is not None
    assert "0001_one was changed" in state.problem


async def test_line_endings_are_no_change(empty_database_url: str, directory: Path) -> None:
    (directory / "0003_three.sql").write_bytes(b"SELECT 1;\nSELECT 2;\n")
    await migrate(empty_database_url, directory)
    (directory / "0003_three.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")
    assert await migrate(empty_database_url, directory) == []


async def test_a_newer_database_is_refused(empty_database_url: str, directory: Path) -> None:
    await migrate(empty_database_url, directory)
    (directory / "0002_two.sql").unlink()
    with pytest.raises(MigrationError, match=r"newer than this program.*0002_two"):
        await migrate(empty_database_url, directory)


async def test_a_late_number_is_refused(empty_database_url: str, directory: Path) -> None:
    (directory / "0002_two.sql").rename(directory / "0003_two.sql")
    await migrate(empty_database_url, directory)
    (directory / "0002_late.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match="0002_late would come after 0003_two"):
        await migrate(empty_database_url, directory)


async def test_waits_for_the_lock_only_so_long(empty_database_url: str, directory: Path) -> None:
    holder = await connect(empty_database_url)
    await holder.execute("SELECT pg_advisory_lock(hashtext('lava_migrations'))")
    with pytest.raises(MigrationError, match="another process has been migrating"):
        await migrate(empty_database_url, directory, lock_timeout_s=1)
    waiting = asyncio.create_task(migrate(empty_database_url, directory))
    await holder.close()
    assert await waiting == ["0001_one", "0002_two"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("1_short.sql", "NNNN_words"), ("0003_Bad.sql", "NNNN_words"), ("0002_b.sql", "another")],
)
def test_names_out_of_line(directory: Path, name: str, complaint: str) -> None:
    (directory / name).write_text("SELECT 1")
    with pytest.raises(MigrationError, match=complaint):
        read_migrations(directory)


def test_ours_are_in_line() -> None:
    assert next(m.name[:4] for m in read_migrations(DIRECTORY)) == "0001"


async def test_ours_are_applied_to_the_template(database_url: str) -> None:
    state = await status(database_url)
    assert state.applied == tuple(m.name for m in read_migrations(DIRECTORY))
    assert (state.pending, state.problem) == ((), None)
