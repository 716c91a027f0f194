"""The benchmarks run; those over the recordings cover every family."""

from __future__ import annotations

from pathlib import Path

import pytest

from lava_adapters.families import BUILTIN

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.usefixtures("benchmarks")
def test_what_metering_costs_is_measured_for_every_family() -> None:
    from benchmarks import estimates, metering

    if not (estimates.FOLDER / "index.jsonl").is_file():
        pytest.skip(estimates.ABSENT)
    found = metering.measure(rounds=1, least_s=0)
    assert {family for family, _ in found} == set(BUILTIN)
    # Far above the goal, so that only a change of order fails on a busy machine.
    spent = [us * count for (_, how), (us, count) in found.items() if how == "streamed"]
    events = [count for (_, how), (_, count) in found.items() if how == "streamed"]
    assert sum(spent) / sum(events) < 60


@pytest.mark.usefixtures("benchmarks")
async def test_every_part_of_a_request_can_be_measured(tmp_path: Path) -> None:
    from benchmarks import parts

    names = []
    for name, work in parts.parts(tmp_path):
        work()
        names.append(name)
    assert len(names) == len(set(names)) >= 15
