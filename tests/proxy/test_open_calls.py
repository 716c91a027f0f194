"""A request can be asked for while its call runs, at every worker, and at no moment is it unknown
before it is booked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from gateway_kit import CHAT, Gate, Payer
from hosting import gate_running
from jsonschema_rs import validator_for
from plain_client import OpenCall

from lava_proxy.books import open_calls as books
from lava_proxy.core.ids import new_id
from lava_proxy.manage import open_requests, openapi
from lava_proxy.manage.app import ROUTES
from lava_proxy.rules.settlement import Call
from lava_proxy.store.database import Database, StoreDown

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def second(gate: Gate, tmp_path: Any) -> AsyncIterator[Gate]:
    """Another worker on the same books."""
    secret = gate.app.settings.database_url
    assert secret is not None
    async with gate_running(secret.get_secret_value(), tmp_path / "second") as other:
        yield other


async def stream(gate: Gate, payer: Payer, tokens: int, pace_ms: int) -> tuple[OpenCall, str]:
    """A stream that has begun, and its id."""
    asked = {
        "model": f"sim-{tokens}-{pace_ms}",
        "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
    }
    headers = {
        "authorization": f"Bearer {payer.token()}",
        "x-lava-metadata": '{"feature":"chat"}',
    }
    call = await gate.open_call(CHAT, asked, payer, headers)
    assert await call.head() == 200
    return call, dict(call.headers)["x-lava-request-id"]


async def ask(gate: Gate, payer: Payer, request_id: str) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {payer.secret}"}
    path = f"/v1/requests/{quote(request_id, safe='')}"
    answer = await gate.call(path, None, None, headers, method="GET")
    return answer.status, answer.json()


_numbers = itertools.count(1)


async def told(gate: Gate) -> list[str]:
    """The ids that other workers can read."""
    async with gate.database.connection() as conn:
        rows = await conn.fetch("SELECT request_id FROM open_calls ORDER BY request_id")
    return [row["request_id"] for row in rows]


async def watched(gate: Gate, payer: Payer, request_id: str) -> list[str]:
    """The states that a client sees until the request is booked; never 404."""
    seen: list[str] = []
    async with asyncio.timeout(20):
        while "completed" not in seen:
            status, found = await ask(gate, payer, request_id)
            assert status == 200, found
            if found["status"] not in seen:
                seen.append(found["status"])
            await asyncio.sleep(0.002)
    return seen


async def test_it_is_pending_while_it_runs(gate: Gate) -> None:
    payer = await gate.payer()
    call, request_id = await stream(gate, payer, 20, 20)
    status, found = await ask(gate, payer, request_id)
    assert status == 200
    assert (found["request_id"], found["status"]) == (request_id, "pending")
    assert (found["customer_id"], found["model"]) == (payer.customer_id, "sim-20-20")
    assert found["endpoint"] == "POST https://api.openai.com/v1/chat/completions"
    assert (found["provider"], found["provider_key_type"]) == ("openai", "managed")
    assert (found["stream"], found["metadata"]) == (True, {"feature": "chat"})
    assert (found["cost"], found["charge"]) == (
        "0.0000000000",
        {"amount": "0.0000000000", "rate_type": "fixed", "breakdown": []},
    )
    assert found["model_usage"]["total_tokens"] == 0
    assert found["created_at"].endswith("Z")
    for unknown in ("outcome", "usage_source", "response_id", "timestamp", "duration_ms"):
        assert unknown not in found
    document = openapi.describe(ROUTES)
    schema = {"$ref": "#/components/schemas/Request", "components": document["components"]}
    validator_for(schema).validate(found)
    listed = await gate.call(
        "/v1/requests", None, None, {"authorization": f"Bearer {payer.secret}"}, method="GET"
    )
    assert listed.json()["data"] == []
    seen, _ = await asyncio.gather(watched(gate, payer, request_id), call.rest())
    assert seen == ["pending", "completed"]
    _, booked = await ask(gate, payer, request_id)
    assert booked["created_at"] == found["created_at"]
    assert booked["model_usage"]["output_tokens"] == 20


async def test_only_its_merchant_sees_it(gate: Gate, second: Gate) -> None:
    payer, stranger = await gate.payer(), await gate.payer()
    call, request_id = await stream(gate, payer, 400, 20)
    await gate.gateway.books.open_calls.tell()
    for worker in (gate, second):
        status, found = await ask(worker, stranger, request_id)
        assert (status, found["error"]["code"]) == (404, "not_found")
    call.reset()
    await gate.booked()


async def test_a_report_cannot_take_its_id(gate: Gate, second: Gate) -> None:
    """The call would end as one that is booked already, and cost nothing."""
    payer = await gate.payer()
    call, request_id = await stream(gate, payer, 100, 20)
    report = {"request_id": request_id, "customer_id": payer.customer_id, "meter_slug": "m"}
    headers = {"authorization": f"Bearer {payer.secret}"}
    await asyncio.sleep(books.TELL_AFTER_S)
    await gate.gateway.books.open_calls.tell()
    for worker in (gate, second):
        answer = await worker.call("/v1/requests", report, payer, headers)
        assert (answer.status, answer.error()["code"]) == (409, "idempotency_conflict")
    await call.rest()
    row = await gate.row(payer)
    assert (row["request_id"], row["output_tokens"]) == (request_id, 100)


async def test_between_its_end_and_its_commit(gate: Gate) -> None:
    payer = await gate.payer()
    writer = gate.gateway.books.writer
    write, go = writer._write, asyncio.Event()

    async def held(batch: Any) -> None:
        await go.wait()
        await write(batch)

    writer._write = held  # type: ignore[method-assign]
    try:
        call, request_id = await stream(gate, payer, 2, 0)
        await call.rest()
        await gate.until(lambda: not gate.gateway.open_runs.runs)
        assert (await ask(gate, payer, request_id))[1]["status"] == "pending"
    finally:
        go.set()
        del writer._write
    await writer.flush()
    assert (await ask(gate, payer, request_id))[1]["status"] == "completed"
    assert not gate.gateway.books.open_calls.count


async def test_another_worker_knows_it(gate: Gate, second: Gate) -> None:
    payer = await gate.payer()
    call, request_id = await stream(gate, payer, 150, 20)
    seen, _ = await asyncio.gather(watched(second, payer, request_id), call.rest())
    assert seen == ["pending", "completed"]
    await gate.booked()
    await gate.gateway.books.open_calls.tell()
    assert await told(gate) == []


async def test_another_worker_waits_for_what_has_just_ended(gate: Gate, second: Gate) -> None:
    payer = await gate.payer()
    for _ in range(5):
        call, request_id = await stream(gate, payer, 2, 0)
        await call.rest()
        status, found = await ask(second, payer, request_id)
        assert (status, found["status"]) == (200, "completed")


async def test_an_old_id_and_none_are_unknown_at_once(gate: Gate) -> None:
    payer = await gate.payer()
    started_s = asyncio.get_running_loop().time()
    for unknown in ("req_00000000010000000000000000", "no-id-of-ours", "req_", "con_" + "Z" * 26):
        assert (await ask(gate, payer, unknown))[0] == 404
    assert asyncio.get_running_loop().time() - started_s < 1
    assert (await ask(gate, payer, new_id("request")))[0] == 404  # after a while


async def test_few_wait_at_once(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of questions about ids that somebody made up is no load for the database."""
    monkeypatch.setattr(open_requests, "WAITING_MOST", 2)
    payer = await gate.payer()
    asked = await asyncio.gather(*(ask(gate, payer, new_id("request")) for _ in range(6)))
    assert sorted(status for status, _ in asked) == [404, 404, 503, 503, 503, 503]
    assert {found["error"]["code"] for _, found in asked} == {"not_found", "unavailable"}
    assert (await ask(gate, payer, "no-id-of-ours"))[0] == 404


async def test_a_short_call_costs_the_database_nothing(gate: Gate) -> None:
    payer = await gate.payer()
    call, request_id = await stream(gate, payer, 30, 20)
    open_calls = gate.gateway.books.open_calls
    used: list[str] = []
    database, open_calls._database = open_calls._database, _Noted(used)  # type: ignore[assignment]
    try:
        await open_calls.tell()
        assert (open_calls.count, used) == (1, [])
    finally:
        open_calls._database = database
    await call.rest()
    await gate.booked()
    assert request_id not in await told(gate)


class _Noted:
    def __init__(self, used: list[str]) -> None:
        self._used = used

    def transaction(self) -> Any:
        self._used.append("transaction")
        raise AssertionError("no statement for a short call")


async def process(gate: Gate, payer: Payer) -> tuple[books.OpenCalls, Call]:
    """A process of which we say when it tells, with a call that runs since long ago."""
    call = Call(
        request_id=f"req_0{next(_numbers):025}",
        merchant_id=payer.merchant_id,
        holder_id="",
        owner_id=payer.customer_id,
        customer_id=payer.customer_id,
        meter=None,
        cycle="2026-11",
        billable=True,
        provider="openai",
        provider_key_type="managed",
        model="a\x00b",
        endpoint="POST https://api.openai.com/v1/chat/completions",
        stream=True,
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
    )
    clock = gate.gateway.books.clock
    made = books.OpenCalls(gate.database, clock, holder_id=new_id("holder"))
    made.begun(call)
    return made, call


async def test_what_a_process_that_is_gone_told_is_forgotten(gate: Gate) -> None:
    payer = await gate.payer()
    other, call = await process(gate, payer)
    await other.tell()
    status, found = await ask(gate, payer, call.request_id)
    assert (status, found["status"], found["model"]) == (200, "pending", "a\x00b")
    async with gate.database.transaction() as conn:
        await conn.execute("UPDATE open_call_holders SET seen_at = seen_at - interval '1 hour'")
    assert (await ask(gate, payer, call.request_id))[0] == 404
    await gate.gateway.books.open_calls.forget_gone()
    assert call.request_id not in await told(gate)
    await other.tell()  # it is not gone after all, or PostgreSQL crashed and lost the tables
    assert (await ask(gate, payer, call.request_id))[1]["status"] == "pending"
    other.booked(call.request_id)
    await other.tell()
    assert call.request_id not in await told(gate)


async def test_a_round_whose_commit_is_unknown_is_made_again(gate: Gate) -> None:
    payer = await gate.payer()
    other, call = await process(gate, payer)
    database = other._database
    other._database = _Unsure(database)  # type: ignore[assignment]
    with pytest.raises(StoreDown):
        await other.tell()
    assert call.request_id in await told(gate)
    other._database = database
    other.booked(call.request_id)
    _, second_call = await process(gate, payer)
    other.begun(second_call)
    await other.tell()
    found = await told(gate)
    assert (call.request_id in found, second_call.request_id in found) == (False, True)
    other.booked(second_call.request_id)
    await other.tell()


class _Unsure:
    """Commits, and then the connection is lost."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self._database.transaction() as conn:
            yield conn
        raise StoreDown("the connection is lost")


async def test_a_round_is_bounded(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "ROUND_MOST", 2)
    payer = await gate.payer()
    other, call = await process(gate, payer)
    calls = [call, *[(await process(gate, payer))[1] for _ in range(2)]]
    for one in calls:
        other.begun(one)
    ids = [one.request_id for one in calls]
    for expected in (2, 3):
        await other.tell()
        assert [one for one in await told(gate) if one in ids] == ids[:expected]
    for one in ids:
        other.booked(one)
    for expected in (1, 0):
        await other.tell()
        assert len(set(ids) & set(await told(gate))) == expected
