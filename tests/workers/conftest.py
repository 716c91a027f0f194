"""Background work on the kit of tests/books, by name; what the tests of webhooks need."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "books"))

from books_kit import NOW, Shop, open_shop, settings_of

from lava_proxy.core.clock import ManualClock
from lava_proxy.store.database import Database
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.webhooks import Sender


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await open_shop(database)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=NOW)


@pytest.fixture
async def sender(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Sender]:
    settings = settings_of(tmp_path, webhook_allow_private=True, webhook_timeout_s=0.5)
    made = Sender(settings, database, clock, Metrics([]))
    yield made
    await made.close()
