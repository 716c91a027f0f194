"""docs/errors.md says what the code does: its table, its example, and the codes in its text."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lava_proxy.core.errors import CODES, LavaError
from lava_proxy.wire.problem import envelope

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d{3}) \| `(\w+)` \| (\w+) \| (.+) \|$", re.MULTILINE)


def test_the_table_is_the_code() -> None:
    written = [(name, int(status), fault, text) for status, name, fault, text in ROW.findall(PAGE)]
    assert written == [(n, c.status, c.fault, c.meaning) for n, c in CODES.items()]


def test_the_example_is_real() -> None:
    example = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    shown = json.loads(example.group(1))
    error = LavaError(
        "validation_error",
        shown["error"]["message"],
        details=shown["error"]["details"],
    )
    assert json.loads(envelope(error)) == shown


def test_every_status_has_advice() -> None:
    advice = PAGE.partition("## What to do")[2].partition("## All codes")[0]
    given = {int(status) for status in re.findall(r"\b[45]\d\d\b", advice)}
    assert {code.status for code in CODES.values()} <= given


def test_codes_in_the_text_exist() -> None:
    prose = ROW.sub("", PAGE)
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", prose))
    assert named - set(CODES) == {"upgrade_url", "customer_id", "request_id"}
