"""Rows that PostgreSQL refuses, now and always: kept whole until somebody decides."""

from __future__ import annotations

from lava_proxy.books.codec import encode_settlement
from lava_proxy.core.money import MoneyError
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.database import Database, StorePoison
from lava_proxy.store.settle import Q

ERROR_CHARS_MAX = 2000
POISON = (StorePoison, MoneyError, OverflowError)
"""What a row can be refused with."""


async def quarantine(database: Database, row: Settlement, error: Exception) -> None:
    """Keep a row that cannot be booked, whole, until somebody decides."""
    async with database.transaction() as conn:
        await Q["quarantine"].execute(
            conn,
            merchant_id=row.call.merchant_id,
            request_id=row.call.request_id,
            settlement=encode_settlement(row),
            error=printable(str(error))[:ERROR_CHARS_MAX],
        )


def printable(text: str) -> str:
    """`text` as PostgreSQL can store it."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
