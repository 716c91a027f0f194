"""Ledger entries on their way into the table: whole transactions that sum to zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import orjson

from lava_proxy.core.invariant import invariant
from lava_proxy.store.database import Connection
from lava_proxy.store.sql import load

Q = load("settle")

Post = Callable[[str, str, int], None]
"""(kind, account, amount_e10): adds one entry to the open transaction."""


class Entries:
    """Collects transactions, then inserts them in one statement (the trigger checks each sum)."""

    def __init__(self, created_at: datetime) -> None:
        self._created_at = created_at
        self._rows: list[dict[str, object]] = []

    @contextmanager
    def transaction(
        self, transaction_id: str, merchant_id: str, request_id: str | None, customer_id: str | None
    ) -> Iterator[Post]:
        """Opens a transaction; on leaving, its entries must sum to zero."""
        total = 0

        def post(kind: str, account: str, amount_e10: int) -> None:
            nonlocal total
            total += amount_e10
            self._rows.append(
                {
                    "transaction_id": transaction_id,
                    "merchant_id": merchant_id,
                    "account": account,
                    "amount_e10": amount_e10,
                    "kind": kind,
                    "request_id": request_id,
                    "customer_id": customer_id,
                }
            )

        yield post
        invariant(total == 0, f"ledger transaction {transaction_id} sums to {total}")

    async def insert(self, conn: Connection) -> None:
        """Write what was collected."""
        if not self._rows:
            return
        await Q["insert_entries"].execute(
            conn, rows=orjson.dumps(self._rows).decode(), created_at=self._created_at
        )
