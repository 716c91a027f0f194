"""Tests of money tables use the kits of tests/books and tests/proxy by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "books"))
sys.path.insert(0, str(Path(__file__).parent.parent / "proxy"))
