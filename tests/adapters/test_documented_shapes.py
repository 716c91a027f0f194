"""Answers as the providers' own pages and SDKs show them, of which we have no recording: what each
must be read as. Every row names where its shape stands; all were looked up on 2026-11-29.

The rows are `Trap`s (test_traps.py): read whole and byte by byte.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_traps import WHOLE, Trap, chat, read, sse

from lava_adapters import Ask, Usage
from lava_adapters.contract import Framing

EMBED = Ask(model="asked", makes_output=False)
HEARD = Ask(model="asked", input_ms=9_000, input_ms_most=9_000)


def document(family: str, body: dict[str, Any], wanted: dict[str, Any], **more: Any) -> Trap:
    """An answer that is one JSON document."""
    more = {"ask": WHOLE, "framing": Framing.JSON} | more
    return Trap(family, json.dumps(body).encode(), wanted, **more)


def media(kind: str, body: dict[str, Any], wanted: dict[str, Any], ask: Ask = HEARD) -> Trap:
    return document("media", body, wanted, kind=kind, ask=ask)


SHELL = {
    "type": "shell_call", "id": "sh_1", "call_id": "c", "status": "completed",
    "action": {"commands": ["ls"]},
    "environment": {"type": "container_reference", "container_id": "cntr_1"},
}  # fmt: skip
"""openai 3.57.0, types/responses/response_function_shell_tool_call.py"""
HOSTED = {"type": "shell", "environment": {"type": "container_auto", "memory_limit": "4g"}}
ANSWERED = {"object": "response", "status": "completed", "id": "resp_1", "model": "gpt-6.1-sol"}
COUNTED = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}

SHAPES: dict[str, Trap] = {
    # https://platform.kimi.ai/docs/api/chat: the last chunk of a stream that asked for no usage.
    "Moonshot states the usage within the last choice": Trap(
        "openai_chat",
        sse(
            {"id": "cmpl-1", "object": "chat.completion.chunk", "model": "kimi-k2.5",
             "choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": None}]},
            {"id": "cmpl-1", "object": "chat.completion.chunk", "model": "kimi-k2.5",
             "choices": [{"index": 0, "delta": {}, "finish_reason": "stop",
                          "usage": {"prompt_tokens": 19, "completion_tokens": 13,
                                    "total_tokens": 32, "cached_tokens": 4}}]},
            done=True,
        ),
        {"input_tokens": 19, "output_tokens": 13, "cache_read_tokens": 4, "final": True,
         "surplus": False, "deltas": 1},
        149,
    ),
    # https://www.alibabacloud.com/help/en/model-studio/context-cache (explicit cache)
    "Alibaba: tokens that were written to the cache": Trap(
        "openai_chat",
        chat({"prompt_tokens": 1_200, "completion_tokens": 2, "total_tokens": 1_202,
              "prompt_tokens_details": {
                  "cached_tokens": 100, "cache_creation_input_tokens": 1_024,
                  "cache_creation": {"ephemeral_5m_input_tokens": 1_024},
                  "cache_type": "ephemeral"}}),
        {"input_tokens": 1_200, "cache_read_tokens": 100, "cache_write_tokens": 1_024},
    ),
    # perplexityai 0.46.1, types/responses_usage.py
    "Perplexity's responses name cached tokens as Anthropic does": document(
        "openai_responses",
        ANSWERED | {"usage": COUNTED | {
            "input_tokens_details": {"cache_read_input_tokens": 4,
                                     "cache_creation_input_tokens": 3},
            "cost": {"currency": "USD", "input_cost": 0.00001, "output_cost": 0.00002,
                     "tool_calls_cost": 0.005, "total_cost": 0.00503}}},
        {"input_tokens": 10, "cache_read_tokens": 4, "cache_write_tokens": 3,
         "cost_e10": 50_300_000},
    ),
    # cohere 7.3.1, types/usage_billed_units.py: every unit is a float.
    "Cohere's units are floats": Trap(
        "cohere",
        sse({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {
            "billed_units": {"input_tokens": 12.0, "output_tokens": 3.0},
            "tokens": {"input_tokens": 507.0, "output_tokens": 5.0}, "cached_tokens": 64.0}}}),
        {"input_tokens": 12, "output_tokens": 3, "final": True},
        42,
    ),
    "Cohere's search units are a float": document(
        "cohere",
        {"id": "r", "results": [{"index": 0, "relevance_score": 0.9}],
         "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 2.0}}},
        {"search_units": 2}, kind="rerank", ask=EMBED,
    ),
    # cohere 7.3.1, types/api_meta_billed_units.py
    "Cohere embeds text and pictures": document(
        "cohere",
        {"id": "e", "embeddings": {"float": [[0.1]]},
         "meta": {"billed_units": {"text_tokens": 5.0, "image_tokens": 250.0, "images": 1.0}}},
        {"input_tokens": 255, "input_image_tokens": 250, "output_tokens": 0},
        kind="embed", ask=EMBED,
    ),
    # google-genai 3.6.1, types.py, ContentEmbeddingStatistics: `token_count` is a float.
    "Vertex AI counts the tokens of embeddings in floats": document(
        "gemini",
        {"predictions": [
            {"embeddings": {"values": [0.1], "statistics": {"truncated": False,
                                                            "token_count": 4.0}}},
            {"embeddings": {"values": [0.1], "statistics": {"token_count": 3.0}}}],
         "metadata": {"billableCharacterCount": 21}},
        {"input_tokens": 7, "output_tokens": 0, "input_characters": 21},
        kind="predict", ask=EMBED,
    ),
    # https://protobuf.dev/programming-guides/json/: 64-bit integers are strings.
    "counts as strings": Trap(
        "openai_chat",
        chat({"prompt_tokens": "12", "completion_tokens": "3", "total_tokens": "15"}),
        {"input_tokens": 12, "output_tokens": 3, "total_reported": 15},
        42,
    ),
    "Gemini's counts as strings": Trap(
        "gemini",
        sse({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
             "usageMetadata": {"promptTokenCount": "12", "candidatesTokenCount": "3",
                               "totalTokenCount": "15"}}, end="\r\n"),
        {"input_tokens": 12, "output_tokens": 3},
        42,
    ),
    # https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html
    "Titan's embeddings count their prompt": document(
        "bedrock",
        {"embedding": [0.1, 0.2], "embeddingsByType": {"float": [0.1]}, "inputTextTokenCount": 8},
        {"input_tokens": 8, "final": True}, kind="invoke", ask=EMBED,
    ),
    # .../model-parameters-mistral-text-completion.html, -cohere-command-r-plus.html,
    # -deepseek.html, without the headers that state the counts
    "text of Mistral on Bedrock": document(
        "bedrock", {"outputs": [{"text": "hello", "stop_reason": "stop"}]},
        {"delta_bytes": 5}, kind="invoke",
    ),
    "text of Cohere on Bedrock": document(
        "bedrock", {"response_id": "r", "text": "hello", "generation_id": "g"},
        {"delta_bytes": 5}, kind="invoke",
    ),
    "text of DeepSeek on Bedrock": document(
        "bedrock", {"choices": [{"text": "hello", "stop_reason": "stop"}]},
        {"delta_bytes": 5}, kind="invoke",
    ),
    # .../model-parameters-openai.html, -qwen.html: chat completions' own words
    "thinking and tool calls of a chat model on Bedrock": document(
        "bedrock",
        {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": None, "reasoning_content": "so", "tool_calls": [
                {"id": "c", "type": "function",
                 "function": {"name": "get", "arguments": "{}"}}]}}]},
        {"delta_bytes": 7, "tool_calls": 1}, kind="invoke",
    ),
    # https://elevenlabs.io/docs/api-reference/speech-to-text/convert
    "ElevenLabs says how long the recording was": media(
        "transcription",
        {"language_code": "en", "language_probability": 0.98, "text": "hello",
         "words": [{"text": "hello", "start": 0.1, "end": 0.5, "type": "word"}],
         "transcription_id": "t", "audio_duration_secs": 7.25},
        {"input_ms": 7_250, "final": True},
    ),
    # Until openai 1.58 `duration` was a string: types/audio/transcription_verbose.py.
    "a duration as a string": media(
        "transcription",
        {"task": "transcribe", "language": "english", "duration": "8.470000267028809",
         "text": "hello", "segments": []},
        {"input_ms": 8_470, "final": True},
    ),
    # https://openrouter.ai/docs/client-sdks/go/models/components/sttresponse
    "OpenRouter's transcripts state their cost": media(
        "transcription",
        {"text": "hello", "usage": {"cost": 0.000508, "input_tokens": 83, "output_tokens": 30,
                                    "seconds": 9.2, "total_tokens": 113}},
        {"input_tokens": 83, "output_tokens": 30, "input_ms": 9_200, "cost_e10": 5_080_000},
    ),
    # https://docs.x.ai/developers/cost-tracking
    "xAI's pictures state their cost": media(
        "images",
        {"data": [{"url": "https://x"}, {"url": "https://y"}],
         "usage": {"cost_in_usd_ticks": 400_000_000}},
        {"images": 2, "cost_e10": 400_000_000}, WHOLE,
    ),
    # openai 3.57.0, types/images_response.py: `svg_usage` is "separate from image rendering usage".
    "a picture that another model wrote as SVG": media(
        "images",
        {"created": 1, "data": [{"b64_json": "x"}], "output_format": "svg",
         "usage": {"input_tokens": 50, "output_tokens": 1_000, "total_tokens": 1_050,
                   "input_tokens_details": {"image_tokens": 40, "text_tokens": 10}},
         "svg_usage": {"model": "claude-opus-4-7", "input_tokens": 300, "output_tokens": 700,
                       "reasoning_tokens": 200, "total_tokens": 1_000}},
        {"input_tokens": 350, "output_tokens": 1_700, "input_image_tokens": 40, "images": 1},
        WHOLE,
    ),
    # https://github.com/replicate/cog-runtime (python/coglet/api.py, as of cog/types.go)
    "Replicate's metrics by their newer names": document(
        "predictions",
        {"id": "p", "status": "succeeded", "model": "openai/gpt-5", "output": ["hello"],
         "metrics": {"predict_time": 1.5, "total_time": 1.6, "token_input_count": 12,
                     "token_output_count": 3}},
        {"input_tokens": 12, "output_tokens": 3, "output_ms": 1_500},
    ),
    "Replicate counts a picture under two names": document(
        "predictions",
        {"id": "p", "status": "succeeded", "output": "https://x", "metrics": {
            "predict_time": 3.436664102, "image_count": 1, "image_output_count": 1}},
        {"images": 1, "output_ms": 3_437},
    ),
    "Replicate counts what was spoken": document(
        "predictions",
        {"id": "p", "status": "succeeded", "output": "https://x", "metrics": {
            "predict_time": 2, "character_input_count": 64, "audio_output_duration_seconds": 4.5}},
        {"input_characters": 64, "output_ms": 2_000},
    ),
    # openai 3.57.0, types/responses/function_shell_tool_param.py
    "a container that a shell ran in": document(
        "openai_responses",
        ANSWERED | {"output": [SHELL, SHELL | {"id": "sh_2"}], "tools": [HOSTED],
                    "usage": COUNTED},
        {"containers": 4, "made": ("cntr_1", "sh_1", "sh_2")},
    ),
    "a container that was there already": document(
        "openai_responses",
        ANSWERED | {"output": [SHELL], "usage": COUNTED},
        {"containers": None, "made": ("sh_1",)},
        ask=Ask(model="asked", object_ids=("cntr_1",)),
    ),
    "a shell of the caller's own": document(
        "openai_responses",
        ANSWERED | {"output": [SHELL | {"environment": {"type": "local"}}], "usage": COUNTED},
        {"containers": None, "made": ("sh_1",)},
    ),
    # google-genai 3.6.1, types.py, GroundingMetadata: `imageSearchQueries`
    "Gemini searches for pictures too": Trap(
        "gemini",
        sse({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP",
                             "groundingMetadata": {"webSearchQueries": ["a", "b"],
                                                   "imageSearchQueries": ["c"]}}],
             "modelVersion": "gemini-3.1-flash-image",
             "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 3,
                               "totalTokenCount": 15}}, end="\r\n"),
        {"input_tokens": 12, "web_searches": 3},
    ),
    # google-genai 3.6.1, _gaos/types/interactions/stepdeltametadata.py: usage "accompanying ANY
    # streamed event"
    "an interaction that is left, with running usage beside its pieces": Trap(
        "interactions",
        b"".join(
            b"event: step.delta\ndata: " + json.dumps({
                "event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "ab"},
                "metadata": {"total_usage": {"total_input_tokens": 12, "total_output_tokens": made,
                                             "total_tokens": 12 + made}}}).encode() + b"\n\n"
            for made in (2, 4, 40)
        ),
        {"input_tokens": 12, "output_tokens": 40, "deltas": 3, "final": False},
    ),
    # anthropic 2.14.0, types/beta/beta_compaction_content_block_delta.py
    "Claude writes a summary of its context": Trap(
        "anthropic_messages",
        sse({"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 9}}},
            {"type": "content_block_delta", "index": 0,
             "delta": {"type": "compaction_delta", "content": "so far", "encrypted_content": "x"}}),
        {"input_tokens": 9, "delta_bytes": 6},
    ),
    # mistralai 3.7.0, models/transcriptionstreamtextdelta.py
    "Mistral streams what it hears": Trap(
        "media",
        sse({"type": "transcription.language", "audio_language": "en"},
            {"type": "transcription.text.delta", "text": "hello"},
            {"type": "transcription.done", "model": "voxtral-mini-2507", "text": "hello",
             "language": "en", "usage": {"prompt_tokens": 4, "completion_tokens": 3,
                                         "total_tokens": 382, "prompt_audio_seconds": 30,
                                         "prompt_tokens_details": None}}),
        {"delta_bytes": 5, "input_tokens": 379, "output_tokens": 3, "input_ms": 30_000,
         "final": True},
        kind="transcription", ask=Ask(model="asked", stream=True),
    ),
    # google-genai 3.6.1, types.py, GenerateContentResponseUsageMetadata
    "Gemini says what kind of tokens were cached": Trap(
        "gemini",
        sse({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
             "usageMetadata": {
                 "promptTokenCount": 1_000, "candidatesTokenCount": 3, "totalTokenCount": 1_003,
                 "cachedContentTokenCount": 500,
                 "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 400},
                                         {"modality": "AUDIO", "tokenCount": 600}],
                 "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 50},
                                        {"modality": "AUDIO", "tokenCount": 450}]}}, end="\r\n"),
        {"input_tokens": 1_000, "cache_read_tokens": 500, "input_audio_tokens": 600,
         "cached_audio_tokens": 450},
    ),
    # google-genai 3.6.1, _gaos/types/interactions/usage.py
    "an interaction says what kind of tokens were cached": document(
        "interactions",
        {"object": "interaction", "id": "i", "status": "completed", "usage": {
            "total_input_tokens": 1_000, "total_output_tokens": 3, "total_cached_tokens": 500,
            "total_tokens": 1_003,
            "input_tokens_by_modality": [{"modality": "image", "tokens": 600}],
            "cached_tokens_by_modality": [{"modality": "image", "tokens": 450}]}},
        {"input_tokens": 1_000, "input_image_tokens": 600, "cached_image_tokens": 450},
    ),
    # openai 3.57.0, types/responses/response.py, ToolUsageImageGen
    "pictures of a response, out of cached ones": document(
        "openai_responses",
        ANSWERED | {"usage": COUNTED,
                    "tools": [{"type": "image_generation", "model": "gpt-image-2"}],
                    "tool_usage": {"web_search": {"num_requests": 0}, "image_gen": {
                        "input_tokens": 300, "output_tokens": 1_000, "total_tokens": 1_300,
                        "input_tokens_details": {"image_tokens": 250, "text_tokens": 50},
                        "cached_tokens": 120, "cached_tokens_details": {
                            "cached_image_tokens": 100, "cached_text_tokens": 20}}}},
        {"input_tokens": 310, "output_tokens": 1_002, "input_image_tokens": 250},
    ),
    # https://discuss.ai.google.dev: Google's errors come in an array, under its OpenAI dialect too.
    "an error in an array": Trap(
        "openai_chat",
        sse({"choices": [{"index": 0, "delta": {"content": "x"}}]},
            [{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}]),
        {"failed": True, "deltas": 1},
    ),
    "an answer in an array": Trap(
        "openai_chat",
        json.dumps([{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
                     "usage": {"prompt_tokens": 3, "completion_tokens": 2}}]).encode(),
        {"input_tokens": 3, "output_tokens": 2, "final": True},
        ask=WHOLE, framing=Framing.JSON,
    ),
    # https://deepinfra.com/docs/openai_api: no price of its models is bundled.
    "DeepInfra states what it takes": Trap(
        "openai_chat",
        chat({"prompt_tokens": 15, "completion_tokens": 16, "total_tokens": 31,
              "prompt_tokens_details": None, "estimated_cost": 0.00002677}),
        {"input_tokens": 15, "output_tokens": 16, "cost_e10": 267_700},
    ),
    # https://platform.minimax.io/docs/api-reference/text-openai-api, with `reasoning_split`
    "MiniMax thinks aside": Trap(
        "openai_chat",
        sse({"choices": [{"index": 0, "delta": {"content": "", "reasoning_details": [
                {"type": "reasoning.text", "id": "r1", "format": "MiniMax-response-v1", "index": 0,
                 "text": "so"}]}}]},
            {"choices": [{"index": 0, "delta": {"reasoning": "so", "reasoning_details": [
                {"type": "reasoning.text", "text": "so"}]}}]}),
        {"deltas": 2, "delta_bytes": 4},
    ),
    # https://platform.minimax.io/docs/api-reference/text-chat: HTTP 200, and the failure inside
    "MiniMax fails with status 200": document(
        "openai_chat",
        {"id": "m", "choices": None, "usage": {"total_tokens": 0},
         "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        {"failed": True},
    ),
    "MiniMax says that all is well": document(
        "openai_chat",
        {"id": "m", "choices": [{"index": 0, "finish_reason": "stop",
                                 "message": {"content": "hello", "role": "assistant"}}],
         "usage": {"total_tokens": 15, "prompt_tokens": 12, "completion_tokens": 3,
                   "total_characters": 0},
         "base_resp": {"status_code": 0, "status_msg": ""}},
        {"failed": False, "input_tokens": 12, "output_tokens": 3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_documented_shape(name: str) -> None:
    shape = SHAPES[name]
    for size in (len(shape.body), 1):
        reader = read(shape, size).reader
        usage: Usage = reader.usage()
        for member, value in shape.wanted.items():
            of = usage if member in Usage.__dataclass_fields__ and member != "model" else reader
            assert getattr(of, member) == value, member


def test_a_byte_order_mark_before_a_document() -> None:
    body = {"id": "x", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    marked = Trap(
        "openai_chat", b"\xef\xbb\xbf" + json.dumps(body).encode(), {},
        ask=WHOLE, framing=Framing.JSON,
    )  # fmt: skip
    assert read(marked, 7).reader.usage().input_tokens == 3


def test_another_models_svg_has_its_own_price() -> None:
    usage = read(SHAPES["a picture that another model wrote as SVG"], 50).reader.usage()
    assert [part.model for part in usage.parts] == ["asked", "claude-opus-4-7"]
    assert [part.output_tokens for part in usage.parts] == [1_000, 700]
    assert usage.parts[1].reasoning_tokens == 200


def test_what_pictures_were_made_of_has_its_own_price() -> None:
    usage = read(SHAPES["pictures of a response, out of cached ones"], 50).reader.usage()
    (_, made) = usage.parts
    assert (made.model, made.input_tokens, made.cache_read_tokens) == ("gpt-image-2", 300, 120)
    assert made.cached_image_tokens == 100
