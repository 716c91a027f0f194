"""The running count of one answer: what it came to so far, and whether the hold still covers it.

`gate` is called for every content event, before its bytes go out. It is an integer comparison; only
when the count passes what the hold covers does it take more from the account (no I/O), and only
when that fails does the relay stop and wait, or cut.

With several budgets (a spend key's limit beside the customer's credit) the comparison is with the
least that any of them covers.

Counts are the larger of our own estimate and what the provider has reported so far. What was
delivered is kept apart from what was only seen: the event that crosses the budget is not sent, and
not charged.
"""

from __future__ import annotations

from collections.abc import Sequence

from lava_adapters.contract import NO_USAGE, Ask, Usage
from lava_proxy.books.leases import Hold
from lava_proxy.rules.estimate import (
    TOOL_CALL_TOKENS,
    Profile,
    estimate_tokens,
    hidden_tokens,
)
from lava_proxy.rules.gauge import FREE, UNBOUNDED, Gauge
from lava_proxy.rules.price import COUNT_MAX
from lava_proxy.wire.tap import Tap

HIDDEN_AFTER_MS = 1000
"""A silence shorter than this is the network, not reasoning."""


class Running:
    """Counts of one call while it runs."""

    __slots__ = (
        "_beside",
        "_bounded",
        "_by_character",
        "_covered",
        "_gauge",
        "_held_whole",
        "_learned_e3",
        "_longest",
        "_mixed",
        "_most",
        "_profile",
        "_slice",
        "_token_factor_e3",
        "characters",
        "hidden",
        "hidden_rate",
        "hold",
        "input_characters",
        "inputs",
        "outputs",
        "packed",
        "reader",
        "reported",
        "tap",
    )

    def __init__(
        self,
        tap: Tap,
        ask: Ask,
        *,
        inputs: int,
        hold: Hold | None,
        gauge: Gauge,
        profile: Profile,
        learned_e3: int,
        hidden_rate: int,
        slice_tokens: int,
        cuttable: bool,
        token_factor_e3: int | None = None,
        reads: bool = False,
        beside: Sequence[tuple[Hold, Gauge]] = (),
    ) -> None:
        """`hold` and `gauge` are the budget that is watched first, `beside` further ones.
        `cuttable`: the answer is a stream that may be cut; others are only counted.
        `reads`: it repeats what another call made.
        `token_factor_e3`: the tap counts tokens exactly, by a vocabulary that this provider's own
        differs from by so much."""
        self.tap = tap
        self.reader = tap.reader
        self.hold = hold
        self.inputs = inputs
        """Input tokens: our estimate until the provider says."""
        self.input_characters = ask.input_characters or 0
        self.outputs = 0
        """Output tokens delivered."""
        self.characters = 0
        """Output characters delivered, where the meter counts those."""
        self.hidden = 0
        """Assumed output that was not shown."""
        self.reported = NO_USAGE
        """What the provider had reported when the last delivered event went out."""
        self.packed = 0
        """Answers of which nothing can be read before their end: how many bytes of text each of
        their bytes stands for, more than one where they are compressed. Others: 0."""
        self._held_whole = FREE if cuttable or reads else gauge
        makes = ask.makes_output or reads
        self._longest = (ask.output_cap or UNBOUNDED) * ask.choices if makes else 0
        """No answer has more output tokens."""
        self._gauge = gauge if hold is not None and cuttable else FREE
        self._profile = profile
        self._learned_e3 = learned_e3
        self.hidden_rate = hidden_rate
        """Output tokens to assume for a second of silence; 0 where a silence is just that."""
        self._slice = slice_tokens
        self._token_factor_e3 = token_factor_e3
        self._by_character = self._gauge.kind == "characters"
        self._beside = tuple(beside) if cuttable else ()
        # Units of two kinds cannot be compared with one figure: then each event asks every budget.
        self._mixed = self._by_character and bool(self._beside)
        self._covered = self._most = UNBOUNDED
        """`_most`: output units that may be made in all, whatever the hold covers."""
        self._bounded = self._gauge.kind != "flat" or bool(self._beside)
        """What the hold covers depends on what came; else it is everything."""
        if self._bounded:
            self._cover()

    def stop_after(self, units: int) -> None:
        """Nobody listens any more: let `units` more output be made and no more."""
        made = self.tap.counted if self._by_character else self.outputs
        self._most = made + units
        self._cover()

    def silence(self, ms: int) -> None:
        """The provider sent nothing for so long: reasoning that is not shown, by assumed rate."""
        self.hidden = min(self.hidden + self._unseen(ms), self._longest)

    def assumed(self, silent_ms: int) -> int:
        """Output tokens delivered, with those of a silence that still lasts. No more of these than
        can be held; no await."""
        hidden = min(self.hidden + self._unseen(silent_ms), self._longest)
        made = self._visible(self._learned_e3) + hidden
        if made > self._covered and not self._by_character and not self._extend(made):
            made = self._covered
            for held, _ in self._budgets():
                held.refill()  # for the next time we are asked
        return max(made, self.outputs)

    def _unseen(self, ms: int) -> int:
        rate = self.hidden_rate
        return hidden_tokens(ms, rate) if rate and ms >= HIDDEN_AFTER_MS else 0

    def gate(self) -> bool:
        """Whether the event just read may go out; if so it counts as delivered. An answer whose
        final usage is already here is whole: cutting it would save nothing."""
        reader = self.reader
        usage = reader.usage()
        outputs = self._visible(self._learned_e3) + self.hidden
        if usage is not self.reported:
            stated = usage.output_tokens
            if stated is not None and outputs < stated <= COUNT_MAX:
                outputs = stated
            if usage.input_tokens is not None:
                self._set_inputs(usage.input_tokens)
            if usage.web_searches or usage.file_searches or usage.containers:
                self._set_tools(usage)
        elif outputs < self.outputs:
            outputs = self.outputs  # it was stated before
        units = self.tap.counted if self._by_character else outputs
        if units > self._covered and not self._extend(units) and not reader.final:
            return False
        self.outputs = outputs
        self.characters = self.tap.counted
        self.reported = usage
        return True

    def unread(self, text_bytes: int) -> tuple[int, int]:
        """Output tokens and characters when so much text came that no reader has counted. Not more
        than was asked for, nor, of what is not cut but held whole, than is held."""
        made = estimate_tokens(0, text_bytes, 0, self._profile, self._learned_e3)
        most, gauge = self._longest, self._held_whole
        if self.hold is not None and gauge.kind == "tokens":
            most = min(most, gauge.affordable_outputs(self.hold.amount_e10, self.inputs))
        made = self.outputs + max(0, min(made, most - self.outputs))
        return made, self.characters + (text_bytes if self._longest else 0)

    def shortfalls(self) -> list[tuple[Hold, int, int]]:
        """Holds that lack something for the event that `gate` stopped: how much, and how much with
        a slice beyond it."""
        short = []
        for hold, gauge in self._budgets():
            units = self._units(gauge)
            least = self._bound(gauge, units) - hold.amount_e10
            if least > 0:
                want = self._bound(gauge, units + self._slice) - hold.amount_e10
                short.append((hold, least, want))
        return short

    def estimate(self) -> int:
        """Visible output tokens without the learned factor: what learning compares with."""
        return self._visible(1000)

    def usage(self) -> Usage:
        """What the provider had reported for what was delivered."""
        return self.reported

    def _visible(self, learned_e3: int) -> int:
        reader = self.reader
        if self._token_factor_e3 is not None:
            exact = self.tap.counted * self._token_factor_e3 * learned_e3
            return exact // 1_000_000 + reader.tool_calls * TOOL_CALL_TOKENS
        return estimate_tokens(
            reader.deltas, reader.delta_bytes, reader.tool_calls, self._profile, learned_e3
        )

    def _budgets(self) -> list[tuple[Hold, Gauge]]:
        first = [] if self.hold is None else [(self.hold, self._gauge)]
        return [*first, *self._beside]

    def _units(self, gauge: Gauge) -> int:
        if gauge.kind == "characters":
            return self.tap.counted
        visible = self._visible(self._learned_e3) + self.hidden
        stated = self.reader.usage().output_tokens or 0
        return stated if visible < stated <= COUNT_MAX else visible

    def _bound(self, gauge: Gauge, outputs: int) -> int:
        return gauge.bound_e10(self._inputs_of(gauge), outputs)

    def _inputs_of(self, gauge: Gauge) -> int:
        return self.inputs if gauge.kind == "tokens" else self.input_characters

    def _set_inputs(self, inputs: int) -> None:
        if inputs != self.inputs and inputs <= COUNT_MAX:
            self.inputs = inputs
            if self._bounded:
                self._cover()

    def _set_tools(self, usage: Usage) -> None:
        """Tools that were used more often than was held for cost more than the gauges say."""
        first = self._gauge.used(usage)
        beside = tuple((hold, gauge.used(usage)) for hold, gauge in self._beside)
        if first is not self._gauge or beside != self._beside:
            self._gauge, self._beside = first, beside
            self._cover()

    def _cover(self) -> None:
        """Recompute how many output units the holds cover."""
        if self._mixed:
            self._covered = -1
            return
        self._covered = min(self._most, self._affords(self.hold, self._gauge))
        for hold, gauge in self._beside:
            self._covered = min(self._covered, self._affords(hold, gauge))

    def _affords(self, hold: Hold | None, gauge: Gauge) -> int:
        if gauge.kind == "flat":
            return UNBOUNDED
        held_e10 = hold.amount_e10 if hold else 0
        return gauge.affordable_outputs(held_e10, self._inputs_of(gauge))

    def _extend(self, outputs: int) -> bool:
        """Take a slice more of each budget that needs it, or at least what this event needs. No
        await. What one took before another refused stays with the call until it ends."""
        if outputs > self._most:
            return False
        if self.hold is not None and not self._extend_one(self.hold, self._gauge, outputs):
            return False
        for hold, gauge in self._beside:
            units = self._units(gauge) if self._mixed else outputs
            if not self._extend_one(hold, gauge, units):
                return False
        self._cover()
        return True

    def _extend_one(self, hold: Hold, gauge: Gauge, outputs: int) -> bool:
        needed_e10 = self._bound(gauge, outputs) - hold.amount_e10
        if needed_e10 <= 0:
            return True
        wanted_e10 = self._bound(gauge, outputs + self._slice) - hold.amount_e10
        return hold.extend(wanted_e10) or hold.extend(needed_e10)
