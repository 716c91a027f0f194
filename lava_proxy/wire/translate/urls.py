"""What dialects say in their URLs: how their SDKs end a base URL, and where a provider's model and
its wish to stream stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

from .dialects import Name, Named

_ENDS: Mapping[Name, re.Pattern[str]] = {
    "openai": re.compile(r"(?:/v1)?/chat/completions\Z"),
    "anthropic": re.compile(r"/v1/messages\Z"),
    "google": re.compile(
        r"(?:/v1(?:alpha|beta)?)?/models/(?P<model>[^/:]+):(?P<verb>(?:g|streamG)enerateContent)\Z"
    ),
    "bedrock": re.compile(r"/model/(?P<model>[^/]+)/(?P<verb>converse(?:-stream)?)\Z"),
}
_STREAMS = frozenset({"streamGenerateContent", "converse-stream"})
_PLACES: Mapping[Name, tuple[re.Pattern[str], str, str]] = {
    "google": (
        re.compile(r"(.*/models/)([^/:]+):[A-Za-z]+"),
        ":generateContent",
        ":streamGenerateContent",
    ),
    "bedrock": (
        re.compile(r"(/model/)([^/]+)/converse(?:-stream)?"),
        "/converse",
        "/converse-stream",
    ),
}
"""Dialect -> what stands around the model, and the ends of a whole and of a streamed call."""
_EVENTS = "alt=sse"


def split_end(client: Name, path: str, query: str) -> tuple[str, Named] | None:
    """A path without what the client's SDK appended to its base URL, and what that says."""
    match = _ENDS[client].search(path)
    if match is None:
        return None
    found = match.groupdict()
    stream = found.get("verb") in _STREAMS
    named = Named(
        model=unquote(found["model"]) if found.get("model") else None,
        stream=stream,
        array=client == "google" and stream and _EVENTS not in query.split("&"),
    )
    return path[: match.start()], named


def model_in(provider: Name, path: str) -> str | None:
    """The model that a provider's URL names; None where the body does."""
    place = _PLACES.get(provider)
    match = place[0].match(path) if place else None
    return unquote(match.group(2)) if match else None


def place(
    provider: Name, path: str, query: str, *, model: str | None, stream: bool, array: bool = False
) -> tuple[str, str]:
    """Path and query for a call: its model (None: the URL's own) and whether it streams, where the
    provider has these in the URL. What was meant for the client's own provider goes."""
    kept = [piece for piece in query.split("&") if piece and not piece.startswith("alt=")]
    where = _PLACES.get(provider)
    match = where[0].match(path) if where else None
    if where is not None and match is not None:
        named = match.group(2) if model is None else quote(model, safe="")
        path = match.group(1) + named + (where[2] if stream else where[1])
        if provider == "google" and stream and not array:
            kept.append(_EVENTS)
    return path, "&".join(kept)
