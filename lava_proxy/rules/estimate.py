"""How many tokens a call has used, or may use, when the provider has not said.

Where the figures come from: recordings of some twenty providers, visible text against the
provider's own count. Bytes per token lie between 3.6 and 5.1; several providers send exactly one
token per event, so the event count is a floor; a tool call costs about ten tokens of framing beside
its text; reasoning that is not shown can only be guessed from silence.

Running guesses err upwards a little (they gate money), and `Learned` pulls them to the truth: after
a few settled calls of a model its factor is known. Everything is an integer; factors and bytes per
token are in thousandths.

Settling prefers the provider's final word. A running figure of the provider is never final: per
field the larger of it and our count. An explicit final zero stays zero; absent is not zero.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from lava_adapters.contract import Usage
from lava_adapters.values import dataclass
from lava_proxy.core.money import divide_up

TOOL_CALL_TOKENS = 10
MESSAGE_TOKENS = 16
"""Upper bound of what one message's frame (role, separators) adds to the prompt."""
HIDDEN_TOKENS_PER_S = 100
"""Assumed speed of reasoning that is not shown; seen: 60 to 150."""
INPUT_BYTES_PER_TOKEN_E3 = 3500

LEARNED_MIN_E3 = 700
LEARNED_MAX_E3 = 2000
LEARN_FROM_TOKENS = 20
"""Shorter answers say nothing about the ratio."""
LEARNED_SHARE = 8
"""A new call moves the average by one part in this many."""
LEARNED_MODELS_MAX = 2048
LEARNED_NAME_MAX = 256
"""Longer names are remembered by nobody: one that no index takes would lose what others learned."""

LONGEST_FROM_TOKENS = 4_096
"""Shorter answers are expected of every model."""
LONGEST_MOST_TOKENS = 2_000_000
"""No model answers with more: such a count is no measure."""

Source = Literal["provider", "partial", "estimate"]


@dataclass(frozen=True, slots=True)
class Profile:
    """How a provider's streams relate to tokens; the provider table has the figures."""

    one_token_events: bool = False
    """Every content event carries exactly one token, or more."""
    bytes_per_token_e3: int = 4400
    factor_e3: int = 1000


def estimate_tokens(
    deltas: int, delta_bytes: int, tool_calls: int, profile: Profile, learned_e3: int = 1000
) -> int:
    """Output tokens so far, from content events, bytes of visible text and tool calls."""
    # Runs for every event of every stream, so `divide_up` is written out.
    tokens = -(-delta_bytes * 1000 // profile.bytes_per_token_e3)
    if deltas > tokens and profile.one_token_events:
        tokens = deltas
    scaled = -(-tokens * profile.factor_e3 * learned_e3 // 1_000_000)
    return scaled + TOOL_CALL_TOKENS * tool_calls


def hidden_tokens(silent_ms: int, rate_per_s: int = HIDDEN_TOKENS_PER_S) -> int:
    """Reasoning tokens to assume for a silence before the visible text."""
    return divide_up(max(silent_ms, 0) * rate_per_s, 1000)


def input_tokens_estimate(text_bytes: int, media_tokens: int = 0) -> int:
    """A likely prompt size: for holds that are settled later, not for bounds."""
    return divide_up(text_bytes * 1000, INPUT_BYTES_PER_TOKEN_E3) + media_tokens


def input_tokens_bound(text_bytes: int, media_tokens: int = 0, messages: int = 1) -> int:
    """No prompt of this text has more tokens: a byte-level token covers at least one byte."""
    return text_bytes + media_tokens + MESSAGE_TOKENS * messages


class Learned:
    """Truth over estimate per (provider, model): a moving average, clamped, in a bounded table that
    forgets the models not seen for longest. And the longest answer of each to a call without an
    output cap, which is this process's own knowledge."""

    def __init__(self, models_max: int = LEARNED_MODELS_MAX) -> None:
        self._ratio_e6: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._fresh: set[tuple[str, str]] = set()
        self._longest: OrderedDict[tuple[str, str], int] = OrderedDict()
        self.models_max = models_max

    def __len__(self) -> int:
        return len(self._ratio_e6)

    def factor_e3(self, provider: str, model: str) -> int:
        """Multiply estimates by this many thousandths; 1000 for a model never seen."""
        return self._ratio_e6.get((provider, model), 1_000_000) // 1000

    def learn(self, provider: str, model: str, estimate: int, truth: int) -> None:
        """Take one settled call: `estimate` made with `learned_e3` = 1000, `truth` the provider's
        final count of the same tokens."""
        if estimate < LEARN_FROM_TOKENS or truth < LEARN_FROM_TOKENS:
            return
        if not _kept(model):
            return
        key = (provider, model)
        seen_e6 = truth * 1_000_000 // estimate
        known_e6 = self._ratio_e6.get(key, 1_000_000)
        moved_e6 = known_e6 + (seen_e6 - known_e6) // LEARNED_SHARE
        self._fresh.add(key)
        self._keep(key, moved_e6)

    def longest(self, provider: str, model: str) -> int:
        """Tokens of the longest answer without a cap; 0 where none was long."""
        return self._longest.get((provider, model), 0)

    def answered(self, provider: str, model: str, tokens: int) -> None:
        """Take one answer to a call without an output cap, as the provider counts it."""
        if not LONGEST_FROM_TOKENS <= tokens <= LONGEST_MOST_TOKENS or not _kept(model):
            return
        key = (provider, model)
        self._longest[key] = max(tokens, self._longest.get(key, 0))
        self._longest.move_to_end(key)
        if len(self._longest) > self.models_max:
            self._longest.popitem(last=False)

    def take_fresh(self) -> dict[tuple[str, str], int]:
        """What was learned since the last time, in millionths: to be shared with other workers."""
        fresh, self._fresh = self._fresh, set()
        return {key: self._ratio_e6[key] for key in fresh if key in self._ratio_e6}

    def keep_fresh(self, keys: Iterable[tuple[str, str]]) -> None:
        """These could not be shared: next time."""
        self._fresh.update(keys)

    def adopt(self, factors: Mapping[tuple[str, str], int]) -> None:
        """Take what all workers know; what was learned here meanwhile stands."""
        for key, ratio_e6 in factors.items():
            if key not in self._fresh:
                self._keep(key, ratio_e6)

    def _keep(self, key: tuple[str, str], ratio_e6: int) -> None:
        self._ratio_e6[key] = min(max(ratio_e6, LEARNED_MIN_E3 * 1000), LEARNED_MAX_E3 * 1000)
        self._ratio_e6.move_to_end(key)
        if len(self._ratio_e6) > self.models_max:
            self._ratio_e6.popitem(last=False)


def _kept(model: str) -> bool:
    """Names come from callers, and are kept."""
    return len(model) <= LEARNED_NAME_MAX and model.isprintable()


@dataclass(frozen=True, slots=True)
class Final:
    """The counts to settle with, and where they come from."""

    usage: Usage
    source: Source


def final_counts(
    usage: Usage, final: bool, *, input_tokens: int = 0, output_tokens: int = 0
) -> Final:
    """Join the provider's `usage` (`final`: its last word) with our own running counts."""
    if final and usage.input_tokens is not None and usage.output_tokens is not None:
        return Final(usage, "provider")  # the usual case
    stated = _states_tokens(usage)
    if final and (stated or _states_other(usage)):
        if not stated:
            return Final(usage, "provider")
        return _completed(usage, input_tokens, output_tokens)
    larger = replace(
        usage,
        input_tokens=max(usage.input_tokens or 0, input_tokens),
        output_tokens=max(usage.output_tokens or 0, output_tokens),
    )
    return Final(larger, "partial" if stated or _states_other(usage) else "estimate")


def _completed(usage: Usage, input_tokens: int, output_tokens: int) -> Final:
    """A final word that leaves one of the two totals out is filled up from our count."""
    given = input_tokens if usage.input_tokens is None else usage.input_tokens
    made = output_tokens if usage.output_tokens is None else usage.output_tokens
    filled = (usage.input_tokens is None and input_tokens > 0) or (
        usage.output_tokens is None and output_tokens > 0
    )
    counts = replace(usage, input_tokens=given, output_tokens=made)
    return Final(counts, "partial" if filled else "provider")


def _states_tokens(usage: Usage) -> bool:
    return usage.input_tokens is not None or usage.output_tokens is not None


def _states_other(usage: Usage) -> bool:
    """Counts that need no tokens beside them: speech, pages, images, searches, a cost."""
    return any(
        value is not None
        for value in (
            usage.input_characters,
            usage.output_characters,
            usage.input_ms,
            usage.output_ms,
            usage.images,
            usage.pages,
            usage.search_units,
            usage.cost_e10,
        )
    )
