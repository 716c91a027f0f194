"""Gemini interactions beyond the recordings: what is asked, edited and read, and older servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lava_adapters import Ask, AskError, Quirks, Registry
from lava_adapters.contract import Framing, Usage
from lava_adapters.families import BUILTIN

USAGE = {
    "total_input_tokens": 22, "total_output_tokens": 590, "total_thought_tokens": 1173,
    "total_tool_use_tokens": 198, "total_cached_tokens": 4, "total_tokens": 1983,
    "tool_use_tokens_by_modality": [{"modality": "text", "tokens": 198}],
}  # fmt: skip
ADAPTER = BUILTIN["interactions"](Quirks(), "interactions")


def _ask(**members: object) -> Ask:
    return ADAPTER.ask("POST", "/v1beta/interactions", "", "", json.dumps(members).encode())


def _usage(*events: dict[str, Any], stream: bool = True) -> Usage:
    reader = ADAPTER.reader(_ask(model="gemini-3-pro", stream=stream))
    for event in events:
        reader.event("", json.dumps(event).encode())
    return reader.usage()


def _completed(**members: object) -> dict[str, Any]:
    inner = {"id": "v1_x", "status": "completed", "usage": USAGE} | members
    return {"event_type": "interaction.completed", "interaction": inner}


def test_thinking_and_tool_prompts_lie_beside() -> None:
    usage = _usage(_completed())
    assert (usage.input_tokens, usage.output_tokens) == (220, 1763)
    assert (usage.reasoning_tokens, usage.tool_prompt_tokens) == (1173, 198)
    assert (usage.cache_read_tokens, usage.total_reported) == (4, 1983)


def test_older_servers_say_outputs_and_content() -> None:
    text = {"type": "text", "text": "Hello"}
    old = _completed() | {"event_type": "interaction.complete"}
    reader = ADAPTER.reader(_ask(model="m", stream=True))
    for event in ({"event_type": "content.delta", "index": 0, "delta": text}, old):
        reader.event("", json.dumps(event).encode())
    assert (reader.deltas, reader.delta_bytes) == (1, 5)
    assert reader.final
    assert reader.ended
    whole = {"object": "interaction", "status": "completed", "outputs": [text], "usage": USAGE}
    reader = ADAPTER.reader(_ask(model="m"))
    reader.event("", json.dumps(whole).encode())
    assert reader.delta_bytes == 5
    assert reader.usage().output_tokens == 1763


@pytest.mark.parametrize(("model", "billed"), [("gemini-3-pro", 3), ("gemini-2.5-flash", 1)])
def test_searches_are_counted_once(model: str, billed: int) -> None:
    """By the usage where it says so, else by the queries; up to Gemini 2.5 by the prompt."""
    call = {"type": "google_search_call", "arguments": {"queries": ["a", "b", "c"]}}
    start = {"event_type": "step.start", "index": 2, "step": {"type": "google_search_call"}}
    delta = {"event_type": "step.delta", "index": 2, "delta": call}
    assert _usage(start, delta, _completed(model=model)).web_searches == billed
    assert _usage(_completed(model=model, steps=[call]), stream=False).web_searches == billed
    counted = USAGE | {"grounding_tool_count": [{"type": "google_search", "count": 3}]}
    assert _usage(start, delta, _completed(model=model, usage=counted)).web_searches == billed


def test_sound_and_pictures() -> None:
    more = {
        "input_tokens_by_modality": [{"modality": "audio", "tokens": 9}],
        "output_tokens_by_modality": [{"modality": "image", "tokens": 500}],
    }
    usage = _usage(_completed(usage=USAGE | more))
    assert (usage.input_audio_tokens, usage.output_image_tokens) == (9, 500)


def test_what_runs_on_has_no_last_word_yet() -> None:
    reader = ADAPTER.reader(_ask(model="m", background=True))
    reader.event("", b'{"object":"interaction","id":"v1_b","status":"in_progress"}')
    assert (reader.final, reader.ended, reader.response_id) == (False, False, "v1_b")
    told = {"event_type": "interaction.status_update", "status": "in_progress", "usage": USAGE}
    reader.event("", json.dumps(told).encode())
    less = told | {"usage": {"total_input_tokens": 22, "total_output_tokens": 1}}
    reader.event("", json.dumps(less).encode())
    assert not reader.final
    assert reader.usage().output_tokens == 1763


def test_failures() -> None:
    for event in (
        {"event_type": "error", "error": {"code": "x", "message": "y"}},
        {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}},
        _completed(status="failed"),
    ):
        reader = ADAPTER.reader(_ask(model="m", stream=True))
        reader.event("", json.dumps(event).encode())
        assert reader.failed, event


def test_what_is_asked() -> None:
    ask = _ask(model="gemini-3-pro", input="hi", stream=True, background=True,
               generation_config={"max_output_tokens": 900}, previous_interaction_id="v1_a",
               environment="env_1")  # fmt: skip
    assert (ask.model, ask.stream, ask.background) == ("gemini-3-pro", True, True)
    assert (ask.output_cap, ask.capable_of_cap) == (900, True)
    assert ask.object_ids == ("v1_a", "env_1")
    assert ask.hidden_input
    agent = _ask(agent="deep-research-pro-preview-12-2025", input="hi", background=True)
    assert agent.model == "deep-research-pro-preview-12-2025"
    assert not agent.capable_of_cap
    assert agent.hidden_input
    assert not _ask(model="m", input="hi", tools=[{"type": "function"}]).hidden_input
    assert _ask(model="m", input="hi", tools=[{"type": "google_search"}]).hidden_input
    assert _ask(model="m", previousInteractionId="v1_a").object_ids == ("v1_a",)


def test_what_the_providers_own_tools_may_cost() -> None:
    search = [{"type": "google_search"}, {"type": "function"}]
    ask = _ask(model="gemini-3-pro", tools=search, service_tier="flex")
    assert (ask.tool_fees, ask.rounds) == ((("web_search", None),), None)
    assert ask.service_tier == "flex"
    assert _ask(model="gemini-2.5-flash", tools=search).tool_fees == (("web_search", 1),)
    plain = _ask(model="gemini-3-pro", tools=[{"type": "function"}])
    assert (plain.tool_fees, plain.rounds) == ((), 1)
    assert _ask(agent="deep-research").tool_fees == (("web_search", None),)
    assert _ask(agent="deep-research").rounds is None


@pytest.mark.parametrize("body", [
    b'{"model":"a","model":"b"}',
    b'{"previous_interaction_id":"a","previousInteractionId":"b"}',
    b'{"previous_interaction_id":7}',
    b'{"generation_config":{},"generationConfig":{}}',
    b'{"generation_config":{"max_output_tokens":1,"max_output_tokens":9}}',
    b'{"generation_config":{"max_output_tokens":1.5}}',
])  # fmt: skip
def test_what_is_ambiguous_is_refused(body: bytes) -> None:
    with pytest.raises(AskError):
        ADAPTER.ask("POST", "/v1beta/interactions", "", "", body)


@pytest.mark.parametrize(("body", "edited"), [
    (b'{"model":"m"}', {"generation_config": {"max_output_tokens": 7}}),
    (b'{"model":"m","generation_config":{"seed":1}}',
     {"generation_config": {"seed": 1, "max_output_tokens": 7}}),
    (b'{"model":"m","generationConfig":{"maxOutputTokens":9}}',
     {"generationConfig": {"maxOutputTokens": 7}}),
    (b'{"model":"m","generation_config":{"max_output_tokens":5}}',
     {"generation_config": {"max_output_tokens": 5}}),
])  # fmt: skip
def test_the_cap_is_set_in_the_spelling_that_is_there(body: bytes, edited: object) -> None:
    ask = ADAPTER.ask("POST", "/v1beta/interactions", "", "", body)
    made = ADAPTER.edit(ask, body, usage=False, output_cap=7)
    assert json.loads(made) == {"model": "m"} | dict(edited)  # type: ignore[call-overload]
    assert ADAPTER.edit(ask, body, usage=True, output_cap=None) == body


def test_routes_and_whose_interaction_it_is() -> None:
    google = Registry.builtin().by_id("google")
    assert google is not None
    for method, path, kind in (
        ("POST", "/v1beta/interactions", "interactions"),
        ("GET", "/v1beta/interactions/v1_x", "retrieve"),
        ("DELETE", "/v1beta/interactions/v1_x", "free"),
        ("POST", "/v1beta/interactions/v1_x/cancel", "cancel"),
    ):
        found = google.route(method, path)
        assert found is not None
        assert (found[0].kind, found[0].managed) == (kind, True)
        ask = Registry.builtin().adapter(google, found[0]).ask(method, path, "", "", b"{}")
        assert ask.object_ids == (() if kind == "interactions" else ("v1_x",))
        assert ask.free == (kind == "free")
        assert google.credential_for(found[0]) == "x-goog-api-key"


def test_the_cut_is_the_documented_event() -> None:
    cut = ADAPTER.cut(Framing.SSE, "no credit", {"request_id": "r"}, 3)
    name, data, *_ = cut.decode().split("\n")
    assert name == "event: error"
    event = json.loads(data.removeprefix("data: "))
    assert event["event_type"] == "error"
    assert event["error"]["code"] == "budget_exhausted"
    assert event["error"]["message"] == "budget_exhausted: no credit"
    assert ADAPTER.cut(Framing.JSON, "no credit", {}, 0) == b""
