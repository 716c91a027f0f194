"""Anthropic messages, and text completions before them: what is asked, edited and cut. On Vertex AI
the model stands in the path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Ask, Framing, Reader
from ..fold import Unread
from ..framings import json_or_sse
from ..jsonedit import find_member, set_member
from ..quirks import Quirks
from ..replies import CUT_CODE, cut_message, dump, with_facts
from ..strict import flag, limit, parse, text, tier
from ..tool_fees import of_claude
from ..weigh import weigh
from .anthropic_reader import MessagesReader

_CAP, _OLD_CAP = "max_tokens", "max_tokens_to_sample"
_PRICED = frozenset(
    ("model", "stream", "messages", "system", "service_tier", "speed", "tools", "mcp_servers",
     "prompt", _CAP, _OLD_CAP)
)  # fmt: skip
_KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class AnthropicMessages:
    """kind "messages", "raw_predict", "complete" or "free"."""

    family = "anthropic_messages"

    def __init__(self, quirks: Quirks, kind: str = "messages") -> None:
        self._kind = kind
        self._cap = _OLD_CAP if kind == "complete" else _CAP

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        if method in ("GET", "HEAD", "DELETE"):
            return Ask(free=True, makes_output=False)
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        free = self._kind == "free"
        fees, rounds = of_claude(request)
        model, stream = text(request, "model"), flag(request, "stream")
        if self._kind == "raw_predict":
            model, _, verb = path.rpartition("/")[2].rpartition(":")
            stream = stream or verb == "streamRawPredict"
        return Ask(
            model=model,
            stream=stream,
            output_cap=limit(request, self._cap),
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden or _server_tools(request),
            capable_of_cap=not free,
            free=free,
            makes_output=not free,
            object_ids=tuple(weight.object_ids),
            service_tier=_tier(request),
            tool_fees=fees,
            rounds=rounds,
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        if output_cap is None or not ask.capable_of_cap:
            return body
        member = find_member(body, self._cap)
        if member is not None and ask.output_cap is not None and ask.output_cap <= output_cap:
            return body
        return set_member(body, self._cap, b"%d" % output_cap)

    def framing(self, ask: Ask, content_type: str) -> Framing:
        return json_or_sse(ask, content_type)

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask) if ask.free else MessagesReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        if framing is not Framing.SSE:
            return b""
        body = _error("billing_error", CUT_CODE, cut_message(message), facts)
        return b"event: error\ndata: " + body + b"\n\n"

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        kind = _KINDS.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
        return _error(kind, code, message, facts)


def _error(kind: str, code: str, message: str, facts: Mapping[str, object]) -> bytes:
    error: dict[str, object] = {"type": kind, "message": message, "code": code}
    return dump({"type": "error", "error": with_facts(error, facts)})


def _tier(request: Mapping[str, Any]) -> str:
    """Fast is a speed that has its own price, and nobody gets it who did not ask for it. Committed
    capacity (the priority tier) is paid for elsewhere."""
    return "fast" if tier(request, "speed") == "fast" else "standard"


def _server_tools(request: Mapping[str, Any]) -> bool:
    """Tools of Anthropic's own add instructions and results to the prompt."""
    tools = request.get("tools")
    named = type(tools) is list and any(
        type(tool) is dict and tool.get("type", "custom") not in ("custom", None) for tool in tools
    )
    return named or bool(request.get("mcp_servers"))
