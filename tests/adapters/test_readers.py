"""The traps that change the bill, one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lava_adapters import NO_USAGE, Ask, Quirks, Reader, Usage
from lava_adapters.families import BUILTIN

STREAM = Ask(model="asked", stream=True)


def reader(family: str, ask: Ask = STREAM) -> Reader:
    return BUILTIN[family](Quirks(), "").reader(ask)


def fold(family: str, *events: dict[str, Any] | bytes, ask: Ask = STREAM) -> Reader:
    made = reader(family, ask)
    for event in events:
        name = ""
        if isinstance(event, dict) and family in ("anthropic_messages", "openai_responses"):
            name = str(event.get("type", ""))
        made.event(name, event if isinstance(event, bytes) else json.dumps(event).encode())
    return made


def chat_usage(**usage: Any) -> Usage:
    return fold("openai_chat", {"choices": [], "usage": usage}).usage()


def counts(usage: Usage) -> tuple[int | None, int | None]:
    return usage.input_tokens, usage.output_tokens


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 354,
          "completion_tokens_details": {"reasoning_tokens": 340}}, (12, 342)),
        ({"prompt_tokens": 20, "completion_tokens": 120, "total_tokens": 140,
          "completion_tokens_details": {"reasoning_tokens": 111}}, (20, 120)),
        ({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}, (35, 74)),
        ({"prompt_tokens": 9, "completion_tokens": 248, "total_tokens": 632,
          "prompt_tokens_details": {"audio_tokens": 375}}, (384, 248)),
        ({"prompt_tokens": 9, "completion_tokens": 248, "total_tokens": 632,
          "prompt_audio_seconds": 30}, (384, 248)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 0}, (9, 1)),
        ({"prompt_tokens": 9}, (9, None)),
    ],
)  # fmt: skip
def test_what_lies_beside_the_total(usage: dict[str, Any], wanted: tuple[int, int]) -> None:
    assert counts(chat_usage(**usage)) == wanted


@pytest.mark.parametrize(
    "where",
    [
        {"prompt_tokens_details": {"cached_tokens": 4}},
        {"cached_tokens": 4},
        {"prompt_cache_hit_tokens": 4},
        {"num_cached_tokens": 4},
        {"input_tokens_details": {"cached_tokens": 4}},
    ],
)
def test_cached_tokens_have_many_names(where: dict[str, Any]) -> None:
    assert chat_usage(prompt_tokens=9, completion_tokens=1, **where).cache_read_tokens == 4


def test_sub_counts_are_clamped() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 161}, "reasoning_tokens": 11}
    usage = chat_usage(prompt_tokens=7, completion_tokens=10, **details)
    assert (usage.cache_read_tokens, usage.reasoning_tokens) == (7, 10)


@pytest.mark.parametrize(
    "bad",
    [True, 1.5, -1, 2**53, "7.5", "-7", " 7", "", "٧", "1" * 17, None, [], float("1e300"), -1.0],
)
def test_what_is_no_count_is_not_stated(bad: Any) -> None:
    made = fold(
        "openai_chat",
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}},
        {"choices": [], "usage": {"prompt_tokens": bad, "completion_tokens": 8}},
    )
    assert counts(made.usage()) == (5, 8)
    assert fold("openai_chat", {"usage": {"prompt_tokens": bad}}).usage() == NO_USAGE


def test_null_after_usage_and_running_usage() -> None:
    delta = {"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": 3}}
    made = fold("openai_chat", delta, {"choices": [{"delta": {"content": "y"}}], "usage": None})
    assert made.usage().input_tokens == 3
    assert not made.final
    made = fold("openai_chat", delta, {"choices": [{"finish_reason": "stop"}], "usage": None})
    assert made.final
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    last = {"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": usage}}
    assert counts(fold("openai_chat", last).usage()) == (3, 2)


def test_the_usage_chunk_and_the_azure_chunk() -> None:
    azure = {"choices": [], "model": "", "prompt_filter_results": [], "usage": None}
    made = fold("openai_chat", azure)
    assert not made.surplus
    assert made.model is None
    assert fold("openai_chat", {"choices": [], "usage": {"prompt_tokens": 1}}).surplus
    choices = [{"delta": {"content": ""}}]
    assert not fold("openai_chat", {"choices": choices, "usage": {"prompt_tokens": 1}}).surplus


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (b'{"prompt_tokens":1,"cost":0.0145476}', 145_476_000),
        (b'{"prompt_tokens":1,"cost":2.8e-08}', 280),
        (b'{"prompt_tokens":1,"cost":0.1}', 1_000_000_000),
        (b'{"prompt_tokens":1,"cost":12345.1234567891}', 123_451_234_567_891),
        (b'{"prompt_tokens":1,"cost":3}', 30_000_000_000),
        (b'{"prompt_tokens":1,"cost":0.1,"is_byok":true}', None),
        (b'{"prompt_tokens":1,"cost":{"total_cost":0.00522}}', 52_200_000),
        (b'{"prompt_tokens":1,"cost_in_usd_ticks":1176500}', 1_176_500),
        (b'{"prompt_tokens":1,"cost":-1}', None),
        (b'{"prompt_tokens":1,"cost":1e999999}', None),
        (b'{"prompt_tokens":1,"cost":"0.1"}', None),
    ],
)
def test_costs_are_exact(usage: bytes, cost: int | None) -> None:
    made = fold("openai_chat", b'{"choices":[],"usage":' + usage + b"}")
    assert made.usage().cost_e10 == cost


@pytest.mark.parametrize(
    "event",
    [
        {"error": {"message": "m", "code": 500}},
        {"error": {"code": 1}, "choices": [{"delta": {"content": ""}}]},
        b'{"error":"text"}',
    ],
)
def test_errors_in_a_chat_stream(event: dict[str, Any] | bytes) -> None:
    assert fold("openai_chat", event).failed
    broken = reader("openai_chat")
    broken.event("error", b"not json")
    assert broken.failed


def test_deltas_of_all_kinds() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "get", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a"'}}
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "mm"}]}
    made = fold(
        "openai_chat",
        *({"choices": [{"delta": delta}]} for delta in (
            {"role": "assistant", "content": ""},
            {"content": "h\u00e9"},
            {"content": None, "reasoning_content": "abc", "reasoning": "abc"},
            {"refusal": "no"},
            {"tool_calls": [call]},
            {"tool_calls": [more]},
            {"content": [thinking, {"type": "text", "text": "t"}]},
            {"audio": {"data": "AAAA", "transcript": "tr"}},
        )),
        {"choices": [{"text": "legacy"}]},
    )  # fmt: skip
    assert made.delta_bytes == 3 + 3 + 2 + 3 + 4 + 3 + 2 + 6
    assert (made.deltas, made.tool_calls, made.text) == (8, 1, "legacy")


def test_a_repeated_answer_is_not_counted_twice() -> None:
    done = {"object": "chat.completion.done", "choices": [{"message": {"content": "xyz" * 99}}]}
    made = fold("openai_chat", {"choices": [{"delta": {"content": "x"}}]}, done)
    assert made.delta_bytes == 1


def test_a_lone_surrogate_is_read() -> None:
    made = fold("openai_chat", b'{"choices":[{"delta":{"content":"a\\ud83d"}}]}')
    assert made.delta_bytes == 2
    assert made.text.encode() == b"a?"


def responses_event(kind: str, **response: Any) -> dict[str, Any]:
    return {"type": kind, "response": response}


def test_responses() -> None:
    usage = {
        "input_tokens": 5,
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 6},
    }
    made = fold(
        "openai_responses",
        responses_event("response.created", id="r1", model="o4", usage=None, status="in_progress"),
        {"type": "response.output_text.delta", "delta": "hi"},
        {"type": "response.audio.delta", "delta": "QUFB"},
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}},
        {"type": "response.function_call_arguments.delta", "delta": "{}"},
    )
    assert (made.delta_bytes, made.tool_calls, made.final) == (5, 1, False)
    assert (made.response_id, made.model) == ("r1", "o4")
    for end in ("completed", "incomplete", "failed"):
        ended = fold("openai_responses", responses_event(f"response.{end}", usage=usage))
        assert counts(ended.usage()) == (5, 7)
        assert (ended.final, ended.ended, ended.failed) == (True, True, end == "failed")
    assert fold("openai_responses", {"type": "error", "message": "m"}).failed


def test_a_background_response_states_usage_later() -> None:
    queued = {"id": "r", "object": "response", "status": "queued", "usage": None, "output": []}
    made = fold("openai_responses", queued, ask=Ask())
    assert (made.usage(), made.final, made.ended) == (NO_USAGE, False, False)
    later = queued | {"status": "completed", "usage": {"input_tokens": 1, "output_tokens": 2}}
    made = fold("openai_responses", later, ask=Ask())
    assert (counts(made.usage()), made.final, made.ended) == ((1, 2), True, True)


def start(**usage: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "m", "model": "claude", "usage": usage}}


def delta(**usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


def test_anthropic_adds_what_lies_beside() -> None:
    creation = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}
    first = start(input_tokens=10, cache_read_input_tokens=5, cache_creation_input_tokens=7,
                  cache_creation=creation, output_tokens=1)  # fmt: skip
    made = fold("anthropic_messages", first, delta(output_tokens=30), {"type": "message_stop"})
    usage = made.usage()
    assert counts(usage) == (22, 30)
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (7, 4)
    assert (made.final, made.ended) == (True, True)
    later = delta(input_tokens=100, output_tokens=9, server_tool_use={"web_search_requests": 2})
    usage = fold("anthropic_messages", first, first, later).usage()
    assert (*counts(usage), usage.web_searches) == (112, 9, 2)


def test_anthropic_iterations_are_what_is_billed() -> None:
    passes = [
        {"type": "compaction", "input_tokens": 60_385, "output_tokens": 522},
        {"type": "message", "input_tokens": 612, "output_tokens": 2_819},
        {"type": "advisor_message", "model": "opus", "input_tokens": 1, "output_tokens": 2},
    ]
    last = delta(input_tokens=612, output_tokens=2_819, iterations=passes)
    usage = fold("anthropic_messages", start(input_tokens=60_385), last).usage()
    assert counts(usage) == (60_998, 3_343)
    assert [part.model for part in usage.parts] == ["asked", "asked", "opus"]
    short = delta(input_tokens=612, output_tokens=2_819, iterations=passes[2:])
    usage = fold("anthropic_messages", start(input_tokens=5), short).usage()
    assert (counts(usage), usage.parts) == ((612, 2_819), ())


def test_anthropic_errors() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}
    assert fold("anthropic_messages", start(input_tokens=1), error).failed


def chunk(finish: str | None = None, **usage: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": "x"}]}}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-x"}


def test_gemini_last_wins_and_the_peak_counts_while_running() -> None:
    running = chunk(promptTokenCount=50, candidatesTokenCount=9, thoughtsTokenCount=4)
    lower = chunk(promptTokenCount=40, candidatesTokenCount=7)
    made = fold("gemini", running, lower)
    assert (counts(made.usage()), made.final) == ((50, 13), False)
    last = chunk("STOP", promptTokenCount=40, candidatesTokenCount=7, totalTokenCount=47)
    made = fold("gemini", running, last)
    assert (counts(made.usage()), made.final, made.ended) == ((40, 7), True, True)


def test_gemini_beside_candidates() -> None:
    usage = {"promptTokenCount": 427, "toolUsePromptTokenCount": 771, "candidatesTokenCount": 5,
             "thoughtsTokenCount": 6, "totalTokenCount": 1_209}  # fmt: skip
    usage["cachedContentTokenCount"] = 9
    got = fold("gemini", chunk("STOP", **usage)).usage()
    assert counts(got) == (1_198, 11)
    assert (got.tool_prompt_tokens, got.reasoning_tokens, got.cache_read_tokens) == (771, 6, 9)
    assert fold("gemini", {"error": {"code": 429}}).failed


def test_a_summary_of_reasoning_is_counted_apart() -> None:
    """It is text that passes, but not the reasoning that is billed."""
    parts = [{"text": "hmm, é", "thought": True}]
    thinking = {"candidates": [{"content": {"parts": parts}}]}
    mixed = {"candidates": [{"content": {"parts": [*parts, {"text": "yes"}]}}]}
    made = fold("gemini", thinking, mixed, chunk("STOP", promptTokenCount=4))
    assert (made.deltas, made.delta_bytes, made.thoughts, made.thought_bytes) == (3, 18, 1, 14)
    made = fold(
        "openai_responses",
        {"type": "response.reasoning_summary_part.added"},
        *({"type": "response.reasoning_summary_text.delta", "delta": word} for word in "abc"),
        {"type": "response.reasoning_summary_part.done"},
        {"type": "response.output_text.delta", "delta": "yes"},
    )
    assert (made.deltas, made.delta_bytes, made.thoughts, made.thought_bytes) == (4, 6, 3, 3)


def test_reasoning_that_is_shown_itself_is_text() -> None:
    made = fold("openai_responses", {"type": "response.reasoning_text.delta", "delta": "abc"})
    assert (made.delta_bytes, made.thought_bytes) == (3, 0)
