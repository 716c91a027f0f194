"""IBM watsonx: counts of the prompt stand in a stream's first event only, those of the answer grow.
Shapes of openllmetry, instrumentation-watsonx, cassettes/test_generate; the figures are ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lava_adapters import Ask, Registry
from lava_adapters.contract import Framing
from lava_proxy.wire.tap import Tap

HOST = "us-south.ml.cloud.ibm.com"
GENERATION = {"model_id": "ibm/granite", "input": "Write an epigram", "project_id": "p",
              "parameters": {"max_new_tokens": 40}}  # fmt: skip
CHAT = {"model_id": "ibm/granite", "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 50}  # fmt: skip


def _tap(path: str, request: dict[str, Any], content_type: str) -> tuple[Ask, Tap]:
    registry = Registry.builtin()
    provider = registry.by_host(HOST)
    assert provider is not None
    found = provider.route("POST", path)
    assert found is not None, path
    adapter = registry.adapter(provider, found[0])
    body = json.dumps(request).encode()
    ask = adapter.ask("POST", path, "version=2024-02-15", "application/json", body)
    return ask, Tap(adapter.framing(ask, content_type), adapter.reader(ask))


def _result(text: str, made: int, entered: int, stop: str = "not_finished") -> dict[str, Any]:
    return {"model_id": "ibm/granite", "results": [
        {"generated_text": text, "generated_token_count": made, "input_token_count": entered,
         "stop_reason": stop}]}  # fmt: skip


def _events(*bodies: dict[str, Any]) -> bytes:
    return "".join(
        f"id: {i}\nevent: message\ndata: {json.dumps(body)}\n\n" for i, body in enumerate(bodies)
    ).encode()


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    "path", ["/ml/v1/text/generation_stream", "/ml/v1-beta/generation/text_stream"]
)
def test_generation_streamed(path: str, size: int) -> None:
    ask, tap = _tap(path, GENERATION, "text/event-stream")
    assert (ask.model, ask.stream, ask.output_cap) == ("ibm/granite", True, 40)
    body = _events(_result("", 0, 8), _result("the", 1, 0), _result(" sun", 2, 0),
                   _result("", 3, 0, "eos_token"))  # fmt: skip
    out = [
        event.raw for at in range(0, len(body), size) for event in tap.feed(body[at : at + size])
    ]
    assert b"".join([*out, *(event.raw for event in tap.finish())]) == body
    usage = tap.reader.usage()
    assert (usage.input_tokens, usage.output_tokens, usage.model) == (8, 3, "ibm/granite")
    assert (tap.reader.deltas, tap.reader.delta_bytes) == (2, 7)
    assert (tap.reader.ended, tap.reader.final) == (True, True)


def test_a_cut_stream_bills_what_was_said() -> None:
    _, tap = _tap("/ml/v1/text/generation_stream", GENERATION, "text/event-stream")
    tap.feed(_events(_result("", 0, 8), _result("the", 1, 0)))
    assert (tap.reader.usage().output_tokens, tap.reader.ended) == (1, False)


@pytest.mark.parametrize("path", ["/ml/v1/text/generation", "/ml/v1-beta/generation/text"])
def test_generation_whole(path: str) -> None:
    ask, tap = _tap(path, GENERATION, "application/json")
    assert not ask.stream
    tap.feed(json.dumps(_result("the sun", 5, 8, "eos_token")).encode())
    tap.finish()
    usage = tap.reader.usage()
    assert (usage.input_tokens, usage.output_tokens) == (8, 5)
    assert (tap.reader.ended, tap.reader.final) == (True, True)


@pytest.mark.parametrize("stream", [False, True])
def test_chat(stream: bool) -> None:
    path = "/ml/v1/text/chat_stream" if stream else "/ml/v1/text/chat"
    ask, tap = _tap(path, CHAT, "text/event-stream" if stream else "application/json")
    assert (ask.model, ask.stream, ask.output_cap) == ("ibm/granite", stream, 50)
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    message = {"delta" if stream else "message": {"role": "assistant", "content": "Hey"}}
    answer = {"id": "chat-1", "model_id": "ibm/granite", "usage": usage,
              "choices": [{"index": 0, "finish_reason": "stop", **message}]}  # fmt: skip
    tap.feed(_events(answer) if stream else json.dumps(answer).encode())
    tap.finish()
    found = tap.reader.usage()
    assert (found.input_tokens, found.output_tokens) == (9, 2)
    assert (tap.reader.ended, tap.reader.final) == (True, True)


def test_embeddings() -> None:
    request = {"model_id": "ibm/slate", "inputs": ["a", "b"], "project_id": "p"}
    ask, tap = _tap("/ml/v1/text/embeddings", request, "application/json")
    assert (ask.model, ask.makes_output) == ("ibm/slate", False)
    answer = {"model_id": "ibm/slate", "results": [{"embedding": [0.1]}], "input_token_count": 11}
    tap.feed(json.dumps(answer).encode())
    tap.finish()
    assert (tap.reader.usage().input_tokens, tap.reader.final) == (11, True)


@pytest.mark.parametrize(
    ("path", "request_", "member"),
    [
        ("/ml/v1/text/generation", GENERATION, ("parameters", "max_new_tokens")),
        ("/ml/v1/text/chat", CHAT, ("max_tokens",)),
        ("/ml/v1/text/generation", {"model_id": "m", "input": "a"},
         ("parameters", "max_new_tokens")),
    ],
)  # fmt: skip
def test_a_cap_is_lowered(path: str, request_: dict[str, Any], member: tuple[str, ...]) -> None:
    registry = Registry.builtin()
    provider = registry.by_host(HOST)
    assert provider is not None
    found = provider.route("POST", path)
    assert found is not None
    adapter = registry.adapter(provider, found[0])
    body = json.dumps(request_).encode()
    ask = adapter.ask("POST", path, "", "application/json", body)
    value = json.loads(adapter.edit(ask, body, usage=False, output_cap=7))
    for name in member:
        value = value[name]
    assert value == 7
    cut = adapter.cut(Framing.SSE, "No credit left", {}, 3)
    assert cut.endswith(b"\n\n")
    assert b"budget_exhausted" in cut
