"""The official SDKs of JavaScript and Vercel's AI SDK, in one run of Node: every cell of
`sdk_matrix.NODE`, as `test_sdk_matrix.py` does for Python."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from gateway_kit import TOKEN_E10, Gate, Payer
from sdk_matrix import NODE, PART, Row

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.tool,
    pytest.mark.timeout(180),  # the first run installs the packages
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]
EVERY = [pytest.param(row, id=row.name) for row in NODE]
CASES = {
    # what happens: model, credit, stream
    "stream": ("sim-12-0-in7", "1.00", True),
    "plain": ("sim-12-0-in7", "1.00", False),
    "cut": ("sim-2000-0", "0.0010", True),
    "refused stream": ("sim-5-0", "0.0000000001", True),
    "refused plain": ("sim-5-0", "0.0000000001", False),
    "failed": ("sim-5-0-fail400", "1.00", True),
}


@dataclass
class Told:
    """What one case came to, in Node and in the books."""

    payer: Payer
    said: dict[str, Any]
    rows: list[Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(
    shared_gate: Gate, node_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[Row, str], Told]:
    gate = shared_gate
    gate.sim.requests.clear()
    payers = {(row, case): await gate.payer(CASES[case][1]) for row in NODE for case in CASES}
    asked = [
        {
            "name": row.name,
            "base": f"{gate.url}/{row.provider}{row.base}",
            "key": payer.token(),
            "model": CASES[case][0],
            "stream": CASES[case][2],
        }
        for (row, case), payer in payers.items()
    ]
    cases = tmp_path_factory.mktemp("node") / "cases.json"
    cases.write_text(json.dumps(asked))
    node = await asyncio.create_subprocess_exec(
        "node",
        "sdks.mjs",
        str(cases),
        cwd=node_folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, wrong = await node.communicate()
    assert node.returncode == 0, wrong.decode()
    # Nothing was tried again, and no refusal was sent on.
    assert len(gate.sim.requests) == len(NODE) * 4
    said = json.loads(out)
    return {
        key: Told(payer, each, await gate.rows(payer))
        for (key, payer), each in zip(payers.items(), said, strict=True)
    }


Answers = dict[tuple[Row, str], Told]


@pytest.mark.parametrize("row", EVERY)
@pytest.mark.parametrize("case", ["stream", "plain"])
async def test_an_answer_is_whole_and_billed(told: Answers, row: Row, case: str) -> None:
    one = told[row, case]
    words = " one two three four five six seven eight one two three four"
    assert one.said.get("text") == words, one.said
    (booked,) = one.rows
    assert (booked["outcome"], booked["usage_source"]) == ("completed", "provider")
    assert booked["charge_e10"] == 19 * TOKEN_E10


@pytest.mark.parametrize("row", EVERY)
async def test_a_cut_stream_is_its_own_error(told: Answers, row: Row) -> None:
    one = told[row, "cut"]
    assert one.said["kind"] == ("Object" if row.cut == PART else row.cut), one.said
    assert "budget_exhausted" in one.said["told"]
    (booked,) = one.rows
    assert booked["outcome"] == "cut_off"
    assert 0 < booked["charge_e10"] <= one.payer.credit_e10


@pytest.mark.parametrize("row", EVERY)
@pytest.mark.parametrize("case", ["refused stream", "refused plain"])
async def test_a_refusal_is_a_402(told: Answers, row: Row, case: str) -> None:
    one = told[row, case]
    assert (one.said["kind"], one.said["status"]) == (row.refused, 402), one.said
    assert "insufficient_credit" in one.said["told"]
    assert one.rows == []


@pytest.mark.parametrize("row", EVERY)
async def test_a_providers_error_passes(told: Answers, row: Row) -> None:
    one = told[row, "failed"]
    assert (one.said["kind"], one.said["status"]) == (row.failed, 400), one.said
    assert "simulated failure" in one.said["told"]
    (booked,) = one.rows
    assert (booked["outcome"], booked["charge_e10"]) == ("upstream_error", 0)
