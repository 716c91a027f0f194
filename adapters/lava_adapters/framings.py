"""How an answer is cut, by its content type."""

from __future__ import annotations

from .contract import Ask, Framing


def media_type(content_type: str) -> str:
    """``"text/event-stream; charset=utf-8"`` -> ``"text/event-stream"``."""
    return content_type.partition(";")[0].strip().lower()


def json_or_sse(ask: Ask, content_type: str) -> Framing:
    """The rule of the families that answer in JSON, or in SSE when streaming. An odd content type
    changes nothing: an unread stream could not be stopped, and an unread answer would be free."""
    if content_type == "application/json":  # the usual, as it is usually written
        return Framing.JSON
    kind = media_type(content_type)
    if kind == "text/event-stream":
        return Framing.SSE
    if kind in ("application/x-ndjson", "application/jsonl", "application/x-jsonlines"):
        return Framing.NDJSON
    if is_json(kind):
        return Framing.JSON
    return Framing.SSE if ask.stream else whole(ask)


def whole(ask: Ask) -> Framing:
    """Of an answer that is no stream and does not say that it is JSON."""
    return Framing.OPAQUE if ask.free else Framing.JSON


def is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")
