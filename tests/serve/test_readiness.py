"""What /readyz says of the books and of the embedded PostgreSQL."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from lava_proxy.app import _Open


@pytest.mark.parametrize(
    ("books", "server", "status"),
    [
        ("normal", None, 200),
        ("leases", None, 200),
        ("drain", None, 200),
        ("closed", None, 503),
        ("leases", "starting", 200),
        ("drain", "starting", 200),
        ("leases", "broken", 200),  # who has leased credit is served
        ("drain", "broken", 503),  # nobody is, and waiting does not help
        ("closed", "broken", 503),
        ("normal", "runs", 200),
    ],
)
async def test_states(books: str, server: str | None, status: int) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    opened: Any = object.__new__(_Open)
    condition = SimpleNamespace(state=lambda: books)
    opened.gateway = SimpleNamespace(draining=False, books=SimpleNamespace(condition=condition))
    opened._keeper = None if server is None else SimpleNamespace(state=server)
    await opened._readiness(send)
    told = {} if server in (None, "runs") else {"embedded_postgres": server}
    assert sent[0]["status"] == status
    assert json.loads(sent[1]["body"]) == {"status": books, **told}
