"""What a response's built-in tools cost beside its tokens: searches, containers, pictures.

`tool_usage` of the finished response is the provider's own word (xAI says
``server_side_tool_usage_details``, Perplexity ``tool_calls_details``); where it is absent, the
finished calls in the output are counted. Only a search costs, not opening or reading what it found.
A container that the request named was paid for by whoever opened it; one with four times the memory
costs four times as much.
Pictures are made, and priced, by another model.

https://platform.openai.com/docs/pricing#built-in-tools
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .contract import Usage
from .counts import count, member, objects, take
from .openai_usage import settle_usage, take_usage, with_other
from .tool_fees import container_size

ITEMS_MAX = 1_000
"""Calls of one answer whose ids are kept, so that none counts twice."""

CONTAINERS_MAX = 16
"""Containers of one answer that get an owner."""

OWNED_MAX = 64
"""Items of one stored answer that get an owner: the next request may refer to them by their ids."""

IMAGE_MODEL = "gpt-image-1"
"""What the image tool uses where the request does not say."""

_XAI = {
    "web_search_calls": "web",
    "x_search_calls": "x",
    "file_search_calls": "file_searches",
    "code_interpreter_calls": "containers",
}


class Tools:
    """Counts of one answer, put among the reader's own."""

    __slots__ = (
        "_container_size", "_images", "_items", "_model", "_named", "_seen", "_stored", "_told",
    )  # fmt: skip

    def __init__(self, named: tuple[str, ...]) -> None:
        self._named = frozenset(named)
        self._seen: dict[str, set[str]] = {"searches": set(), "file_searches": set()}
        self._seen["containers"] = set()
        self._container_size = 1
        self._images: dict[str, int] = {}
        self._items: dict[str, None] = {}
        self._stored = True
        self._model = IMAGE_MODEL
        self._told = False
        """The provider stated the searches itself."""

    @property
    def made(self) -> tuple[str, ...]:
        """What the next request can name: containers that the answer opened, and its items where
        the provider keeps them."""
        opened = sorted(self._seen["containers"])[:CONTAINERS_MAX]
        return (*opened, *self._items) if self._stored else tuple(opened)

    def used(self, item: object, into: dict[str, int]) -> None:
        """Take a finished item of the output."""
        kind, name = member(item, "type"), member(item, "id")
        if type(name) is str and name and len(self._items) < OWNED_MAX:
            self._items[name] = None
        if kind == "web_search_call" and not self._told:
            action = member(item, "action", "type")
            if action in (None, "search") and member(item, "status") != "failed":
                self._add("searches", member(item, "id"), into)
        elif kind == "file_search_call":
            self._add("file_searches", member(item, "id"), into)
        elif kind in ("code_interpreter_call", "shell_call"):
            place = item if kind == "code_interpreter_call" else member(item, "environment")
            container = member(place, "container_id")
            if type(container) is str and container not in self._named:
                self._add("containers", container, into, self._container_size)

    def told(self, response: dict[str, Any], into: dict[str, int]) -> None:
        """Take a response object: its output, and what it says of its tools."""
        self._stored = self._stored and response.get("store") is not False
        searches = count(member(response, "tool_usage", "web_search", "num_requests"))
        if searches is not None and response.get("usage") is not None:
            self._told = True
            into["searches"] = searches
        details = member(response, "usage", "server_side_tool_usage_details")
        if type(details) is dict:
            found: dict[str, int] = {}
            take(details, _XAI, found)
            into["searches"] = found.pop("web", 0) + found.pop("x", 0)
            into.update(found)
            self._told = True
        made = count(member(response, "usage", "tool_calls_details", "search_web", "invocation"))
        if made is not None:
            into["searches"] = made
            self._told = True
        for tool in objects(response.get("tools")):
            if tool.get("type") == "image_generation" and type(tool.get("model")) is str:
                self._model = tool["model"]
            elif tool.get("type") in ("code_interpreter", "shell"):
                self._container_size = max(self._container_size, container_size(tool))
        for item in objects(response.get("output")):
            self.used(item, into)
        take_usage(member(response, "tool_usage", "image_gen"), self._images)

    def with_pictures(self, usage: Usage) -> Usage:
        """`usage` and beside it what the pictures took, each part with its own model."""
        made = settle_usage(self._images, self._model)
        both = with_other(usage, made)
        if both is usage:
            return usage
        return replace(
            both,
            input_image_tokens=made.input_image_tokens,
            output_image_tokens=made.output_image_tokens,
        )

    def _add(self, name: str, key: object, into: dict[str, int], size: int = 1) -> None:
        seen = self._seen[name]
        if type(key) is str and len(seen) < ITEMS_MAX:
            seen.add(key)
            into[name] = len(seen) * size
