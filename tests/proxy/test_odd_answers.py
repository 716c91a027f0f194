"""Whole answers that are odd: errors in the stream, no usage, absurd counts, unwelcome headers."""

from __future__ import annotations

import pytest
from chat_bytes import DONE, asking, delta, usage
from gateway_kit import CHAT, TOKEN_E10, Gate, fresh_model
from plain_client import text_of

from lava_proxy.net.simulated import EVENT_STREAM, Piece, Script
from lava_proxy.proxy.exchange import TABLE, Event, State

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {
    "connect_timeout_s": 0.5,
    "first_byte_timeout_s": 0.6,
    "idle_timeout_s": 0.5,
    "stream_max_s": 60,
}


async def test_an_error_inside_a_stream_passes_and_is_booked(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    error = b'data: {"error":{"message":"overloaded","type":"server_error","code":null}}\n\n'
    sent = delta(" one") + delta(" two") + error
    gate.sim.script[model] = Script((Piece(sent),))
    answer = await gate.call(CHAT, asking(model), payer)
    assert (answer.body, answer.whole) == (sent, True)
    row = await gate.row(payer)
    assert (row["outcome"], row["output_tokens"]) == ("upstream_error", 2)
    assert row["charge_e10"] == (row["input_tokens"] + 2) * TOKEN_E10


async def test_a_finished_stream_without_usage_is_an_anomaly_not_free(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script((Piece(delta(" one") + delta(" two") + DONE),))
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.whole
    row = await gate.row(payer)
    assert (row["outcome"], row["usage_source"]) == ("completed", "estimate")
    assert "no_usage" in row["flags"]
    assert row["charge_e10"] > 0


async def test_a_stated_zero_stays_zero_and_is_an_anomaly(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    sent = delta(" one") + delta(" two") + usage(7, 0) + DONE
    gate.sim.script[model] = Script((Piece(sent),))
    assert (await gate.call(CHAT, asking(model), payer)).whole
    row = await gate.row(payer)
    assert (row["usage_source"], row["input_tokens"], row["output_tokens"]) == ("provider", 7, 0)
    assert "zero_usage" in row["flags"]
    assert row["charge_e10"] == 7 * TOKEN_E10


async def test_absurd_counts_are_not_believed(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    gate.sim.script[model] = Script((Piece(delta(" one") + usage(10**15, 5) + DONE),))
    answer = await gate.call(CHAT, asking(model), payer)
    assert answer.whole
    row = await gate.row(payer)
    assert "absurd" in row["flags"]
    assert row["input_tokens"] < 100


async def test_a_redirect_is_passed_on_and_not_followed(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    headers = (("location", "http://169.254.169.254/latest"), ("content-length", "0"))
    gate.sim.script[model] = Script((), 307, headers)
    answer = await gate.call(CHAT, asking(model, stream=False), payer)
    assert (answer.status, answer.header("location")) == (307, None)
    assert len(gate.seen(model)) == 1


async def test_what_the_provider_may_not_tell_the_client(gate: Gate) -> None:
    payer, model = await gate.payer(), fresh_model()
    bad = {
        "set-cookie": "a=b",
        "x-accel-redirect": "/etc/passwd",
        "x-sendfile": "/etc/passwd",
        "openai-organization": "acme",
        "server": "s",
        "alt-svc": "h3",
        "access-control-allow-origin": "*",
        "x-echo": "managed-key-of-openai-0123456789",
        "openai-echo": "managed-key-of-openai-0123456789",
    }
    good = {"openai-version": "2020", "x-ratelimit-remaining-tokens": "5", "x-request-id": "r"}
    headers = (*EVENT_STREAM, *bad.items(), *good.items())
    gate.sim.script[model] = Script((Piece(delta(" one") + DONE),), 200, headers)
    answer = await gate.call(CHAT, asking(model), payer)
    names = {name for name, _ in answer.headers}
    assert not names & set(bad)
    assert set(good) <= names
    assert (answer.header("x-lava-request-id") or "").startswith("req_")
    assert "managed-key" not in str(answer.headers)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_pair_that_the_table_lacks_leaves_nothing_open(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    payer = await gate.payer()
    monkeypatch.delitem(TABLE, (State.BODY, Event.ENDED))  # type: ignore[arg-type]
    await gate.call(CHAT, asking("sim-6-0", stream=stream), payer)
    row = await gate.row(payer)
    assert (row["outcome"], row["output_tokens"]) == ("truncated", 6)
    assert "metering_fault" in row["flags"]
    # That hold and journal are closed is what the fixture checks.


async def test_a_fault_in_pricing_still_books_the_call(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer = await gate.payer()

    def broken(*_args: object, **_more: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lava_proxy.proxy.costing.cost_of", broken)
    answer = await gate.call(CHAT, asking("sim-6-0"), payer)
    assert answer.whole
    assert len(text_of(answer.body).split()) == 6
    row = await gate.row(payer)
    assert (row["outcome"], row["output_tokens"]) == ("completed", 6)
    assert "metering_fault" in row["flags"]
    assert row["charge_e10"] == (row["input_tokens"] + 6) * TOKEN_E10
