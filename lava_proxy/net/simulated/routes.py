"""From a request to its answer: which dialect a path belongs to, and what it says to bad requests.

Paths are matched by their end, so that every base URL of an OpenAI-compatible provider works.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lava_proxy.net.simulated import anthropic, gemini, openai, responses
from lava_proxy.net.simulated.plan import Plan
from lava_proxy.net.simulated.script import Script, SimRequest

_Build = Callable[[Plan, int], Script]
_Refuse = Callable[[int, str], Script]

_BY_SUFFIX: tuple[tuple[str, _Build, _Refuse], ...] = (
    ("/chat/completions", openai.chat, openai.error),
    ("/completions", openai.completions, openai.error),
    ("/responses", responses.responses, openai.error),
    ("/embeddings", openai.embeddings, openai.error),
    ("/messages", anthropic.messages, anthropic.error),
    ("/messages/count_tokens", anthropic.count_tokens, anthropic.error),
)
_GEMINI_VERBS = frozenset(("generateContent", "streamGenerateContent", "countTokens"))


def answer(request: SimRequest, plan: Plan | None) -> Script:
    """What the provider that owns this path would say; `plan` is None for a body that is no JSON
    object."""
    path = request.path
    if request.method in ("GET", "HEAD") and path.endswith("/models"):
        return openai.models(int(time.time()))
    verb = path.rpartition(":")[2]
    if verb in _GEMINI_VERBS:
        return _gemini(request, plan, verb)
    for suffix, build, refuse in _BY_SUFFIX:
        if path.endswith(suffix):
            if request.method != "POST":
                return refuse(405, f"Not allowed to {request.method} on {path}.")
            return _built(plan, build, refuse)
    return openai.error(404, f"Invalid URL ({request.method} {path})")


def _built(plan: Plan | None, build: _Build, refuse: _Refuse) -> Script:
    if plan is None:
        return refuse(400, "We could not parse the JSON body of your request.")
    if not plan.model:
        return refuse(400, "you must provide a model parameter")
    if plan.fail_status:
        return refuse(plan.fail_status, "simulated failure")
    return build(plan, int(time.time()))


def _gemini(request: SimRequest, plan: Plan | None, verb: str) -> Script:
    if request.method != "POST":
        return gemini.error(404, "Requested entity was not found.")
    if plan is None:
        return gemini.error(400, "Invalid JSON payload received.")
    if plan.fail_status:
        return gemini.error(plan.fail_status, "simulated failure")
    if verb == "countTokens":
        return gemini.count_tokens(plan)
    if verb == "generateContent":
        return gemini.generate_content(plan)
    return gemini.stream_generate_content(plan, sse="alt=sse" in request.query)
