"""Output caps of models invoked through Bedrock: read where the model obeys them, and set there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from genai_prices import data_snapshot

from lava_adapters import Ask, AskError, bedrock_caps
from lava_adapters.quirks import Quirks
from lava_adapters.registry import BUILTIN

LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
TITAN = "amazon.titan-text-express-v1"
NOVA = "amazon.nova-lite-v1:0"
COMMAND = "cohere.command-r-plus-v1:0"
MISTRAL = "mistral.mistral-large-2402-v1:0"
JAMBA = "ai21.jamba-1-5-large-v1:0"
JURASSIC = "ai21.j2-ultra-v1"
CLAUDE = "anthropic.claude-haiku-4-5-20251001-v1:0"
GPT = "openai.gpt-oss-120b-1:0"
PROFILE = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
TEXT = {"prompt": "x"}

INVOKE = BUILTIN["bedrock"](Quirks(), "invoke")


def asked(model: str, body: dict[str, Any] | bytes) -> tuple[Ask, bytes]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = "/model/" + model.replace(":", "%3A").replace("/", "%2F") + "/invoke"
    return INVOKE.ask("POST", path, "", "application/json", raw), raw


CASES = [
    (LLAMA, TEXT, "max_gen_len"),
    (TITAN, {"inputText": "x"}, "textGenerationConfig.maxTokenCount"),
    (NOVA, {"messages": []}, "inferenceConfig.maxTokens"),
    (COMMAND, {"message": "x"}, "max_tokens"),
    (MISTRAL, TEXT, "max_tokens"),
    (JAMBA, {"messages": []}, "max_tokens"),
    (JURASSIC, TEXT, "maxTokens"),
    (CLAUDE, {"messages": []}, "max_tokens"),
    (GPT, {"messages": []}, "max_completion_tokens"),
    ("deepseek.r1-v1:0", TEXT, "max_tokens"),
    (PROFILE, {"anthropic_version": "x", "messages": []}, "max_tokens"),
    (PROFILE, {"schemaVersion": "messages-v1", "messages": []}, "inferenceConfig.maxTokens"),
    (PROFILE, {"inputText": "x"}, "textGenerationConfig.maxTokenCount"),
]


def with_cap(body: dict[str, Any], path: str, cap: int) -> dict[str, Any]:
    outer, _, inner = path.rpartition(".")
    return {**body, outer: {"temperature": 1, inner: cap}} if outer else {**body, inner: cap}


@pytest.mark.parametrize(("model", "body", "path"), CASES)
def test_a_cap_is_read_lowered_and_set_where_the_model_obeys_it(
    model: str, body: dict[str, Any], path: str
) -> None:
    got, raw = asked(model, with_cap(body, path, 9000))
    assert (got.model, got.output_cap, got.capable_of_cap) == (model, 9000, True)
    lowered = json.loads(INVOKE.edit(got, raw, usage=False, output_cap=70))
    assert lowered == with_cap(body, path, 70)
    assert INVOKE.edit(got, raw, usage=False, output_cap=9000) == raw
    got, raw = asked(model, body)
    assert (got.output_cap, got.capable_of_cap) == (None, True)
    added = json.loads(INVOKE.edit(got, raw, usage=False, output_cap=70))
    outer, _, inner = path.rpartition(".")
    assert added == body | ({outer: {inner: 70}} if outer else {inner: 70})


def test_a_member_that_the_model_does_not_obey_is_no_cap() -> None:
    got, raw = asked(NOVA, {"messages": [], "max_tokens": 5})
    assert got.output_cap is None
    assert json.loads(INVOKE.edit(got, raw, usage=False, output_cap=70))["inferenceConfig"] == {
        "maxTokens": 70
    }


def test_of_two_caps_both_are_lowered() -> None:
    got, raw = asked(GPT, {"max_tokens": 900, "max_completion_tokens": 50})
    assert got.output_cap == 900
    lowered = json.loads(INVOKE.edit(got, raw, usage=False, output_cap=70))
    assert lowered == {"max_tokens": 70, "max_completion_tokens": 50}


def test_a_model_that_hides_its_maker() -> None:
    assert not asked(PROFILE, TEXT)[0].capable_of_cap
    got, _ = asked(PROFILE, TEXT | {"max_tokens": 7, "maxTokens": 9})
    assert (got.output_cap, got.capable_of_cap) == (9, True)
    got, _ = asked(PROFILE, TEXT | {"max_gen_len": 7})
    assert got.output_cap == 7


@pytest.mark.parametrize(
    "model", ["amazon.titan-embed-text-v2:0", "cohere.embed-english-v3", "cohere.rerank-v3-5:0"]
)
def test_what_makes_no_tokens_holds_none(model: str) -> None:
    got, _ = asked(model, {"inputText": "x"})
    assert not got.makes_output
    assert not got.capable_of_cap


def test_generations_multiply() -> None:
    assert asked(COMMAND, {"prompt": "x", "num_generations": 3})[0].choices == 3


@pytest.mark.parametrize(
    "body",
    [
        b'{"max_gen_len": 5, "max_gen_len": 9000}',
        b'{"inferenceConfig": {"maxTokens": 5, "maxTokens": 9000}}',
        b'{"inferenceConfig": {}, "inferenceConfig": {"maxTokens": 9000}}',
        b'{"textGenerationConfig": {"maxTokenCount": 5, "maxTokenCount": 9000}}',
        b'{"max_gen_len": "5"}',
    ],
)
def test_caps_that_could_be_read_in_two_ways_are_refused(body: bytes) -> None:
    with pytest.raises(AskError):
        asked(LLAMA, body)


def test_every_model_with_a_maker_has_a_place_for_its_cap() -> None:
    priced = next(p for p in data_snapshot.get_snapshot().providers if p.id == "aws")
    unknown = [
        model.id
        for model in priced.models
        if bedrock_caps.writes(model.id) and not bedrock_caps.places(model.id, {})
    ]
    assert unknown == []
