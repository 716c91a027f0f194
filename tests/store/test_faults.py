"""Every foreign error comes out as one of four faults, with PostgreSQL's state and constraint."""

from __future__ import annotations

import pytest

from lava_proxy.store.database import (
    Database,
    StoreBroken,
    StoreConflict,
    StoreDown,
    StorePoison,
    mapped,
)


@pytest.mark.parametrize(
    ("query", "fault", "state"),
    [
        ("SELECT 1/0", StorePoison, "22012"),
        ("SELECT E'a' || chr(0)", StorePoison, "54000"),
        ("""SELECT '"\\u0000"'::jsonb ->> 0""", StorePoison, "22P05"),
        ("SELECT no_such_column", StoreBroken, "42703"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", StoreDown, "08003"),
        ("SET TRANSACTION READ ONLY; CREATE TABLE x ()", StoreDown, "25006"),
        ("DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END$$", StoreConflict, "40001"),
        ("DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END$$", StoreConflict, "40P01"),
        ("DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END$$", StoreDown, "53100"),
        ("DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '58030'; END$$", StoreDown, "58030"),
        ("DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '57P03'; END$$", StoreDown, "57P03"),
        ("DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '57P04'; END$$", StoreDown, "57P04"),
        ("DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '08006'; END$$", StoreDown, "08006"),
        ("DO $$BEGIN RAISE EXCEPTION USING ERRCODE = 'P0001'; END$$", StoreBroken, "P0001"),
    ],
)
async def test_faults_by_state(
    database: Database, query: str, fault: type[Exception], state: str
) -> None:
    with pytest.raises(fault) as caught:
        async with database.connection() as conn:
            await conn.execute(query)
    assert getattr(caught.value, "sqlstate", None) == state
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("value", ["\x00", "\ud800", 2**63])
async def test_values_that_cannot_be_sent_are_poison(database: Database, value: object) -> None:
    query = "SELECT $1::bigint" if isinstance(value, int) else "SELECT $1::text"
    with pytest.raises(StorePoison):
        async with database.connection() as conn:
            await conn.fetchval(query, value)


async def test_json_that_cannot_be_sent_is_poison(database: Database) -> None:
    with pytest.raises(StorePoison):
        async with database.connection() as conn:
            await conn.fetchval("SELECT $1::jsonb", {"a": "\ud800"})


async def test_the_constraint_is_named(database: Database) -> None:
    async with database.connection() as conn:
        await conn.execute("CREATE TABLE t (n int CONSTRAINT positive CHECK (n > 0))")
    with pytest.raises(StorePoison) as caught:
        async with database.connection() as conn:
            await conn.execute("INSERT INTO t VALUES (0)")
    assert caught.value.constraint == "positive"
    assert caught.value.sqlstate == "23514"


async def test_a_changed_table_is_a_conflict_not_a_defect(database: Database) -> None:
    async with database.connection() as conn:
        await conn.execute("CREATE TABLE t AS SELECT 1 AS n")
        await conn.fetch("SELECT * FROM t")
        async with database.connection() as other:
            await other.execute("ALTER TABLE t ALTER n TYPE text")
        with pytest.raises(StoreConflict), mapped():
            async with conn.transaction():
                await conn.fetch("SELECT * FROM t")
        assert await conn.fetchval("SELECT n FROM t") == "1"
