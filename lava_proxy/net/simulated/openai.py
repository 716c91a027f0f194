"""OpenAI chat, completions, embeddings and models, as api.openai.com writes them.

Member order follows recorded answers. `obfuscation` is left out: it is random padding. With
``include_usage`` every other chunk carries ``"usage": null``.
"""

from __future__ import annotations

import array
import base64
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import orjson

from lava_proxy.net.simulated import compatible
from lava_proxy.net.simulated.plan import JsonObject, Plan
from lava_proxy.net.simulated.script import Ending, Piece, Script
from lava_proxy.net.simulated.text import fresh_id, word_json, words

DIMENSIONS_DEFAULT = 1536
DIMENSIONS_MAX = 4096
MODELS = ("gpt-4o-mini", "gpt-4.1-nano", "text-embedding-3-small", "sim-40-20")

_DONE = Piece(b"data: [DONE]\n\n")


def error(status: int, message: str, code: str | None = None, param: str | None = None) -> Script:
    """OpenAI's error body."""
    kind = "insufficient_quota" if status == 429 else "invalid_request_error"
    kind = "server_error" if status >= 500 else kind
    fault = {"message": message, "type": kind, "param": param, "code": code}
    return Script.json({"error": fault}, status=status)


def chat(plan: Plan, created: int) -> Script:
    """POST /v1/chat/completions."""
    if plan.asked.get("stream") is True:
        habits = compatible.habits_of(plan)
        if habits is not None:
            return compatible.chat(plan, habits, created)
        return _streamed(plan, created, _chat_events)
    body = b'{"id":"%b",%b' % (fresh_id("chatcmpl-").encode(), _chat_document(plan, created))
    return Script.plain(
        body,
        delay_s=plan.whole_s,
        tokens=plan.output_tokens,
        headers=answer_headers("application/json"),
        ends=plan.ends,
    )


def completions(plan: Plan, created: int) -> Script:
    """POST /v1/completions."""
    if plan.asked.get("stream") is True:
        return _streamed(plan, created, _completion_events)
    choice = {"text": words(plan.tokens), "logprobs": None, "finish_reason": _finish(plan)}
    document = {
        "id": fresh_id("cmpl-"),
        "object": "text_completion",
        "created": created,
        "model": plan.model,
        "choices": [{"index": index, **choice} for index in range(plan.choices)],
        "usage": _short_usage(plan),
    }
    return Script.plain(
        orjson.dumps(document), delay_s=plan.whole_s, tokens=plan.output_tokens, ends=plan.ends
    )


def embeddings(plan: Plan, created: int) -> Script:
    """POST /v1/embeddings: every vector is the same unit vector."""
    given = plan.asked.get("input")
    token_ids = isinstance(given, list) and all(isinstance(item, int) for item in given)
    count = len(given) if isinstance(given, list) and not token_ids else 1
    size = plan.asked.get("dimensions")
    size = min(size, DIMENSIONS_MAX) if isinstance(size, int) and size > 0 else DIMENSIONS_DEFAULT
    vector = _vector(size, plan.asked.get("encoding_format") == "base64")
    rows = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector)
        for index in range(count)
    )
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (plan.input_tokens, plan.input_tokens)
    body = b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        rows,
        orjson.dumps(plan.model),
        usage,
    )
    return Script.plain(body, delay_s=plan.pace_s, ends=plan.ends)


def models(created: int) -> Script:
    """GET /v1/models."""
    rows = [
        {"id": name, "object": "model", "created": created, "owned_by": "simulated"}
        for name in MODELS
    ]
    return Script.json({"object": "list", "data": rows})


def answer_headers(content_type: str) -> tuple[tuple[str, str], ...]:
    """What OpenAI sends beside the body, as far as a gateway may care."""
    return (
        ("content-type", content_type),
        ("openai-organization", "org-simulated"),
        ("openai-processing-ms", "12"),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-request-id", fresh_id("req_")),
    )


def chat_usage(plan: Plan) -> Mapping[str, object]:
    """Usage of a chat answer, with both detail objects."""
    return {
        **_short_usage(plan),
        "prompt_tokens_details": {"cached_tokens": plan.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": plan.think * plan.choices,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


@lru_cache(maxsize=64)
def _chat_document(plan: Plan, created: int) -> bytes:
    """Everything behind the id."""
    message: JsonObject = {
        "role": "assistant",
        "content": words(plan.tokens),
        "refusal": None,
        "annotations": [],
    }
    choice = {"message": message, "logprobs": None, "finish_reason": _finish(plan)}
    document = {
        "object": "chat.completion",
        "created": created,
        "model": plan.model,
        "choices": [{"index": index, **choice} for index in range(plan.choices)],
        "usage": chat_usage(plan),
        "service_tier": "default",
        "system_fingerprint": "fp_simulated0",
    }
    return orjson.dumps(document)[1:]


def _short_usage(plan: Plan) -> dict[str, object]:
    return {
        "prompt_tokens": plan.input_tokens,
        "completion_tokens": plan.output_tokens,
        "total_tokens": plan.input_tokens + plan.output_tokens,
    }


def _finish(plan: Plan) -> str:
    return "length" if plan.capped else "stop"


_Events = Callable[[Plan, bytes, bytes], Iterator[Piece]]


def _streamed(plan: Plan, created: int, events: _Events) -> Script:
    options = plan.asked.get("stream_options")
    wants_usage = isinstance(options, Mapping) and options.get("include_usage") is True
    is_chat = events is _chat_events
    kind, prefix = (
        ("chat.completion.chunk", "chatcmpl-") if is_chat else ("text_completion", "cmpl-")
    )
    head = b'data: {"id":"%b","object":"%b","created":%d,"model":%b,' % (
        fresh_id(prefix).encode(),
        kind.encode(),
        created,
        orjson.dumps(plan.model),
    )
    if is_chat:
        head += b'"service_tier":"default","system_fingerprint":"fp_simulated0",'
    tail = (b',"usage":null' if wants_usage else b"") + b"}\n\n"
    usage = chat_usage(plan) if is_chat else _short_usage(plan)

    def pieces() -> Iterator[Piece]:
        yield from events(plan, head, tail)
        if plan.ends is Ending.CLEAN:
            if wants_usage:
                yield Piece(b'%b"choices":[],"usage":%b}\n\n' % (head, orjson.dumps(usage)))
            yield _DONE

    headers = answer_headers("text/event-stream; charset=utf-8")
    return Script(pieces(), headers=headers, ends=plan.ends, paced_s=plan.pace_s)


def _chat_events(plan: Plan, head: bytes, tail: bytes) -> Iterator[Piece]:
    choice = b'%b"choices":[{"index":%d,"delta":{%b},"logprobs":null,"finish_reason":%b}]%b'
    opening = b'"role":"assistant","content":"","refusal":null'
    for index in range(plan.choices):
        yield Piece(choice % (head, index, opening, b"null", tail))
    wait_s = plan.think * plan.pace_s
    for number in range(plan.shown()):
        wait_s += plan.pace_s
        for index in range(plan.choices):
            delta = b'"content":' + word_json(number, stamp=plan.stamp)
            yield Piece(choice % (head, index, delta, b"null", tail), wait_s, 1)
            wait_s = 0.0
    if plan.ends is Ending.CLEAN:
        for index in range(plan.choices):
            yield Piece(choice % (head, index, b"", orjson.dumps(_finish(plan)), tail))


def _completion_events(plan: Plan, head: bytes, tail: bytes) -> Iterator[Piece]:
    choice = b'%b"choices":[{"text":%b,"index":%d,"logprobs":null,"finish_reason":%b}]%b'
    wait_s = plan.think * plan.pace_s
    for number in range(plan.shown()):
        wait_s += plan.pace_s
        for index in range(plan.choices):
            yield Piece(
                choice % (head, word_json(number, stamp=plan.stamp), index, b"null", tail),
                wait_s,
                1,
            )
            wait_s = 0.0
    if plan.ends is Ending.CLEAN:
        for index in range(plan.choices):
            yield Piece(choice % (head, b'""', index, orjson.dumps(_finish(plan)), tail))


@lru_cache(maxsize=16)
def _vector(size: int, packed: bool) -> bytes:
    values = array.array("f", [size**-0.5]) * size
    if packed:
        return b'"' + base64.b64encode(values.tobytes()) + b'"'
    return orjson.dumps(values.tolist())
