"""The OpenAI usage object, as OpenAI and the many that copied it fill it in.

Input and output come as prompt/completion (chat) or input/output (responses). Where the stated
total is larger than their sum, something lies beside them, and the total says how much:

* the reasoning tokens (xAI chat): they are output;
* the audio tokens, or seconds of audio (Mistral): they are input;
* the citation tokens that Perplexity's deep research states beside it: its reasoning is beside the
  output too, and in no total;
* the cached tokens: they are input;
* anything else (Google's OpenAI-compatible endpoint hides its thinking): it is output.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .contract import Usage
from .counts import COUNT_MAX, clamp, cost_e10, count, exact, member, ticks_e10

_TOP = {
    "prompt_tokens": "input",
    "input_tokens": "input",
    "completion_tokens": "output",
    "output_tokens": "output",
    "total_tokens": "total",
    "num_cached_tokens": "cached",
    "prompt_cache_hit_tokens": "cached",
    "cached_tokens": "cached",
    "reasoning_tokens": "reasoning",
    "prompt_audio_seconds": "audio_s",
    "num_search_queries": "searches",
    "citation_tokens": "citations",
}
_INPUT = {
    "cached_tokens": "cached",
    "cache_write_tokens": "written",
    "audio_tokens": "input_audio",
    "image_tokens": "input_image",
    # Alibaba's, and Perplexity's in its responses.
    "cache_creation_input_tokens": "written",
    "cache_read_input_tokens": "cached",
}
_COSTS = ("cost", "estimated_cost")
_PRICED = frozenset(("cost_in_usd_ticks", *_COSTS))
_OUTPUT = {
    "reasoning_tokens": "reasoning",
    "audio_tokens": "output_audio",
    "image_tokens": "output_image",
}
_TOOLS = {"web_search_requests": "searches"}
_DETAILS = {
    "prompt_tokens_details": _INPUT,
    "prompt_token_details": _INPUT,
    "input_tokens_details": _INPUT,
    "input_token_details": _INPUT,
    "cached_tokens_details": {"cached_image_tokens": "cached_image"},
    "completion_tokens_details": _OUTPUT,
    "output_tokens_details": _OUTPUT,
    "output_token_details": _OUTPUT,
    "server_tool_use": _TOOLS,
    "server_tool_use_details": _TOOLS,
}
_KNOWN: dict[str, str | dict[str, str]] = {**_TOP, **_DETAILS}


def take_usage(usage: object, into: dict[str, int]) -> bool:
    """Copy the valid counts of a usage object; True if there were any."""
    if type(usage) is not dict:
        return False
    found = False
    details = []
    for name, value in usage.items():  # fewer members than names that we know: walk those
        target = _KNOWN.get(name)
        if isinstance(target, str):
            if type(value) is int and 0 <= value < COUNT_MAX:
                into[target] = value
                found = True
            elif (odd := count(value)) is not None:
                into[target] = odd
                found = True
        elif target is not None and type(value) is dict:
            details.append((value, target))
    for value, names in details:  # the newer spelling: it wins over the top level
        for name, inner in value.items():
            target = names.get(name)
            if target is None:
                continue
            if type(inner) is int and 0 <= inner < COUNT_MAX:
                into[target] = inner
                found = True
            elif (odd := count(inner)) is not None:
                into[target] = odd
                found = True
    return found


def take_cost(usage: object, data: bytes, into: dict[str, int]) -> None:
    """Copy the provider's own cost figure from a usage object inside the event `data`."""
    if type(usage) is not dict or _PRICED.isdisjoint(usage):
        return
    ticks = ticks_e10(usage.get("cost_in_usd_ticks"))
    if ticks is not None:
        into["cost_e10"] = ticks
    elif any(usage.get(name) is not None for name in _COSTS) and usage.get("is_byok") is not True:
        cost = _written_cost(exact(data))
        if cost is not None:
            into["cost_e10"] = cost


def settle_usage(counts: dict[str, int], model: str | None, *, makes_output: bool = True) -> Usage:
    """The `Usage` that these counts mean."""
    entered, made = counts.get("input"), counts.get("output")
    total = counts.get("total")
    if not makes_output:
        made = 0
        entered = total if entered is None else entered
    elif entered is not None and made is not None and total is not None:
        gap = total - entered - made
        if gap > 0:
            entered, made = _share_gap(counts, entered, made, gap)
    if "citations" in counts and made is not None:
        made += counts.get("reasoning", 0)
    audio_s = counts.get("audio_s")
    return Usage(
        input_tokens=entered,
        output_tokens=made,
        cache_read_tokens=clamp(counts.get("cached"), entered),
        cache_write_tokens=clamp(counts.get("written"), entered),
        input_audio_tokens=clamp(counts.get("input_audio"), entered),
        input_image_tokens=clamp(counts.get("input_image"), entered),
        cached_image_tokens=counts.get("cached_image"),
        reasoning_tokens=clamp(counts.get("reasoning"), made),
        output_audio_tokens=clamp(counts.get("output_audio"), made),
        output_image_tokens=clamp(counts.get("output_image"), made),
        input_ms=None if audio_s is None else count(audio_s * 1000),
        total_reported=total,
        citation_tokens=counts.get("citations"),
        web_searches=counts.get("searches"),
        file_searches=counts.get("file_searches"),
        containers=counts.get("containers"),
        cost_e10=counts.get("cost_e10"),
        model=model,
    )


def with_other(usage: Usage, other: Usage) -> Usage:
    """`usage` and beside it what another model took for the same answer, each a part of its own.
    What is no token is stated once, by the first part."""
    if not other.input_tokens and not other.output_tokens:
        return usage
    own = replace(usage, cost_e10=None, web_searches=None, file_searches=None, containers=None)
    return replace(
        usage,
        input_tokens=(usage.input_tokens or 0) + (other.input_tokens or 0),
        output_tokens=(usage.output_tokens or 0) + (other.output_tokens or 0),
        parts=(own, other),
    )


def _share_gap(counts: dict[str, int], entered: int, made: int, gap: int) -> tuple[int, int]:
    if gap == counts.get("reasoning"):
        return entered, made + gap
    if counts.get("audio_s") or gap in (counts.get("input_audio"), counts.get("cached")):
        return entered + gap, made
    return entered, made + gap


def _written_cost(document: Any) -> int | None:
    """The cost in a whole event or in the ``response`` it wraps: OpenRouter states a number,
    Perplexity an object with a total, DeepInfra an ``estimated_cost``."""
    usage = member(document, "usage") or member(document, "response", "usage")
    cost = next((cost for name in _COSTS if (cost := member(usage, name)) is not None), None)
    if type(cost) is dict:
        cost = cost.get("total_cost")
    return cost_e10(cost)
