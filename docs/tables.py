"""The tables in docs/ that are made from the code: ``make docs`` writes them, a test compares.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; everything else in the pages
is written by hand.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import SecretStr

from lava_adapters.registry import Registry
from lava_proxy.core import provider_keys
from lava_proxy.core.settings import PREFIX, Settings
from lava_proxy.manage.app import ROUTES
from lava_proxy.manage.openapi import path_of
from lava_proxy.proxy.exchange import TABLE, Books, Event, State
from lava_proxy.rules.catalog import OVERRIDE_UNITS
from lava_proxy.rules.tiers import MILLION, MS_PER_MINUTE

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
_MARKED = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MIB, _KIB = 2**20, 2**10


def settings() -> str:
    """Every setting: name, default, sentence."""
    rows = []
    for name, field in Settings.model_fields.items():
        shown = PREFIX + name.upper()
        if name == "provider_keys":
            shown = provider_keys.PREFIX + "<PROVIDER>"
        default = field.get_default(call_default_factory=True)
        rows.append((f"`{shown}`", _default(name, default), field.description or ""))
    return _table(("Setting", "Default", "Meaning"), rows)


def exchange() -> str:
    """The (state, event) table of a forwarded call."""
    rows = []
    for state in State:
        for event in Event:
            step = TABLE.get((state, event))
            if step is None:
                continue
            books = "" if step.books is Books.NOTHING else step.books.value.upper()
            outcome = f"`{step.outcome}`" if step.outcome else ""
            rows.append((state.name, event.name, step.state.name, books, outcome))
    return _table(("State", "Event", "Next", "Books", "Outcome"), rows)


def override_units() -> str:
    """The members of a price override."""
    per = {MILLION: "1,000,000", MS_PER_MINUTE: "minute", 1: "one"}
    rows = [
        (f"`{name}`", kind.replace("_ms", " time").replace("_", " "), per[units])
        for name, (kind, units) in OVERRIDE_UNITS.items()
    ]
    return _table(("Name", "What it prices", "USD per"), rows)


def routes() -> str:
    """Every route of the REST API."""
    rows = []
    for route in sorted(ROUTES, key=lambda route: (path_of(route), route.method)):
        told = (inspect.getdoc(route.handler) or "").partition("\n\n")[0].replace("\n", " ")
        rows.append((f"`{route.method} /v1{path_of(route)}`", told))
    return _table(("Route", "What it does"), rows)


def python_sdks() -> str:
    """Every official Python SDK and what it raises."""
    return _sdks(_matrix().PYTHON, _pinned)


def node_sdks() -> str:
    """The same for JavaScript."""
    package = json.loads((ROOT / "tests" / "node" / "package.json").read_text(encoding="utf-8"))
    return _sdks(_matrix().NODE, package["dependencies"].__getitem__)


def _sdks(matrix: Iterable[Any], version: Callable[[str], str]) -> str:
    rows = []
    for row in matrix:
        raised = (f"`{row.cut}`", f"`{row.refused}`", f"`{row.failed}`")
        base = f"`/{row.provider}{row.base}`"
        rows.append((f"{row.sdk} {version(row.sdk)}", row.api, base, "whole, billed", *raised))
    head = ("SDK", "API", "Base URL", "Stream, plain answer", "Cut off", "Refused", "400")
    return _table(head, rows)


def providers() -> str:
    """Every row of the provider table."""
    rows = []
    for row in Registry.builtin().providers:
        paid = [route for route in row.routes if route.kind not in ("free", "opaque")]
        formats = dict.fromkeys(route.family.replace("_", " ") for route in paid)
        hosts = [f"`{host}`" for host in row.hosts[:3]]
        if row.base.endswith(".invalid"):
            hosts = ["yours"]
        elif len(row.hosts) > len(hosts):
            hosts.append(f"and {len(row.hosts) - len(hosts)} more")
        found = (row.label, f"`{row.id}`", ", ".join(hosts), ", ".join(formats))
        rows.append((*found, f"`{row.credential}`", f"[docs]({row.docs})", row.checked))
    head = ("Provider", "Id", "Hosts", "Formats", "Key", "Docs", "Checked")
    return _table(head, sorted(rows, key=lambda row: row[0].lower()))


def disconnects() -> str:
    """What a hang-up means to each provider, and what is done when a client leaves."""
    told = {True: "yes", False: "no", None: "not known"}
    rows = [
        (row.label, told[row.cancel_stops_charge], f"`{row.disconnect}`")
        for row in Registry.builtin().providers
        if row.cancel_stops_charge is not None
    ]
    silent = [r.label for r in Registry.builtin().providers if r.cancel_stops_charge is None]
    rows.append((", ".join(sorted(silent, key=str.lower)), told[None], "`cancel`"))
    return _table(("Provider", "A hang-up stops the charge", "Policy"), rows)


def estimates() -> str | None:
    """How far our own count is from the provider's; None where there are no recordings."""
    measured = _load(ROOT / "benchmarks" / "estimates.py")
    found = measured.rows()
    return _table(measured.HEAD, found) if found else None


TABLES: Mapping[str, Callable[[], str | None]] = {
    "settings": settings,
    "exchange": exchange,
    "override-units": override_units,
    "routes": routes,
    "python-sdks": python_sdks,
    "node-sdks": node_sdks,
    "providers": providers,
    "disconnects": disconnects,
    "estimates": estimates,
}


def rendered(text: str) -> str:
    """`text` with every marked table made anew; one that cannot be made here stays as it is."""

    def fill(match: re.Match[str]) -> str:
        made = TABLES[match[2]]()
        return match[0] if made is None else f"{match[1]}{made}{match[3]}"

    return _MARKED.sub(fill, text)


def main() -> int:
    """Write all pages; names the ones that changed."""
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = rendered(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(ROOT))
    return 0


def _matrix() -> ModuleType:
    """The data that the tests of the SDKs prove."""
    return _load(ROOT / "tests" / "proxy" / "sdk_matrix.py")


def _load(path: Path) -> ModuleType:
    spec = spec_from_file_location(f"tables_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} is not there")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _pinned(package: str) -> str:
    """The version that the tests run."""
    pins = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(package)}==(\S+)", pins, re.MULTILINE)
    return found[1] if found else ""


def _default(name: str, value: object) -> str:
    if value is None or value in ((), {}) or isinstance(value, SecretStr):
        return "not set"
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int) and name.endswith("_bytes"):
        whole, unit = (value // _MIB, "MiB") if value >= _MIB else (value // _KIB, "KiB")
        return f"`{value}` ({whole} {unit})"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
