"""Rigs import their kit by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from rig_kit import kill_all


@pytest.fixture(autouse=True)
def no_orphans():
    """Whatever a rig started is gone when it ends, passed or not."""
    yield
    kill_all()
