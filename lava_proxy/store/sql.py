"""Named SQL: every statement lives in queries/*.sql with a name, a sentence and its arguments.

A block looks like this, and is bound by keyword (`await Q["grant"].execute(conn, id=..., ...)`)::

    -- name: insert_grant
    -- Adds credit to an account.
    -- args: grant_id text, amount bigint,
    --   expires_at timestamptz
    INSERT INTO grants VALUES (:grant_id, :amount, :expires_at);

``:name`` becomes ``$n`` once, when the file is loaded, n being its place in ``args``. Casts
(``::``), strings, quoted names, dollar quotes and comments are left alone; ``:name`` right after a
letter or digit is an array slice, not an argument. A file with a mistake does not load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

    from lava_proxy.store.database import Connection

Queries = Mapping[str, "Statement"]

_BLOCK = re.compile(r"^-- name:", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ARGUMENT = re.compile(r"([a-z][a-z0-9_]*) ([a-z][a-z0-9_ ]*(?:\[\])?)")
_TOKEN = re.compile(
    r"""
      --[^\n]*
    | /\*.*?\*/
    | \b[eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$
    | ::
    | (?P<number>\$\d+)
    | (?<!\w):(?P<argument>[a-z][a-z0-9_]*)
    """,
    re.VERBOSE | re.DOTALL,
)


class SqlFileError(Exception):
    """A block is not written as it must be; the message names file and block."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument's name and its PostgreSQL type, as documented."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One block. `text` has ``$1``, ``$2``, ... in the order of `args`."""

    name: str
    description: str
    args: tuple[Argument, ...]
    text: str

    async def fetch(self, conn: Connection, /, **values: object) -> list[asyncpg.Record]:
        return await conn.fetch(self.text, *self.bind(values))

    async def fetchrow(self, conn: Connection, /, **values: object) -> asyncpg.Record | None:
        return await conn.fetchrow(self.text, *self.bind(values))

    async def fetchval(self, conn: Connection, /, **values: object) -> Any:
        """The first column of the first row; None where there is no row."""
        return await conn.fetchval(self.text, *self.bind(values))

    async def execute(self, conn: Connection, /, **values: object) -> str:
        """Run it and return PostgreSQL's command tag, such as ``UPDATE 3``."""
        return await conn.execute(self.text, *self.bind(values))

    def bind(self, values: Mapping[str, object]) -> list[object]:
        """`values` in the order of `args`. Raises `TypeError` for missing and extra names."""
        try:
            bound = [values[argument.name] for argument in self.args]
        except KeyError:
            bound = []
        if len(bound) != len(values) or len(bound) != len(self.args):
            names = {argument.name for argument in self.args}
            raise TypeError(
                f"{self.name}: missing {sorted(names - values.keys())}, "
                f"extra {sorted(values.keys() - names)}"
            )
        return bound


@cache
def load(name: str) -> Queries:
    """The blocks of lava_proxy/store/queries/<name>.sql by name."""
    return parse(f"{name}.sql", (files(__package__) / "queries" / f"{name}.sql").read_text("utf-8"))


def parse(file: str, source: str) -> Queries:
    """The blocks of `source`; `file` is for messages."""
    preamble, *blocks = _BLOCK.split(source)
    if any(line.strip() and not line.startswith("--") for line in preamble.splitlines()):
        raise SqlFileError(f"{file}: SQL before the first block")
    found: dict[str, Statement] = {}
    for block in blocks:
        statement = _statement(file, block)
        if statement.name in found:
            raise SqlFileError(f"{file}: {statement.name} is there twice")
        found[statement.name] = statement
    return MappingProxyType(found)


def _statement(file: str, block: str) -> Statement:
    name, *lines = block.strip().splitlines()
    name = name.strip()
    where = f"{file}: {name}"
    if not _NAME.fullmatch(name):
        raise SqlFileError(f"{where}: not a name")
    count = next((i for i, line in enumerate(lines) if not line.startswith("--")), len(lines))
    description, arguments = _header(where, [line[2:].strip() for line in lines[:count]])
    body = "\n".join(lines[count:]).strip()
    if not body or not description:
        raise SqlFileError(f"{where}: needs a sentence and a statement")
    return Statement(name, description, arguments, _numbered(where, body, arguments))


def _header(where: str, comments: list[str]) -> tuple[str, tuple[Argument, ...]]:
    start = next((i for i, text in enumerate(comments) if text.startswith("args:")), len(comments))
    described = " ".join(comments[:start]).strip()
    listed = " ".join(comments[start:]).removeprefix("args:").strip()
    if not listed:
        return described, ()
    arguments = []
    for text in listed.split(","):
        match = _ARGUMENT.fullmatch(text.strip())
        if match is None:
            raise SqlFileError(f"{where}: not an argument and its type: {text.strip()!r}")
        arguments.append(Argument(match.group(1), match.group(2)))
    if len({argument.name for argument in arguments}) < len(arguments):
        raise SqlFileError(f"{where}: an argument is listed twice")
    return described, tuple(arguments)


def _numbered(where: str, body: str, arguments: tuple[Argument, ...]) -> str:
    places = {argument.name: place for place, argument in enumerate(arguments, 1)}
    used: set[str] = set()

    def number(token: re.Match[str]) -> str:
        name = token.group("argument")
        if token.group("number"):
            raise SqlFileError(f"{where}: {token.group()} has no name, write :name")
        if name is None:
            return token.group()
        if name not in places:
            raise SqlFileError(f"{where}: :{name} is not listed in args")
        used.add(name)
        return f"${places[name]}"

    text = _TOKEN.sub(number, body)
    if unused := places.keys() - used:
        raise SqlFileError(f"{where}: never used: {', '.join(sorted(unused))}")
    return text
