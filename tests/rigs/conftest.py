"""Rigs import their kit by name, and the tests that their mutants must not survive."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
sys.path.insert(0, str(Path(__file__).parents[1] / "books"))
sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))
sys.path.insert(0, str(Path(__file__).parent))

import pytest
from rig_kit import kill_all


@pytest.fixture(autouse=True)
def no_orphans():
    """Whatever a rig started is gone when it ends, passed or not."""
    yield
    kill_all()
