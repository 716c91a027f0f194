"""How much a call must hold before it may start, and which output cap makes it affordable.

* A stream in a `sliced` (or `soft`) meter holds its input and a slice of output, then extends.
* A stream in a `strict` meter, and every call that cannot be cut off (not streamed, or in the
  background at the provider), holds its ceiling: the bound of its input and its whole output cap.
  Where the customer cannot afford that, the cap is lowered; below a floor the call is refused.
"""

from __future__ import annotations

from lava_adapters.contract import Ask
from lava_adapters.values import dataclass
from lava_proxy.rules.estimate import input_tokens_bound, input_tokens_estimate
from lava_proxy.rules.gauge import Gauge
from lava_proxy.rules.settlement import Enforcement

HIDDEN_INPUT_TOKENS = 200_000
"""Assumed for context that the body does not show, where a ceiling must hold: a usual window."""

MESSAGE_BYTES = 24
"""No message of any dialect is shorter than this in JSON, so a body holds at most so many."""


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """Settings that shape a quote, in tokens."""

    slice_tokens: int
    floor_tokens: int
    default_tokens: int


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
    """Output the caller may expect per choice: its own cap or the default."""
    inject: bool
    """Set the cap even when all of it is affordable: without one there is no ceiling."""
    choices: int

    def cap_for(self, held_e10: int) -> int | None:
        """The output cap to set in the body so that it fits `held_e10`; None = leave it alone."""
        if not self.adjustable:
            return None
        affordable = self.gauge.affordable_outputs(held_e10, self.inputs) // self.choices
        if affordable < self.cap_tokens:
            return max(1, affordable)
        return self.cap_tokens if self.inject else None


def quote(
    ask: Ask, gauge: Gauge, enforcement: Enforcement, limits: OutputLimits, *, body_bytes: int
) -> Quote:
    """What a call with this ask must hold under a meter's enforcement."""
    ceiling = enforcement == "strict" or not ask.stream or ask.background
    inputs = input_units(ask, gauge, body_bytes=body_bytes, bound=ceiling)
    cap = ask.output_cap or limits.default_tokens
    outputs = cap * ask.choices if ask.makes_output and gauge.kind != "flat" else 0
    if gauge.kind == "characters":
        # A token is rarely longer; characters are counted when they come. Speech has none.
        outputs = 0 if ask.spoken_tokens else outputs * 6
    adjustable = ceiling and outputs > 0 and gauge.kind == "tokens" and ask.capable_of_cap
    floor = min(outputs, limits.floor_tokens * ask.choices)
    if not ceiling:
        outputs = min(outputs, limits.slice_tokens)
        floor = min(outputs, floor)
    want = gauge.bound_e10(inputs, outputs)
    return Quote(
        gauge=gauge,
        inputs=inputs,
        least_e10=gauge.bound_e10(inputs, floor) if adjustable or not ceiling else want,
        want_e10=want,
        ceiling=ceiling,
        adjustable=adjustable,
        cap_tokens=cap,
        inject=adjustable and enforcement == "strict" and ask.output_cap is None,
        choices=ask.choices,
    )


def gauge_of(ask: Ask, gauge: Gauge) -> Gauge:
    """The gauge of this call: with what it has beside tokens."""
    return gauge.beside(
        ms=ask.input_ms_most,
        characters=ask.input_characters or 0,
        images=ask.images,
        pages=ask.pages,
    )


def input_units(ask: Ask, gauge: Gauge, *, body_bytes: int, bound: bool) -> int:
    """Input units of a call, estimated or bounded from above."""
    if gauge.kind == "flat":
        return 0
    if gauge.kind == "characters":
        return ask.input_characters if ask.input_characters is not None else ask.text_bytes
    if not bound:
        return input_tokens_estimate(ask.text_bytes, ask.media_tokens)
    hidden = HIDDEN_INPUT_TOKENS if ask.hidden_input else 0
    messages = body_bytes // MESSAGE_BYTES + 1
    return input_tokens_bound(ask.input_bytes, ask.media_tokens, messages) + hidden
