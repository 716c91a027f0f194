"""For tests of `/v1/rewrite`: SDK clients at another dialect's provider, and scripted streams."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import anthropic
import openai
from gateway_kit import Gate

from lava_proxy.net.simulated import Piece, Script

HELLO: Any = [{"role": "user", "content": "hello there"}]
CLAUDE = "https://api.anthropic.com/v1/messages"
GPT = "https://api.openai.com/v1/chat/completions"


def openai_at(gate: Gate, target: str, key: str, **more: Any) -> openai.AsyncOpenAI:
    url = f"{gate.url}/v1/rewrite/openai/{target}"
    return openai.AsyncOpenAI(base_url=url, api_key=key, **more)


def anthropic_at(gate: Gate, target: str, key: str, **more: Any) -> anthropic.AsyncAnthropic:
    url = f"{gate.url}/v1/rewrite/anthropic/{target}"
    return anthropic.AsyncAnthropic(base_url=url, api_key=key, **more)


def claude_stream(events: Iterable[dict[str, Any]]) -> Script:
    """Anthropic's events, each a piece of its own."""
    return Script(
        [
            Piece(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()))
            for e in events
        ]
    )


def gpt_stream(chunks: Iterable[dict[str, Any]], *, done: bool = True) -> Script:
    """OpenAI's chunks, each a piece of its own."""
    lines = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return Script([Piece(line) for line in [*lines, *([b"data: [DONE]\n\n"] if done else [])]])


def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    """A chunk of OpenAI's."""
    made = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [made]}
