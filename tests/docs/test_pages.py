"""The pages say what the code says: tables, settings, commands, routes, targets, links, floors."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
import typer

from lava_proxy.cli.main import app as commands
from lava_proxy.core.environment import known_names
from lava_proxy.core.settings import Settings
from lava_proxy.proxy.exchange import State
from lava_proxy.rules.settlement import Enforcement, Outcome, Settlement

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
PAGE_IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]

FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"\blava-proxy ((?:[a-z]+ ?){1,2})")
TARGET = re.compile(r"`(?:make ([a-z-]+)[^`]*)`|^(?:\s*)make ((?:[a-z-]+ ?)+)", re.MULTILINE)
ROUTE = re.compile(r"(?<![\w/])/v1/[a-z_]+(?:/[a-z_{}]+)*")
NOT_COMMANDS = {"serves", "is", "on"}


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _first_cells(text: str) -> list[str]:
    """The code in the first column of every table row."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_tables_made_from_the_code_are_up_to_date(page: Path) -> None:
    tables = _load(DOCS / "tables.py")
    assert tables.rendered(_text(page)) == _text(page), "run `make docs`"


def test_every_table_is_used() -> None:
    tables = _load(DOCS / "tables.py")
    used = {
        name for page in PAGES for name in re.findall(r"<!-- table: ([a-z-]+) -->", _text(page))
    }
    assert used == set(tables.TABLES)


def test_every_setting_has_its_row() -> None:
    rows = _first_cells(_text(DOCS / "configuration.md"))
    assert sorted(rows) == sorted(known_names())


def test_every_setting_is_read_somewhere() -> None:
    """A setting that changes nothing is worse than none."""
    code = "".join(
        _text(path) for path in (ROOT / "lava_proxy").rglob("*.py") if path.name != "settings.py"
    )
    unread = [name for name in Settings.model_fields if not re.search(rf"\.{name}\b", code)]
    assert unread == []


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_settings_that_are_named_exist(page: Path) -> None:
    known = {name.removesuffix("<PROVIDER>") for name in known_names()}
    known |= {"LAVA_SECRET_KEY", "LAVA_RECORDINGS", "LAVA_"}
    named = set(re.findall(r"\bLAVA_[A-Z_]*", _text(page)))
    assert {n for n in named if n not in known and not n.startswith("LAVA_PROVIDER_KEY_")} == set()


def _command_names() -> set[str]:
    group = typer.main.get_command(commands)
    names = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        names.add(name)
        names |= {f"{name} {sub}" for sub in getattr(command, "commands", {})}
    return names


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_commands_that_are_named_exist(page: Path) -> None:
    known = _command_names()
    wrong = []
    for match in COMMAND.finditer(_text(page)):
        words = match[1].split()
        is_group = len(words) > 1 and any(name.startswith(f"{words[0]} ") for name in known)
        name = " ".join(words) if is_group else words[0]
        if name not in known | NOT_COMMANDS:
            wrong.append(match[0])
    assert wrong == []


def test_every_command_is_in_the_changelog_or_the_readme() -> None:
    told = _text(ROOT / "README.md") + _text(ROOT / "CHANGELOG.md")
    missing = [name for name in _command_names() if f"{name}" not in told]
    assert missing == []


def _targets() -> dict[str, str]:
    found = re.findall(r"^([a-z-]+):[^#=\n]*(?:## (.*))?$", _text(ROOT / "Makefile"), re.MULTILINE)
    return dict(found)


def test_make_targets_that_are_named_exist() -> None:
    known = set(_targets())
    named: set[str] = set()
    for page in (*PAGES, ROOT / ".ci" / "run"):
        for inline, listed in TARGET.findall(_text(page)):
            named |= {inline} if inline else set(listed.split())
    assert named - known == set()
    assert {"install", "run", "test", "bench", "lint", "types", "cover", "clean"} <= known


def test_make_help_tells_of_every_target() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    told = {line.split()[0] for line in shown.splitlines()}
    assert told == set(_targets())
    assert all(_targets().values()), "a target without its ## sentence"


def test_routes_that_are_named_exist() -> None:
    from lava_proxy.manage.app import ROUTES
    from lava_proxy.manage.gateway_routes import GATEWAY_PATHS

    known = {_shape(f"/v1/{route.path.lstrip('/').removeprefix('v1/')}") for route in ROUTES}
    known |= {f"/v1{path}" for path in GATEWAY_PATHS}
    wrong = [
        f"{page}: {route}"
        for page in PAGES
        for line in _text(page).splitlines()
        if "api." not in line and "localhost:8080/openai" not in line  # a provider's own paths
        for route in ROUTE.findall(line)
        if _shape(route) not in known and not route.startswith(("/v1/forward", "/v1/rewrite"))
    ]
    assert wrong == []


def _shape(route: str) -> str:
    return re.sub(r"\{[^}]*\}", "*", route)


def _links(page: Path) -> Iterator[str]:
    for link in LINK.findall(FENCE.sub("", _text(page))):
        if "://" not in link and not link.startswith("mailto:"):
            yield link


def _anchors(page: Path) -> set[str]:
    """The names that headings get: lower case, no punctuation, spaces to hyphens."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", _text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in _links(page):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_every_page_is_linked_from_the_readme_or_a_page_that_is() -> None:
    found = {ROOT / "README.md"}
    fresh = set(found)
    while fresh:
        links = {(page.parent / link).resolve() for page in fresh for link in _links(page)}
        fresh = {page for page in links if page.suffix == ".md" and page.exists()} - found
        found |= fresh
    assert set(DOCS.glob("*.md")) - found == set()


def test_code_that_names_a_page_names_one_that_exists() -> None:
    wrong = []
    for base in ("lava_proxy", "adapters"):
        for path in [*(ROOT / base).rglob("*.py"), *(ROOT / base).rglob("*.sql")]:
            for name in re.findall(r"(?<![\w/.])docs/([\w/.-]*[\w-])", _text(path)):
                found = list(DOCS.glob(f"{name}*")) if name else [DOCS]
                if not found:
                    wrong.append(f"{path}: docs/{name}")
    assert wrong == []


def test_decisions_are_numbered_without_a_gap() -> None:
    names = sorted(path.name for path in (DOCS / "decisions").glob("*.md"))
    numbers = [int(name[:4]) for name in names]
    assert numbers == list(range(1, len(names) + 1))
    for name, number in zip(names, numbers, strict=True):
        assert _text(DOCS / "decisions" / name).startswith(f"# {number:04d}: ")


def test_the_floors_on_the_page_are_the_ones_that_hold() -> None:
    floors = _load(ROOT / "tests" / "test_floors.py").FLOORS
    page = _text(DOCS / "architecture.md")
    shown: dict[str, int] = {}
    for number, rooms in re.findall(r"^(\d)  (.+?)   +\S", page, re.MULTILINE):
        shown |= {room: int(number) for room in rooms.split()}
    present = {path.name for path in (ROOT / "lava_proxy").iterdir() if path.is_dir()}
    present = {name for name in present if not name.startswith("_")} | {"app", "lava_adapters"}
    assert set(shown) == present
    assert {room: floors[room] for room in shown} == shown


def test_every_state_is_explained() -> None:
    page = _text(DOCS / "architecture.md")
    for state in State:
        assert re.search(rf"^\| {state.name} \| [a-z]", page, re.MULTILINE), state


def test_every_way_of_ending_has_its_price() -> None:
    rows = _first_cells(_text(DOCS / "metering.md"))
    assert set(get_args(Outcome)) <= set(rows)
    assert set(get_args(Enforcement)) <= {row.split()[0] for row in rows} | {"sliced"}
    sources = get_args(Settlement.__dataclass_fields__["usage_source"].type) or re.findall(
        r'"(\w+)"', str(Settlement.__dataclass_fields__["usage_source"].type)
    )
    assert set(sources) <= set(rows)


def test_requirements_hold_hashes_and_no_addresses() -> None:
    for name in ("run.txt", "dev.txt"):
        text = _text(ROOT / "requirements" / name)
        pins = re.findall(r"^[a-z][\w.-]*==\S+.*\\$", text, re.MULTILINE)
        assert len(pins) > 30
        assert text.count("--hash=sha256:") > len(pins)
        assert not re.search(r"https?://|file:|--index|--extra-index|--find-links|^#", text, re.M)


def test_requirements_name_every_direct_dependency() -> None:
    import tomllib

    project = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    wanted = {
        "run.txt": [*project["dependencies"], *extras["tokens"]],
        "dev.txt": [*project["dependencies"], *extras["tokens"], *extras["dev"]],
    }
    for name, requirements in wanted.items():
        pinned = set(re.findall(r"^([\w.-]+)==", _text(ROOT / "requirements" / name), re.MULTILINE))
        assert {re.split(r"[^\w.-]", r, maxsplit=1)[0] for r in requirements} <= pinned


def test_the_script_for_ci_is_valid_and_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in _text(script)


def test_the_tables_script_runs_alone(tmp_path: Path) -> None:
    """`make docs` on pages that are up to date changes nothing and says nothing."""
    done = subprocess.run(
        [sys.executable, str(DOCS / "tables.py")],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
