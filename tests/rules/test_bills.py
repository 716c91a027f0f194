"""Answers of many providers and what they cost: from the wire format through the family and the
price tables to the last digit, each sum worked out by hand from the provider's price list.

Prices are those of NOW, in USD per million unless said: whoever doubts a sum can redo it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lava_adapters import Ask, Quirks
from lava_adapters.families import BUILTIN
from lava_proxy.core.money import parse_e10
from lava_proxy.rules.catalog import Catalog
from lava_proxy.rules.price import Cost, cost_of

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
CATALOG = Catalog()


def bill(
    provider: str,
    family: str,
    model: str,
    answer: dict[str, Any],
    *,
    kind: str = "",
    managed: bool = True,
    headers: dict[str, str] | None = None,
) -> Cost | None:
    """What a whole answer costs, found out as the gateway does."""
    ask = Ask(model=model, makes_output=family not in ("openai_embeddings", "media"))
    reader = BUILTIN[family](Quirks(), kind).reader(ask)
    reader.headers(200, headers or {})
    reader.event("", json.dumps(answer).encode())
    usage = reader.usage()

    def resolve(name: str | None):
        for each in (name, reader.model, model):
            if each and (found := CATALOG.rates(provider, each, NOW, reader.service_tier)):
                return found
        return None

    return cost_of(usage, resolve, own_cost=managed)


def responses(**more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 10_000,
        "input_tokens_details": {"cached_tokens": 4_000},
        "output_tokens": 2_000,
        "output_tokens_details": {"reasoning_tokens": 1_500},
        "total_tokens": 12_000,
    }
    return {"object": "response", "status": "completed", "usage": usage, "output": []} | more


def used(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": "completed"} | more


SEARCHED = used("web_search_call", id="ws_1", action={"type": "search", "query": "x"})
OPENED = used("web_search_call", id="ws_2", action={"type": "open_page", "url": "x"})
RAN = used("code_interpreter_call", id="ci_1", container_id="cntr_1")
RAN_AGAIN = used("code_interpreter_call", id="ci_2", container_id="cntr_1")
FILES = used("file_search_call", id="fs_1")
IMAGE_GEN = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 50, "image_tokens": 0},
    "output_tokens": 1_056,
    "total_tokens": 1_106,
}

GUARDED = {"invocationMetrics": {"guardrailProcessingLatency": 231, "usage": {
    "contentPolicyUnits": 1, "topicPolicyUnits": 1, "wordPolicyUnits": 9,
    "sensitiveInformationPolicyUnits": 1, "sensitiveInformationPolicyFreeUnits": 7,
    "contextualGroundingPolicyUnits": 0}}}  # fmt: skip

TEXT = [
    # Anthropic: cached tokens lie beside the input; 5 minute and 1 hour writes; searches 0.01 each.
    # 1,000 x 3 + 10,000 x 0.30 + 2,000 x 3.75 + 1,000 x 6 + 500 x 15 = 27,000; + 2 x 0.01
    ("anthropic", "anthropic_messages", "claude-sonnet-4-5", {"type": "message", "usage": {
        "input_tokens": 1_000, "cache_read_input_tokens": 10_000,
        "cache_creation_input_tokens": 3_000, "output_tokens": 500,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 2_000, "ephemeral_1h_input_tokens": 1_000},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 5}}}, "0.047"),
    # Above 200,000 tokens of input, cached ones included, all of it at the long-context rates:
    # 150,000 x 6 + 60,000 x 0.60 + 1,000 x 22.50
    ("anthropic", "anthropic_messages", "claude-sonnet-4-5", {"type": "message", "usage": {
        "input_tokens": 150_000, "cache_read_input_tokens": 60_000,
        "output_tokens": 1_000}}, "0.9585"),
    # OpenAI: 6,000 x 1.25 + 4,000 x 0.125 + 2,000 x 10
    ("openai", "openai_responses", "gpt-5", responses(), "0.028"),
    # Flex is half, priority double.
    ("openai", "openai_responses", "gpt-5", responses(service_tier="flex"), "0.014"),
    ("openai", "openai_responses", "gpt-5", responses(service_tier="priority"), "0.056"),
    # Tools: one search (opening a page is none) 0.01, one file search 0.0025, one container 0.03.
    ("openai", "openai_responses", "gpt-5", responses(
        output=[SEARCHED, OPENED, FILES, RAN, RAN_AGAIN]), "0.0705"),
    # The provider's own count of searches wins: 3 x 0.01.
    ("openai", "openai_responses", "gpt-5", responses(
        output=[SEARCHED], tool_usage={"web_search": {"num_requests": 3}}), "0.058"),
    # A picture, by another model: 50 x 5 + 1,056 x 40 = 42,490 beside the 28,000.
    ("openai", "openai_responses", "gpt-5", responses(
        tools=[{"type": "image_generation", "model": "gpt-image-1"}],
        tool_usage={"image_gen": IMAGE_GEN, "web_search": {"num_requests": 1}}), "0.08049"),
    # Azure lends OpenAI's prices: 6,000 x 1.25 + 4,000 x 0.125 + 2,000 x 10, and a container 0.033.
    ("azure", "openai_responses", "gpt-5", responses(output=[RAN]), "0.061"),
    # One with 4 GB of memory is four: 28,000 + 0.12
    ("openai", "openai_responses", "gpt-5", responses(output=[RAN], tools=[
        {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}},
    ]), "0.148"),
    # Audio within both: 400 x 2.50 + 600 x 40 + 100 x 10 + 300 x 80
    ("openai", "openai_chat", "gpt-4o-audio-preview", {"usage": {
        "prompt_tokens": 1_000, "completion_tokens": 400, "total_tokens": 1_400,
        "prompt_tokens_details": {"audio_tokens": 600, "cached_tokens": 0},
        "completion_tokens_details": {"audio_tokens": 300}}}, "0.05"),
    # 400 x 2.50 + 600 x 32 + 100 x 10 + 300 x 64
    ("openai", "openai_chat", "gpt-audio", {"usage": {
        "prompt_tokens": 1_000, "completion_tokens": 400, "total_tokens": 1_400,
        "prompt_tokens_details": {"audio_tokens": 600},
        "completion_tokens_details": {"audio_tokens": 300}}}, "0.0404"),
    # It searched, its citations say: 100 x 2.50 + 200 x 10 = 2,250; + 0.025
    ("openai", "openai_chat", "gpt-4o-search-preview", {
        "choices": [{"message": {"content": "x", "annotations": [{"type": "url_citation"}]}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 200}}, "0.02725"),
    # Gemini: thoughts and tool prompts beside; audio dearer; up to 2.5 a grounded prompt is one
    # fee: 600 x 1 + 700 x 0.30 + 300 x 2.50 = 1,560; + 0.035
    ("google", "gemini", "gemini-2.5-flash", {
        "candidates": [{"finishReason": "STOP", "groundingMetadata": {
            "webSearchQueries": ["a", "b", "c"]}}],
        "usageMetadata": {
            "promptTokenCount": 1_000, "toolUsePromptTokenCount": 300,
            "candidatesTokenCount": 100, "thoughtsTokenCount": 200, "totalTokenCount": 1_600,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 600}]}}, "0.03656"),
    # From 3 on by the query, and long context: 200,000 x 4 + 10,000 x 0.40 + 1,000 x 18; 2 x 0.014
    ("google", "gemini", "gemini-3-pro-preview", {
        "candidates": [{"finishReason": "STOP", "groundingMetadata": {
            "webSearchQueries": ["a", "b"]}}],
        "usageMetadata": {
            "promptTokenCount": 210_000, "cachedContentTokenCount": 10_000,
            "candidatesTokenCount": 1_000, "totalTokenCount": 211_000}}, "0.85"),
    # A picture as output: 100 x 0.30 + 1,290 x 30
    ("google", "gemini", "gemini-2.5-flash-image", {
        "candidates": [{"finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 100, "candidatesTokenCount": 1_290, "totalTokenCount": 1_390,
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1_290}]}}, "0.03873"),
    # Bedrock in a region: 1,000 x 3.30 + 2,000 x 0.33 + 300 x 4.125 + 200 x 6.60 + 100 x 16.50
    ("bedrock", "bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", {
        "output": {}, "metrics": {}, "usage": {
            "inputTokens": 1_000, "outputTokens": 100, "totalTokens": 3_600,
            "cacheReadInputTokens": 2_000, "cacheWriteInputTokens": 500,
            "cacheDetails": [{"ttl": "5m", "inputTokens": 300},
                             {"ttl": "1h", "inputTokens": 200}]}}, "0.0081675"),
    # A guardrail beside it: 3,300 + 1,650; 4 filters x 0.00015, 3 checks x 0.0001
    ("bedrock", "bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", {
        "output": {}, "metrics": {}, "usage": {"inputTokens": 1_000, "outputTokens": 100},
        "trace": {"guardrail": {
            "inputAssessment": {"g1": GUARDED},
            "outputAssessments": {"g1": [GUARDED, {"invocationMetrics": {"usage": {
                "sensitiveInformationPolicyUnits": 1, "topicPolicyUnits": 0}}}]}}}}, "0.00585"),
    # DeepSeek: 616 x 0.27 + 384 x 0.07 + 100 x 1.10
    ("deepseek", "openai_chat", "deepseek-chat", {"usage": {
        "prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100,
        "prompt_cache_hit_tokens": 384, "prompt_cache_miss_tokens": 616}}, "0.0003032"),
    # xAI without its own figure: reasoning beside the output: 10 x 3 + (2 + 340) x 15
    ("xai", "openai_chat", "grok-4", {"usage": {
        "prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 352,
        "completion_tokens_details": {"reasoning_tokens": 340}}}, "0.00516"),
    # Groq, Together, Cerebras: 1,000 and 100 tokens; Groq's 200 cached at half.
    ("groq", "openai_chat", "openai/gpt-oss-120b", {"usage": {
        "prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100,
        "prompt_tokens_details": {"cached_tokens": 200}}}, "0.000195"),
    ("together", "openai_chat", "openai/gpt-oss-120b", {"usage": {
        "prompt_tokens": 1_000, "completion_tokens": 100}}, "0.00021"),
    ("cerebras", "openai_chat", "gpt-oss-120b", {"usage": {
        "prompt_tokens": 1_000, "completion_tokens": 100}}, "0.000425"),
    # Cohere bills `billed_units`: 12 x 2.50 + 30 x 10
    ("cohere", "cohere", "command-a-03-2025", {"message": {}, "usage": {
        "billed_units": {"input_tokens": 12, "output_tokens": 30},
        "tokens": {"input_tokens": 507, "output_tokens": 30}}}, "0.00033"),
    # Perplexity's deep research with one's own key: 33 x 2 + 7,163 x 8 + 73,437 x 3 + 19,868 x 2,
    # and 18 searches at 0.005: reasoning and citations lie beside the total.
    ("perplexity", "openai_chat", "sonar-deep-research", {"usage": {
        "prompt_tokens": 33, "completion_tokens": 7_163, "total_tokens": 7_196,
        "citation_tokens": 19_868, "num_search_queries": 18,
        "reasoning_tokens": 73_437}}, "0.407417"),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "family", "model", "answer", "usd"), TEXT)
def test_an_answer_costs_what_the_price_list_says(
    provider: str, family: str, model: str, answer: dict[str, Any], usd: str
) -> None:
    made = bill(provider, family, model, answer)
    assert made is not None
    assert (made.total_e10, made.flags) == (parse_e10(usd), ())


OTHER = [
    # Transcription by tokens: 37 x 6 + 12 x 10
    ("openai", "media", "transcription", "gpt-4o-transcribe", {"text": "x", "usage": {
        "type": "tokens", "input_tokens": 37, "output_tokens": 12, "total_tokens": 49,
        "input_token_details": {"audio_tokens": 37, "text_tokens": 0}}}, "0.000342"),
    # By time: 37 s at 0.36 an hour
    ("openai", "media", "transcription", "whisper-1", {"text": "x", "usage": {
        "type": "duration", "seconds": 37}}, "0.0037"),
    # Groq bills at least 10 s: 10 / 3600 x 0.111
    ("groq", "media", "transcription", "whisper-large-v3", {"text": "x", "usage": {
        "type": "duration", "seconds": 3}}, "0.0003083333"),
    # Pictures by tokens: 50 x 5 + 323 x 10 + 1,056 x 40
    ("openai", "media", "images", "gpt-image-1", {"data": [{}], "usage": {
        "input_tokens": 373, "output_tokens": 1_056, "total_tokens": 1_429,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 323}}}, "0.04572"),
    # Pages: 3 x 0.002
    ("mistral", "media", "ocr", "mistral-ocr-2512", {
        "pages": [{}, {}, {}], "usage_info": {"pages_processed": 3}}, "0.006"),
    # Rerank: one search unit
    ("cohere", "cohere", "rerank", "rerank-v3.5", {
        "results": [], "meta": {"billed_units": {"search_units": 1}}}, "0.002"),
    ("voyage", "openai_embeddings", "embeddings", "voyage-3.5", {
        "data": [], "usage": {"total_tokens": 1_000}}, "0.00006"),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "family", "kind", "model", "answer", "usd"), OTHER)
def test_what_is_not_text_has_its_price_too(
    provider: str, family: str, kind: str, model: str, answer: dict[str, Any], usd: str
) -> None:
    made = bill(provider, family, model, answer, kind=kind)
    assert made is not None
    assert (made.total_e10, made.flags) == (parse_e10(usd), ())


OWN = [
    # provider, model, usage with the provider's figure, that figure, by the price list
    ("openrouter", "anthropic/claude-sonnet-4.5", {
        "prompt_tokens": 100, "completion_tokens": 10, "cost": 0.0145476,
        "is_byok": False}, "0.0145476", "0.00045"),
    ("perplexity", "sonar", {
        "prompt_tokens": 5, "completion_tokens": 20, "num_search_queries": 2,
        "cost": {"request_cost": 0.005, "total_cost": 0.00522}}, "0.00522", "0.012025"),
    ("xai", "grok-4", {
        "prompt_tokens": 100, "completion_tokens": 10, "cost_in_usd_ticks": 1_330_500,
    }, "0.00013305", "0.00045"),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "model", "usage", "own", "listed"), OWN)
def test_the_providers_own_figure_wins_for_a_managed_key(
    provider: str, model: str, usage: dict[str, Any], own: str, listed: str
) -> None:
    """With a key of the caller's the figure is what somebody else pays: the price list holds."""
    made = bill(provider, "openai_chat", model, {"usage": usage})
    assert made is not None
    assert (made.total_e10, made.flags) == (parse_e10(own), ("provider_cost",))
    assert made.input_e10 + made.output_e10 == made.total_e10
    theirs = bill(provider, "openai_chat", model, {"usage": usage}, managed=False)
    assert theirs is not None
    assert theirs.total_e10 == parse_e10(listed)
    assert "provider_cost" not in theirs.flags


def test_a_key_that_openrouter_did_not_sell_is_not_its_figure() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "cost": 0.0001, "is_byok": True}
    made = bill("openrouter", "openai_chat", "anthropic/claude-sonnet-4.5", {"usage": usage})
    assert made is not None
    assert (made.total_e10, made.flags) == (parse_e10("0.00045"), ())


def test_bedrocks_headers_say_which_tier() -> None:
    answer = {"output": {}, "metrics": {}, "usage": {"inputTokens": 10, "outputTokens": 1}}
    reader = BUILTIN["bedrock"](Quirks(), "invoke").reader(Ask(model="m"))
    reader.headers(200, {"x-amzn-bedrock-service-tier": "flex"})
    reader.event("", json.dumps(answer).encode())
    assert reader.service_tier == "flex"
    reader.event("", json.dumps(answer | {"serviceTier": {"type": "priority"}}).encode())
    assert reader.service_tier == "priority"


def test_anthropics_fast_mode_is_a_tier() -> None:
    reader = BUILTIN["anthropic_messages"](Quirks(), "").reader(Ask(model="m"))
    usage = {"input_tokens": 1, "output_tokens": 1, "service_tier": "standard", "speed": "fast"}
    reader.event("", json.dumps({"type": "message", "usage": usage}).encode())
    assert reader.service_tier == "fast"


def test_a_container_that_the_request_named_is_not_charged_again() -> None:
    ask = Ask(model="gpt-5", stream=True, object_ids=("cntr_1",))
    reader = BUILTIN["openai_responses"](Quirks(), "").reader(ask)
    for item in (RAN, SEARCHED, SEARCHED, FILES):
        reader.event("", json.dumps({"type": "response.output_item.done", "item": item}).encode())
    done = {"type": "response.completed", "response": responses(output=[RAN, SEARCHED, FILES])}
    reader.event("", json.dumps(done).encode())
    usage = reader.usage()
    assert (usage.containers, usage.web_searches, usage.file_searches) == (None, 1, 1)


CODE = {"container": {"id": "container_1", "expires_at": "2026-07-30T18:54:08Z"}}
SONNET = {"input_tokens": 1_000, "output_tokens": 100}
BEDROCK = {"output": {}, "metrics": {}, "usage": {"inputTokens": 1_000, "outputTokens": 100}}
IMAGES = {"invocationMetrics": {"usage": {"contentPolicyUnits": 0, "contentPolicyImageUnits": 2}}}


@pytest.mark.parametrize(
    ("family", "answer"),
    [
        # Code ran in a container of Anthropic's: billed by its time, which the answer does not say.
        ("anthropic_messages", {"type": "message", "usage": SONNET, **CODE}),
        # A guardrail without a trace, and one with policies that have no price.
        ("bedrock", BEDROCK | {"amazon-bedrock-guardrailAction": "NONE"}),
        ("bedrock", BEDROCK | {"trace": {"guardrail": {"inputAssessment": {"g": IMAGES}}}}),
    ],
)
def test_units_without_a_price_are_flagged(family: str, answer: dict[str, Any]) -> None:
    """What has a price is charged: 1,000 x 3 + 100 x 15 (in a region a tenth more)."""
    provider, model = {
        "anthropic_messages": ("anthropic", "claude-sonnet-4-5"),
        "bedrock": ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    }[family]
    made = bill(provider, family, model, answer)
    assert made is not None
    assert made.flags == ("unpriced",)
    assert made.total_e10 == parse_e10("0.0045" if provider == "anthropic" else "0.00495")


def test_a_container_is_seen_in_a_stream_and_beside_other_passes() -> None:
    reader = BUILTIN["anthropic_messages"](Quirks(), "").reader(Ask(model="m"))
    passes = [{"type": "message", **SONNET}, {"type": "compaction", **SONNET}]
    usage = SONNET | {"iterations": passes}
    delta = {"stop_reason": "end_turn", **CODE}
    reader.event("", json.dumps({"type": "message_delta", "delta": delta, "usage": usage}).encode())
    assert (reader.usage().containers, len(reader.usage().parts)) == (1, 2)


def test_a_guardrail_that_the_request_names_is_paid_for() -> None:
    bedrock = BUILTIN["bedrock"](Quirks(), "converse")
    config = {"guardrailIdentifier": "g", "guardrailVersion": "1"}
    body = json.dumps({"messages": [], "guardrailConfig": config}).encode()
    ask = bedrock.ask("POST", "/model/m/converse", "", "application/json", body)
    reader = bedrock.reader(ask)
    reader.event("metadata", json.dumps(BEDROCK).encode())
    assert reader.usage().guardrail_others == 1
    traced = BEDROCK | {"trace": {"guardrail": {"inputAssessment": {"g": GUARDED}}}}
    reader.event("metadata", json.dumps(traced).encode())
    usage = reader.usage()
    assert (usage.guardrail_filters, usage.guardrail_checks, usage.guardrail_others) == (2, 1, 0)


def test_a_guardrail_of_an_invoked_claude() -> None:
    """As in the whole answer, so in a stream's last chunk."""
    reader = BUILTIN["bedrock"](Quirks(), "invoke").reader(Ask(model="m"))
    trace = {"guardrail": {"input": {"g": GUARDED}, "outputs": [{"g": GUARDED}]}}
    answer = {"type": "message", "usage": SONNET, "amazon-bedrock-guardrailAction": "NONE"}
    reader.event("", json.dumps(answer).encode())
    assert reader.usage().guardrail_others == 1
    reader.event("", json.dumps(answer | {"amazon-bedrock-trace": trace}).encode())
    usage = reader.usage()
    assert (usage.input_tokens, usage.guardrail_filters, usage.guardrail_checks) == (1_000, 4, 2)


def test_code_that_xai_ran_is_counted() -> None:
    details = {"code_interpreter_calls": 2, "web_search_calls": 0, "x_search_calls": 0}
    answer = responses(usage={
        "input_tokens": 10, "output_tokens": 2, "server_side_tool_usage_details": details,
        "cost_in_usd_ticks": 1_000_000})  # fmt: skip
    own = bill("xai", "openai_responses", "grok-4", answer)
    listed = bill("xai", "openai_responses", "grok-4", answer, managed=False)
    assert own is not None
    assert listed is not None
    assert (own.total_e10, own.flags) == (1_000_000, ("provider_cost",))
    assert listed.flags == ("unpriced",)
