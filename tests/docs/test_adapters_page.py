"""The worked example of docs/adapters.md works, and `check` finds what is wrong with bad ones."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lava_adapters import Quirks, Usage
from lava_adapters.registry import Registry
from lava_proxy.testing import Broken, Recording, check

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adapters.md"
SAMPLE = re.compile(r"<!-- sample: (\w+) -->\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SAMPLES = dict(SAMPLE.findall(PAGE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the page's code defines."""
    found: dict[str, Any] = {"__name__": "acme_lava"}
    for name in ("acme", "check"):
        exec(compile(SAMPLES[name], f"adapters.md, sample {name}", "exec"), found)
    return found


def recording(names: dict[str, Any], **changes: Any) -> Recording:
    made = Recording(
        body=names["ANSWER"],
        request=b'{"model": "acme-1", "prompt": "What time is it?"}',
        content_type="application/x-ndjson",
        expected=Usage(input_tokens=12, output_tokens=34),
    )
    return replace(made, **changes)


def test_the_example_keeps_the_contract(names: dict[str, Any]) -> None:
    assert set(SAMPLES) == {"acme", "check"}  # the fixture ran both
    check(names["Acme"](Quirks()), [recording(names)])


def test_it_takes_its_place_in_the_registry(names: dict[str, Any]) -> None:
    row = {
        "id": "acme",
        "hosts": ["api.acme.test"],
        "base": "https://api.acme.test",
        "routes": [{"methods": ["POST"], "path": "/v1/generate", "family": "acme", "kind": "x"}],
    }
    registry = Registry.builtin().with_families({"acme": names["Acme"]}).with_providers([row])
    provider = registry.by_host("api.acme.test")
    assert provider is not None
    found = provider.route("POST", "/v1/generate")
    assert found is not None
    assert registry.adapter(provider, found[0]).family == "acme"


def broken(names: dict[str, Any], where: str, method: str, instead: Any) -> Any:
    """Acme with one method replaced."""
    reader = type("Reader", (names["AcmeReader"],), {"__slots__": ()})
    acme = type("Bad", (names["Acme"],), {"reader": lambda self, ask: reader(ask)})
    setattr(reader if where == "reader" else acme, method, instead)
    return acme(Quirks())


def _by_feeding(self: Any, name: str, body: dict[str, Any], data: bytes) -> None:
    self.delta_bytes += len(body["text"])


@pytest.mark.parametrize(
    ("where", "method", "instead", "what"),
    [
        ("reader", "_fold", _by_feeding, "does not raise"),
        ("reader", "_settle", lambda self: Usage(input_tokens=12, output_tokens=33), "usage"),
        ("acme", "edit", lambda self, ask, body, **kw: body + b" ", "no edit"),
        ("acme", "cut", lambda self, *a: b'{"error": "sorry"}\n', "budget_exhausted"),
        ("acme", "refusal", lambda self, *a: b"no money", "JSON"),
        ("acme", "refusal", lambda self, *a: b'{"error": "no"}', "carries its code"),
    ],
)
def test_what_is_wrong_is_found(
    names: dict[str, Any], where: str, method: str, instead: Any, what: str
) -> None:
    with pytest.raises(Broken, match=what):
        check(broken(names, where, method, instead), [recording(names)])


def test_an_ask_that_trips_over_odd_bodies_is_found(names: dict[str, Any]) -> None:
    class Bad(names["Acme"]):  # type: ignore[misc, name-defined]
        def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Any:
            made = super().ask(method, path, query, content_type, body)
            return made if body.startswith(b'{"model": "acme-1"') else {}["prompt"]

    with pytest.raises(Broken, match="AskError"):
        check(Bad(Quirks()), [recording(names)])


def test_nothing_to_check_with_is_an_error(names: dict[str, Any]) -> None:
    with pytest.raises(Broken, match="recordings"):
        check(names["Acme"](Quirks()), [])
