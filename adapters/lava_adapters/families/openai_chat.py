"""OpenAI chat and legacy completions, and everybody who copied them: what is asked, edited, cut.

Usage of a stream comes only when asked for at OpenAI, Azure, vLLM and some others (the row's
`usage_opt_in`), and unasked at the rest; Mistral refuses the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Ask, AskError, Framing, Reader
from ..fold import Unread
from ..framings import json_or_sse
from ..jsonedit import find_member, insert_member, set_member, set_nested
from ..quirks import Quirks
from ..replies import CUT_CODE, cut_message, dump, openai_error, openai_refusal
from ..strict import flag, limit, mapping, parse, text, tier
from ..tool_fees import of_chat
from ..weigh import weigh
from .openai_chat_reader import ChatReader

OPTIONS_SINCE = "2024-09-01"
_CAPS = ("max_completion_tokens", "max_tokens")
_PRICED = frozenset(
    ("model", "stream", "stream_options", "n", "best_of", "prompt", "messages", "service_tier")
) | frozenset((*_CAPS, "tools", "plugins", "web_search_options"))


class OpenAIChat:
    """kind "chat", "completions" or "free"."""

    family = "openai_chat"

    def __init__(self, quirks: Quirks, kind: str = "chat") -> None:
        self._quirks = quirks
        self._kind = kind
        chat = kind != "completions"
        self._caps = _CAPS if chat else ("max_tokens",)
        self._cap_member = quirks.cap_member if chat else "max_tokens"

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        if self._kind == "free" or method in ("GET", "HEAD", "DELETE"):
            return Ask(free=True, makes_output=False)
        request = parse(body, _PRICED)
        stream = flag(request, "stream")
        wants_usage = "stream_options" in request and flag(
            mapping(request, "stream_options"), "include_usage", "stream_options.include_usage"
        )
        cap = None
        for name in self._caps:
            # Which of two caps a compatible provider obeys is unknown: hold for the larger.
            if (found := limit(request, name)) is not None and (cap is None or found > cap):
                cap = found
        weight = weigh(body, request)
        model = text(request, "model")
        fees, rounds = of_chat(request, model)
        return Ask(
            model,
            stream,
            cap,
            self._choices(request),
            weight.input_bytes,
            weight.text_bytes,
            weight.media_tokens,
            hidden_input=weight.hidden or _searches(request),
            wants_usage=wants_usage,
            capable_of_cap=True,
            capable_of_usage=(
                stream and not wants_usage and self._quirks.usage_opt_in and _takes_options(query)
            ),
            object_ids=tuple(weight.object_ids),
            service_tier=tier(request, "service_tier"),
            tool_fees=fees,
            rounds=rounds,
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is not None:
            body = self._lower(body, output_cap)
        if usage:
            body = set_nested(body, "stream_options", "include_usage", b"true")
        return body

    def framing(self, ask: Ask, content_type: str) -> Framing:
        return json_or_sse(ask, content_type)

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask) if ask.free else ChatReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        if framing is not Framing.SSE:
            return b""
        error = openai_error(CUT_CODE, "insufficient_quota", cut_message(message), facts)
        event = b"data: " + dump({"error": error}) + b"\n\n"
        # Only Perplexity's SDK needs the name; Together's ignores events that have one.
        return b"event: error\n" + event if self._quirks.named_errors else event

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return openai_refusal(status, code, message, facts)

    def _lower(self, body: bytes, output_cap: int) -> bytes:
        present = False
        for name in self._caps:
            member = find_member(body, name)
            if member is None:
                continue
            value = body[member.start : member.end]
            if value == b"null":
                continue
            present = True
            if int(value) > output_cap:
                body = set_member(body, name, b"%d" % output_cap)
        if present:
            return body
        if find_member(body, self._cap_member) is not None:
            return set_member(body, self._cap_member, b"%d" % output_cap)
        return insert_member(body, self._cap_member, b"%d" % output_cap)

    def _choices(self, request: Mapping[str, Any]) -> int:
        choices = limit(request, "n") or 1
        if self._kind != "completions":
            return choices
        prompt = request.get("prompt")
        batch = type(prompt) is list and bool(prompt) and type(prompt[0]) is not int
        if prompt is not None and type(prompt) not in (str, list):
            raise AskError("prompt must be a string or a list", "prompt")
        answers = max(choices, limit(request, "best_of") or 1)
        return answers * (len(prompt) if batch and prompt is not None else 1)


def _takes_options(query: str) -> bool:
    """Azure's older versions answer 400 to ``stream_options``."""
    for piece in query.split("&") if query else ():
        name, _, version = piece.partition("=")
        if name == "api-version" and version[:1].isdigit():
            return version >= OPTIONS_SINCE
    return True


def _searches(request: Mapping[str, Any]) -> bool:
    """Search results and stored material enter the prompt at the provider."""
    if request.get("web_search_options") is not None or request.get("plugins"):
        return True
    tools = request.get("tools")
    return type(tools) is list and any(
        type(tool) is dict and tool.get("type", "function") not in ("function", "custom")
        for tool in tools
    )
