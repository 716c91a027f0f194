"""Books, the management application on them, and a merchant to call it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "books"))
sys.path.insert(0, str(Path(__file__).parent.parent / "payments"))

from api_kit import Api, new_merchant
from books_kit import opened

from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.manage.app import Management, create_management
from lava_proxy.store.database import Database


@pytest.fixture
async def books(database: Database, tmp_path: Path) -> AsyncIterator[Books]:
    """Open books on a fresh database."""
    async with opened(database, tmp_path) as made:
        yield made


@pytest.fixture
def app(books: Books) -> Management:
    """The application under test."""
    return create_management(books, Registry.builtin())


@pytest.fixture
async def api(app: Management, books: Books, database: Database) -> Api:
    """The first merchant."""
    return await new_merchant(app, books, database, "first")


@pytest.fixture
async def other(app: Management, books: Books, database: Database, api: Api) -> Api:
    """Another merchant, who must never see anything of the first."""
    return await new_merchant(app, books, database, "other")
