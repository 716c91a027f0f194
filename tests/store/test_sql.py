"""Named SQL: the parser, the binding, and every block that we ship, prepared by PostgreSQL."""

from __future__ import annotations

import asyncio
from importlib.resources import files

import asyncpg
import pytest

from lava_proxy.store.database import Connection, connect
from lava_proxy.store.embedded import EmbeddedServer
from lava_proxy.store.sql import Queries, SqlFileError, Statement, load, parse

FILES = sorted(
    entry.name.removesuffix(".sql")
    for entry in (files("lava_proxy.store") / "queries").iterdir()
    if entry.name.endswith(".sql")
)
BLOCKS = [(file, name) for file in FILES for name in load(file)]


def block(body: str, args: str = "") -> Statement:
    header = (
        f"-- name: it\n-- Does it.\n-- args: {args}\n" if args else "-- name: it\n-- Does it.\n"
    )
    return parse("test.sql", header + body)["it"]


@pytest.fixture(scope="module")
def prepared(postgres: EmbeddedServer, template: str) -> dict[tuple[str, str], str]:
    """(file, block) -> what is wrong with it, "" when nothing is; on one connection."""

    async def check_all() -> dict[tuple[str, str], str]:
        conn = await connect(postgres.url_of(template))
        try:
            return {key: await complaint_of(conn, load(key[0])[key[1]]) for key in BLOCKS}
        finally:
            await conn.close()

    return asyncio.run(check_all())


async def complaint_of(conn: Connection, statement: Statement) -> str:
    try:
        real = await conn.prepare(statement.text)
    except asyncpg.PostgresError as error:
        return f"{type(error).__name__}: {error}"
    got = [parameter.oid for parameter in real.get_parameters()]
    said = [await conn.fetchval("SELECT to_regtype($1)::oid", a.type) for a in statement.args]
    return "" if got == said else f"types: PostgreSQL says {real.get_parameters()}"


@pytest.mark.parametrize(("file", "name"), BLOCKS, ids=lambda part: part)
def test_every_block_prepares(file: str, name: str, prepared: dict[tuple[str, str], str]) -> None:
    assert prepared[file, name] == ""
    assert load(file)[name].description.endswith(".")


def test_there_are_blocks() -> None:
    assert ("plumbing", "ping") in BLOCKS


def test_names_become_numbers_in_the_order_of_args() -> None:
    statement = block("SELECT :b, :a::text, :b;", "a text, b bigint")
    assert statement.text == "SELECT $2, $1::text, $2;"
    assert [(a.name, a.type) for a in statement.args] == [("a", "text"), ("b", "bigint")]
    assert statement.description == "Does it."


@pytest.mark.parametrize(
    "body",
    [
        "SELECT ':a'",
        "SELECT 'it''s :a'",
        r"SELECT E'it\'s :a'",
        'SELECT ":a" FROM ":a"":a"',
        "SELECT 1 -- :a",
        "SELECT /* :a\n :a */ 1",
        "SELECT $$ :a $$",
        "SELECT $tag$ :a $$ :a $tag$",
        "SELECT $$$$ || 'x'",
        "SELECT now()::date, x::text[]",
        "SELECT list[lo:hi], list[1:2], list[lo : hi]",
        "SELECT f(x := 1)",
    ],
)
def test_what_is_no_argument_stays(body: str) -> None:
    assert block(body).text == body
    mixed = block(f"{body}\n, :a", "a text")
    assert mixed.text == f"{body}\n, $1"


def test_arguments_may_continue_on_the_next_line() -> None:
    args = "a text,\n--   b double precision, c text[],\n-- d int8"
    statement = block("SELECT :a, :b, :c, :d", args)
    assert [a.type for a in statement.args] == ["text", "double precision", "text[]", "int8"]


def test_a_file_may_open_with_comments_and_hold_comments() -> None:
    source = (
        "-- About.\n\n-- name: one\n-- One.\nSELECT 1\n-- why\n;\n\n-- name: two\n-- Two.\nSELECT 2"
    )
    queries: Queries = parse("test.sql", source)
    assert [s.text for s in queries.values()] == ["SELECT 1\n-- why\n;", "SELECT 2"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("SELECT 1", "before the first block"),
        ("-- name: Bad-Name\n-- X.\nSELECT 1", "not a name"),
        ("-- name: it\nSELECT 1", "needs a sentence"),
        ("-- name: it\n-- X.\n", "needs a sentence"),
        ("-- name: it\n-- X.\nSELECT :a", ":a is not listed"),
        ("-- name: it\n-- X.\n-- args: a text\nSELECT 1", "never used: a"),
        ("-- name: it\n-- X.\n-- args: a text, a text\nSELECT :a", "listed twice"),
        ("-- name: it\n-- X.\n-- args: a\nSELECT :a", "not an argument and its type: 'a'"),
        ("-- name: it\n-- X.\nSELECT $1", "has no name"),
        ("-- name: it\n-- X.\nSELECT 1\n-- name: it\n-- X.\nSELECT 1", "twice"),
    ],
)
def test_mistakes_do_not_load(source: str, complaint: str) -> None:
    with pytest.raises(SqlFileError, match=complaint):
        parse("test.sql", source)


def test_bind_complains_about_names() -> None:
    statement = block("SELECT :a, :b", "a text, b text")
    assert statement.bind({"b": 2, "a": 1}) == [1, 2]
    with pytest.raises(TypeError, match=r"it: missing \['b'\], extra \['c'\]"):
        statement.bind({"a": 1, "c": 2})
    with pytest.raises(TypeError, match=r"missing \[\], extra \['c'\]"):
        statement.bind({"a": 1, "b": 2, "c": 3})
    with pytest.raises(TypeError, match=r"missing \['a', 'b'\]"):
        statement.bind({})


async def test_statements_run(empty_database_url: str) -> None:
    conn = await connect(empty_database_url)
    twice = block("SELECT n, n * :by::int AS m FROM generate_series(1, :most::int) n",
                  "most int, by int")  # fmt: skip
    try:
        assert [r["m"] for r in await twice.fetch(conn, most=3, by=2)] == [2, 4, 6]
        row = await twice.fetchrow(conn, most=1, by=5)
        assert row is not None
        assert row["m"] == 5
        assert await twice.fetchval(conn, most=0, by=1) is None
        assert await twice.execute(conn, most=2, by=1) == "SELECT 2"
    finally:
        await conn.close()
