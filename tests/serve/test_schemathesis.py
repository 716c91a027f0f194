"""schemathesis against the running server: whatever it sends, as whoever, the answer is one that
the description knows, and never a 5xx. `RIG_LONG=1` asks fifty times as often."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import CHECKS, CheckFunction
from schemathesis.generation import GenerationMode
from serving import serving

from lava_proxy.store import keys
from lava_proxy.store.database import Database

APP = "lava_proxy.app:LavaProxy"
EXAMPLES = 250 if os.environ.get("RIG_LONG") else 5
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
GATEWAY = ("/forward", "/chat/completions", "/messages", "/rewrite", "/{provider}/")
"""Their answers are the providers'; the tests of the gateway look after them."""


def _checks() -> list[CheckFunction]:
    return [check for check in CHECKS.get_all() if check.__name__ in CHECKED]


def _operations(schema: Any) -> Iterator[Any]:
    for found in schema.get_all_operations():
        operation = found.ok()
        if not operation.path.startswith(GATEWAY):
            yield operation


def _modes(operation: Any) -> list[GenerationMode]:
    """Where nothing can be sent, nothing can be sent wrongly; any text is a path's segment."""
    told = operation.definition.raw
    named = any(parameter["in"] != "path" for parameter in told["parameters"])
    takes = named or "requestBody" in told or "security" in told
    return list(GenerationMode) if takes else [GenerationMode.POSITIVE]


def _attack(base: str, secrets: dict[str, str | None]) -> Counter[int]:
    """Every operation, with good and with hostile data, as everybody: how often which status."""
    schema = schemathesis.openapi.from_url(f"{base}/v1/openapi.json")
    checks, seen = _checks(), Counter[int]()
    assert len(checks) == len(CHECKED)
    for operation in _operations(schema):
        for mode in _modes(operation):
            cases = operation.as_strategy(generation_mode=mode)

            @seed(1)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=cases)
            def one(case: Any) -> None:
                for secret in secrets.values():
                    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
                    answer = case.call_and_validate(
                        base_url=f"{base}/v1", headers=headers, checks=checks
                    )
                    seen[answer.status_code] += 1

            one()
    return seen


@pytest.mark.timeout(3600 if os.environ.get("RIG_LONG") else 180)
async def test_whatever_is_sent(tmp_path: Path, database_url: str, database: Database) -> None:
    async with database.transaction() as conn:
        live = await keys.create_key(conn, name="live", test=False, merchant_name="one")
        test = await keys.create_key(conn, name="test", test=True, merchant_name="one")
        gone = await keys.create_key(conn, name="gone", test=False, merchant_name="one")
        spare = await keys.create_key(conn, name="other", test=False, merchant_name="two")
        await keys.revoke(conn, live.merchant_id, gone.secret_key_id)
    secrets = {
        "nobody": None,
        "live": live.secret_key,
        "test": test.secret_key,
        "revoked": gone.secret_key,
        "other": spare.secret_key,
    }
    async with serving(tmp_path, APP, database_url=database_url) as server:
        base = f"http://127.0.0.1:{server.port}"
        seen = await asyncio.to_thread(_attack, base, secrets)
        assert seen.total() > 200 * EXAMPLES
        assert {200, 401, 404, 422} <= set(seen), seen
        assert await server.stop() == 0
