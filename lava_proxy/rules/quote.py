"""How much a call must hold before it may start, and which output cap makes it affordable.

* A stream in a `sliced` (or `soft`) meter holds its input and a slice of output, then extends.
* A stream in a `strict` meter, and every call that cannot be cut off (not streamed, or in the
  background at the provider), holds its ceiling: the bound of its input and its whole output cap.
  Where the customer cannot afford that, the cap is lowered; below a floor the call is refused.

A call without an output cap is bounded by its model. Where nobody knows how much that makes, the
operator's default is held, or as much as the model was seen to make. Only a `strict` meter sets
that as the cap: a server with a smaller window would refuse the call for it. What `strict` cannot
bound is named in `unbounded`, and such a call is refused.
"""

from __future__ import annotations

from lava_adapters.contract import Ask, ToolFee
from lava_adapters.model_limits import NO_LIMITS, ModelLimits
from lava_adapters.values import dataclass
from lava_proxy.core.settings import Settings
from lava_proxy.rules.estimate import input_tokens_bound, input_tokens_estimate
from lava_proxy.rules.gauge import Gauge
from lava_proxy.rules.settlement import Enforcement

HIDDEN_INPUT_TOKENS = 200_000
"""Assumed for context that the body does not show (a link, a stored conversation), at most the
model's window; far more than is usual."""

WINDOW_TOKENS = 1_100_000
"""What a model may read of which nobody knows how much it does, where the bound must hold."""

MESSAGE_BYTES = 24
"""No message of any dialect is shorter than this in JSON, so a body holds at most so many."""

CHARACTERS_PER_TOKEN = 8
"""Of output: no usual text has so many on average."""

CHARACTERS_PER_TOKEN_MOST = 128
"""The longest token of the known vocabularies: a run of blanks or dashes."""


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """Settings that shape a quote: tokens, and uses of each of the provider's paid tools."""

    slice_tokens: int
    floor_tokens: int
    default_tokens: int
    tool_uses: int = 10

    @staticmethod
    def of(settings: Settings) -> OutputLimits:
        """As the operator set them."""
        return OutputLimits(
            settings.output_slice_tokens,
            settings.output_floor_tokens,
            settings.output_default_tokens,
            settings.tool_uses,
        )


@dataclass(frozen=True, slots=True)
class Quote:
    """What to hold: `want_e10`, or less down to `least_e10` where `adjustable` (then the output cap
    is lowered to what the hold affords)."""

    gauge: Gauge
    inputs: int
    """Input units that the hold covers: estimate or bound, see `ceiling`."""
    least_e10: int
    want_e10: int
    ceiling: bool
    """The hold is the ceiling; it is not extended."""
    adjustable: bool
    cap_tokens: int
    """Output that is expected at most per choice: the caller's cap, the model's, or the default."""
    inject: bool
    """Set the cap even when all of it is affordable: without one there is no ceiling."""
    per_token: int
    """Output units of the gauge in each token of a cap, and for all choices."""
    unbounded: str | None = None
    """What a strict hold cannot bound, and what would help."""

    def outputs(self, held_e10: int) -> int:
        """Output tokens per choice that so much money covers."""
        return self.gauge.affordable_outputs(held_e10, self.inputs) // self.per_token

    def cap_for(self, held_e10: int) -> int | None:
        """The output cap to set in the body so that it fits `held_e10`; None = leave it alone."""
        if not self.adjustable:
            return None
        if held_e10 < self.want_e10 and (affordable := self.outputs(held_e10)) < self.cap_tokens:
            return max(1, affordable)
        return self.cap_tokens if self.inject else None


def quote(
    ask: Ask,
    gauge: Gauge,
    enforcement: Enforcement,
    limits: OutputLimits,
    *,
    body_bytes: int,
    model: ModelLimits = NO_LIMITS,
    longest_seen: int = 0,
) -> Quote:
    """What a call with this ask must hold under a meter's enforcement; `model` need not be known
    for one that is no ceiling. `longest_seen`: tokens that it is known to make of itself."""
    strict = enforcement == "strict"
    ceiling = is_ceiling(ask, enforcement)
    per_token = ask.choices
    if gauge.kind == "characters":
        per_token *= _characters_per_token(ask, strict=strict)
    cap = ask.output_cap or max(model.output or _default_cap(ask, limits, model), longest_seen)
    outputs = cap * per_token if ask.makes_output and gauge.kind != "flat" else 0
    adjustable = ceiling and outputs > 0 and ask.capable_of_cap
    floor = min(outputs, limits.floor_tokens * per_token)
    if not ceiling:
        outputs = min(outputs, limits.slice_tokens)
        floor = min(outputs, floor)
    if ceiling and gauge.kind == "tokens":
        inputs = _inputs_bound(ask, body_bytes, model, strict=strict)
    else:
        inputs = likely_inputs(ask, gauge)
    want = gauge.bound_e10(inputs, outputs)
    return Quote(
        gauge,
        inputs,
        gauge.bound_e10(inputs, floor) if adjustable or not ceiling else want,
        want,
        ceiling,
        adjustable,
        cap,
        adjustable and strict and ask.output_cap is None,
        per_token or 1,
        _unbounded(ask, gauge, outputs, model) if strict else None,
    )


def is_ceiling(ask: Ask, enforcement: Enforcement) -> bool:
    """Whether a call holds all that it may come to: it cannot be cut off, or must not be."""
    return enforcement == "strict" or not ask.stream or ask.background


def gauge_of(ask: Ask, gauge: Gauge, enforcement: Enforcement, limits: OutputLimits) -> Gauge:
    """The gauge of this call: with what it has beside tokens."""
    if not (ask.input_ms_most or ask.input_characters or ask.images or ask.pages or ask.tool_fees):
        return gauge
    known = limits.tool_uses
    bounded = is_ceiling(ask, enforcement)
    uses = {
        kind: known if most is None else most if bounded else min(most, known)
        for kind, most in ask.tool_fees
    }
    return gauge.beside(
        ms=ask.input_ms_most,
        characters=ask.input_characters or 0,
        images=ask.images,
        pages=ask.pages,
        web_searches=uses.get("web_search", 0),
        file_searches=uses.get("file_search", 0),
        containers=uses.get("container", 0),
        search_units=uses.get("search_unit", 0),
    )


def likely_inputs(ask: Ask, gauge: Gauge) -> int:
    """Input units that a call probably has."""
    if gauge.kind == "flat":
        return 0
    if gauge.kind == "characters":
        return ask.input_characters if ask.input_characters is not None else ask.text_bytes
    return input_tokens_estimate(ask.text_bytes, ask.media_tokens)


def _inputs_bound(ask: Ask, body_bytes: int, model: ModelLimits, *, strict: bool) -> int:
    """Input tokens that a ceiling holds for."""
    messages = body_bytes // MESSAGE_BYTES + 1
    shown = input_tokens_bound(ask.input_bytes, ask.media_tokens, messages)
    if strict:
        read = max(shown, model.window or WINDOW_TOKENS) if ask.hidden_input else shown
        return read * (ask.rounds or 1)
    if not ask.hidden_input:
        return shown
    return shown + min(model.window or HIDDEN_INPUT_TOKENS, HIDDEN_INPUT_TOKENS)


def _characters_per_token(ask: Ask, *, strict: bool) -> int:
    if ask.spoken_tokens:
        return 0  # speech has no characters
    return CHARACTERS_PER_TOKEN_MOST if strict else CHARACTERS_PER_TOKEN


def _default_cap(ask: Ask, limits: OutputLimits, model: ModelLimits) -> int:
    """The operator's default, where the model's window has so much room beside the prompt (taken
    for longer than it likely is): providers refuse a cap beyond it."""
    if model.window is None:
        return limits.default_tokens
    room = model.window * 20 // 21 - ask.text_bytes // 2 - ask.media_tokens
    return min(limits.default_tokens, max(room, limits.floor_tokens))


def _unbounded(ask: Ask, gauge: Gauge, outputs: int, model: ModelLimits) -> str | None:
    capped = ask.capable_of_cap or ask.output_cap is not None or model.output is not None
    if outputs and not capped:
        return "its output cap can neither be read nor set here; send one in the model's own way"
    if ask.guarded and gauge.of_cost:
        return "what a guardrail looks at is known behind the call only"
    tools = any(_open_fee(gauge, kind, most) for kind, most in ask.tool_fees)
    if tools or (ask.rounds is None and gauge.per_input_e18 and gauge.kind == "tokens"):
        return (
            "the provider's own tools may be used without bound; set max_uses or max_tool_calls "
            "where there is one, and have no pictures made"
        )
    return None


def _open_fee(gauge: Gauge, kind: ToolFee, most: int | None) -> bool:
    """Whether a tool may cost more than can be held. What pictures cost that a response has another
    model make, that model's prices say: they are in no hold."""
    return (most is None or (kind == "picture" and most > 0)) and gauge.charges(kind)
