"""Anthropic messages: named events, JSON padded with spaces, cached input beside the rest."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from lava_proxy.net.simulated.plan import JsonObject, Plan
from lava_proxy.net.simulated.script import EVENT_STREAM, JSON, Ending, Piece, Script
from lava_proxy.net.simulated.text import fresh_id, word_json, words

_PADS = tuple(b" " * width for width in (2, 13, 7, 0, 4, 10, 1))
"""api.anthropic.com pads its JSON before the closing brace, each time differently."""

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error(status: int, message: str) -> Script:
    """Anthropic's error body."""
    fault = {"type": _KINDS.get(status, "api_error"), "message": message}
    document = {"type": "error", "error": fault, "request_id": fresh_id("req_")}
    return Script.json(document, status=status)


def messages(plan: Plan, created: int) -> Script:
    """POST /v1/messages."""
    request_id = ("request-id", fresh_id("req_"))
    if plan.asked.get("stream") is True:
        headers = (*EVENT_STREAM, request_id)
        return Script(_events(plan), headers=headers, ends=plan.ends, paced_s=plan.pace_s)
    document = {
        **_message(plan),
        "content": [{"type": "text", "text": words(plan.tokens)}],
        "stop_reason": _stop(plan),
        "usage": _usage(plan, plan.think + plan.tokens),
    }
    return Script.plain(
        orjson.dumps(document),
        delay_s=plan.whole_s,
        tokens=plan.output_tokens,
        headers=(*JSON, request_id),
        ends=plan.ends,
    )


def count_tokens(plan: Plan, created: int) -> Script:
    """POST /v1/messages/count_tokens."""
    return Script.json({"input_tokens": plan.input_tokens})


def _events(plan: Plan) -> Iterator[Piece]:
    start = {**_message(plan), "usage": _usage(plan, 1)}
    yield _event("message_start", {"message": start})
    block = {"type": "text", "text": ""}
    yield _event("content_block_start", {"index": 0, "content_block": block})
    yield Piece(b'event: ping\ndata: {"type": "ping"}\n\n')
    delta = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":%b}%b}\n\n'
    )
    wait_s = (plan.think + 1) * plan.pace_s
    for number in range(plan.shown()):
        yield Piece(
            delta % (word_json(number, stamp=plan.stamp), _PADS[number % len(_PADS)]), wait_s, 1
        )
        wait_s = plan.pace_s
    if plan.ends is not Ending.CLEAN:
        return
    yield _event("content_block_stop", {"index": 0})
    ending = {"stop_reason": _stop(plan), "stop_sequence": None, "stop_details": None}
    final = _usage(plan, plan.think + plan.tokens)
    running = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    usage = {name: final[name] for name in (*running, "output_tokens")}
    usage["output_tokens_details"] = {"thinking_tokens": plan.think}
    yield _event("message_delta", {"delta": ending, "usage": usage})
    yield _event("message_stop", {})


def _event(name: str, members: JsonObject) -> Piece:
    data = orjson.dumps({"type": name, **members})
    padding = _PADS[len(data) % len(_PADS)]
    return Piece(b"event: %b\ndata: %b%b}\n\n" % (name.encode(), data[:-1], padding))


def _message(plan: Plan) -> dict[str, object]:
    return {
        "model": plan.model,
        "id": fresh_id("msg_"),
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
    }


def _usage(plan: Plan, output_tokens: int) -> dict[str, object]:
    return {
        "input_tokens": plan.input_tokens - plan.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": plan.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": "standard",
        "inference_geo": "not_available",
    }


def _stop(plan: Plan) -> str:
    return "max_tokens" if plan.capped else "end_turn"
