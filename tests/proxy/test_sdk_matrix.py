"""Every official Python SDK through the gateway, unchanged but for its base URL: whole answers are
billed by the provider's word, a cut and a refusal raise what `sdk_matrix` says, and a provider's
error is what it would be without us."""

from __future__ import annotations

import gc
import importlib.metadata
from collections.abc import Iterator
from typing import Any

import pytest
from gateway_kit import TOKEN_E10, Gate
from sdk_clients import CLIENTS
from sdk_dialects import SCRIPTS
from sdk_matrix import PYTHON, TRANSPORT, Row

from lava_proxy.net.simulated.compatible import HABITS
from lava_proxy.proxy import forward

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # google-genai's own client inherits from aiohttp's; boto3 and others look at the clock so.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Some leave a socket to the garbage collector when they raise.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket"),
]


@pytest.fixture(scope="module", autouse=True)
def _sockets_left_behind() -> Iterator[None]:
    """They are collected while the marks above hold, and not in whatever test comes next."""
    yield
    gc.collect()


EVERY = [pytest.param(row, id=row.name) for row in PYTHON]


def _model(row: Row, word: str) -> str:
    """A model that answers as the row's provider does: each states usage in a place of its own."""
    return f"{word}-{row.provider}" if row.provider in HABITS else word


def _script(gate: Gate, row: Row, model: str) -> None:
    paths, script = SCRIPTS.get(row.name, ((), None))
    for path in paths:
        assert script is not None
        gate.sim.script[path.format(model=model)] = script


async def _ask(gate: Gate, row: Row, key: str, model: str, stream: bool) -> list[Any]:
    _script(gate, row, model)
    base = f"{gate.url}/{row.provider}{row.base}"
    return await CLIENTS[row.name](base, key, model, stream)


async def _raised(gate: Gate, row: Row, key: str, model: str, stream: bool) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the caller's question
        await _ask(gate, row, key, model, stream)
    return caught.value


def _is(error: Exception, name: str) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return name in kinds - {"Exception", "object"}


async def test_every_client_has_its_row() -> None:
    assert list(CLIENTS) == [row.name for row in PYTHON]
    for row in PYTHON:
        assert importlib.metadata.version(row.sdk)


@pytest.mark.parametrize("row", EVERY)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_whole_and_billed(gate: Gate, row: Row, stream: bool) -> None:
    payer = await gate.payer()
    answers = await _ask(gate, row, payer.token(), _model(row, "sim-12-0-in7"), stream)
    assert " one two three four five six seven eight one two three four" in text_of(answers)
    booked = await gate.row(payer)
    assert booked["outcome"] == "completed"
    assert booked["usage_source"] == "provider"
    assert (booked["input_tokens"], booked["output_tokens"]) == (7, 12)
    assert booked["charge_e10"] == 19 * TOKEN_E10
    assert "no_usage" not in booked["flags"]


@pytest.mark.parametrize("row", EVERY)
async def test_a_cut_stream_raises_the_sdks_own_error(gate: Gate, row: Row) -> None:
    payer = await gate.payer("0.0010")
    error = await _raised(gate, row, payer.token(), _model(row, "sim-2000-0"), True)
    assert _is(error, row.cut), repr(error)
    told = [str(error), *getattr(error, "__notes__", ())]
    body = getattr(error, "body", None)
    if row.cut == TRANSPORT:
        assert "budget_exhausted" in told[1]
    else:
        assert "budget_exhausted" in f"{told[0]} {body}"
    if row.sdk == "openai":
        assert getattr(error, "code", None) == "budget_exhausted"
    if row.sdk == "google-genai":
        assert getattr(error, "code", None) == 402
    booked = await gate.row(payer)
    assert booked["outcome"] == "cut_off"
    assert 0 < booked["charge_e10"] <= payer.credit_e10
    assert len(gate.sim.requests) == 1


@pytest.mark.parametrize("row", EVERY)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_raises_and_is_not_retried(
    gate: Gate, row: Row, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    new_id = forward.new_id

    def counted(kind: str) -> str:
        made.append(kind)
        return new_id(kind)

    monkeypatch.setattr(forward, "new_id", counted)
    payer = await gate.payer("0.0000000001")
    error = await _raised(gate, row, payer.token(), "sim-5-0", stream)
    assert _is(error, row.refused), repr(error)
    assert status_of(error) == 402
    assert "insufficient_credit" in f"{error} {getattr(error, 'body', '')}"
    # Cerebras' SDK first warms its connection up by a path that the table does not have.
    assert len(made) == (2 if row.provider == "cerebras" else 1)
    assert await gate.rows(payer) == []
    assert [r for r in gate.sim.requests if r.method == "POST"] == []


@pytest.mark.parametrize("row", EVERY)
async def test_a_providers_error_is_as_without_the_gateway(gate: Gate, row: Row) -> None:
    payer = await gate.payer()
    model = "sim-5-0-fail400"
    ours = await _raised(gate, row, payer.token(), model, True)
    assert _is(ours, row.failed), repr(ours)
    assert status_of(ours) == 400
    assert "simulated failure" in f"{ours} {getattr(ours, 'body', '')}"
    booked = await gate.row(payer)
    assert (booked["outcome"], booked["charge_e10"]) == ("upstream_error", 0)
    assert len([r for r in gate.sim.requests if r.method == "POST"]) == 1
    direct = CLIENTS[row.name](gate.sim.url + row.base, "k", model, True)
    with pytest.raises(type(ours)):
        await direct


def status_of(error: Any) -> int | None:
    """The HTTP status, wherever the SDK keeps it."""
    for name in ("status_code", "code"):
        if isinstance(found := getattr(error, name, None), int):
            return found
    answer = getattr(error, "response", None)
    return answer["ResponseMetadata"]["HTTPStatusCode"] if isinstance(answer, dict) else None


def text_of(answers: list[Any]) -> str:
    """All text of an answer in any dialect, in order."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                if name in ("text", "content", "delta") and isinstance(item, str):
                    found.append(_inner(item))
                else:
                    walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(answers)
    return "".join(found)


def _inner(text: str) -> str:
    """What a model invoked at Bedrock says in its own JSON."""
    return text.split('"generation":')[1].split('"')[1] if '"generation":' in text else text
