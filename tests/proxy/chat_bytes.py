"""Bytes of OpenAI's chat dialect, for tests that script a provider piece by piece."""

from __future__ import annotations

import json

DONE = b"data: [DONE]\n\n"


def asking(model: str, *, stream: bool = True) -> dict[str, object]:
    hello = [{"role": "user", "content": "hello there"}]
    return {"model": model, "messages": hello, "stream": stream}


def delta(text: str) -> bytes:
    chunk = {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return b"data: " + json.dumps({"id": "c", "choices": [], "usage": counts}).encode() + b"\n\n"
