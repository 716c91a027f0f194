"""Chat as OpenAI's followers stream it: usage comes unasked, and each has its own place for it.

After recorded streams of each. A flag of the control word names the provider; whole answers are as
OpenAI's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from lava_proxy.net.simulated.plan import JsonObject, Plan
from lava_proxy.net.simulated.script import Ending, Piece, Script
from lava_proxy.net.simulated.text import WORDS, fresh_id, words


@dataclass(frozen=True, slots=True)
class Habits:
    """How one provider streams."""

    usage: str = "last"
    """In the ``last`` chunk, beside the finish reason; in ``x_groq`` there; or in ``every`` one."""
    null: bool = False
    """Chunks without usage say ``"usage": null``."""
    finish: str = "stop"
    line_end: bytes = b"\n"
    done: bool = True
    """``[DONE]`` at the end."""
    may_ask: bool = True
    """False: a request with `stream_options` is refused."""


HABITS: dict[str, Habits] = {
    "groq": Habits(usage="x_groq"),
    "mistral": Habits(may_ask=False),
    "together": Habits(null=True, finish="eos"),
    "fireworks": Habits(null=True),
    "cerebras": Habits(done=False),
    "perplexity": Habits(usage="every", line_end=b"\r\n", done=False),
}


def habits_of(plan: Plan) -> Habits | None:
    """Whose chat it is to look like; None for OpenAI's."""
    return next((habits for name, habits in HABITS.items() if name.encode() in plan.flags), None)


def chat(plan: Plan, habits: Habits, created: int) -> Script:
    """POST /chat/completions with ``"stream": true``."""
    if not habits.may_ask and "stream_options" in plan.asked:
        where = {"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"]}
        refused = {"object": "error", "message": {"detail": [where]}, "code": "invalid_request"}
        return Script.json(refused, status=422)
    return Script(_pieces(plan, habits, created), ends=plan.ends, paced_s=plan.pace_s)


def _pieces(plan: Plan, habits: Habits, created: int) -> Iterator[Piece]:
    same: JsonObject = {
        "id": fresh_id(""),
        "object": "chat.completion.chunk",
        "created": created,
        "model": plan.model,
    }
    every = habits.usage == "every"
    silent: JsonObject = {"usage": None} if habits.null else {}

    def event(delta: JsonObject, made: int, finish: str | None, more: JsonObject) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {**same, "choices": [choice], **({"usage": _usage(plan, made)} if every else more)}
        return b"data: %b%b" % (orjson.dumps(chunk), habits.line_end * 2)

    yield Piece(event({"role": "assistant", "content": ""}, 0, None, silent))
    for number in range(plan.shown()):
        delta = {"content": WORDS[number % len(WORDS)]}
        yield Piece(event(delta, number + 1, None, silent), plan.pace_s, 1)
    if plan.ends is not Ending.CLEAN:
        return
    usage, finish = _usage(plan, plan.tokens), "length" if plan.capped else habits.finish
    last: JsonObject = {"usage": usage}
    if habits.usage == "x_groq":
        last = {"x_groq": {"id": fresh_id("req_"), "usage": usage}}
    if every:
        same = {
            **same,
            "object": "chat.completion.done",
            "message": {"content": words(plan.tokens)},
        }
    yield Piece(event({"content": ""}, plan.tokens, finish, last))
    if habits.done:
        yield Piece(b"data: [DONE]\n\n")


def _usage(plan: Plan, made: int) -> JsonObject:
    return {
        "prompt_tokens": plan.input_tokens,
        "completion_tokens": made + plan.think,
        "total_tokens": plan.input_tokens + made + plan.think,
    }
