"""A merchant with something to sell, and the checkout page as an ASGI callable."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "books"))
sys.path.insert(0, str(Path(__file__).parent.parent / "manage"))
sys.path.insert(0, str(Path(__file__).parent.parent / "payments"))

from api_kit import new_merchant
from books_kit import opened
from page_kit import Shop

from lava_adapters.registry import Registry
from lava_proxy.books.bank import Books
from lava_proxy.manage.app import create_management
from lava_proxy.store.database import Database


@pytest.fixture
async def books(database: Database, tmp_path: Path) -> AsyncIterator[Books]:
    """Open books on a fresh database."""
    async with opened(database, tmp_path) as made:
        yield made


@pytest.fixture
async def shop(books: Books, database: Database) -> Shop:
    """A merchant whose plan "Pro" costs 25 USD a month, with 20 USD of credit and a bundle."""
    api = await new_merchant(create_management(books, Registry.builtin()), books, database, "Acme")
    return await Shop.opened(api)
