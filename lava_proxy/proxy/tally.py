"""What a call came to: the provider's words, joined with our own counts where it was silent."""

from __future__ import annotations

from dataclasses import replace

from lava_adapters.contract import NO_USAGE, Ask, Usage
from lava_proxy.core.invariant import invariant
from lava_proxy.proxy import silence
from lava_proxy.proxy.exchange import Step
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import Run
from lava_proxy.rules.estimate import Final, final_counts, input_tokens_estimate
from lava_proxy.rules.price import ABSURD, COUNT_MAX
from lava_proxy.rules.settlement import BACKGROUND, Call
from lava_proxy.wire.partial import text_bytes

NO_USAGE_SEEN = "no_usage"
ZERO_USAGE = "zero_usage"


def tally(gateway: Gateway, run: Run, step: Step) -> Final:
    """Join the provider's words with our own counts."""
    ask, running, tap, call = run.ask, run.running, run.tap, run.call
    invariant(ask is not None and call is not None, "a settled call was asked and admitted")
    if ask is None or call is None or ask.free:
        return Final(NO_USAGE, "provider")
    if running is None or tap is None:  # the client left before the answer's head
        return _timed(call, ask, final_counts(NO_USAGE, False, input_tokens=call.input_tokens))
    reader = tap.reader
    if step.outcome != "completed" or running.packed > 1:
        read_rest(run)
    if step.outcome not in ("completed", "cut_off"):
        silence.count_last(run, gateway.books.clock.boot_s())
    stored = run.reads_object or (ask.background and reader.response_id is not None)
    runs_on = stored and not reader.final and not reader.failed
    if runs_on:
        run.flags.add(BACKGROUND)
    cut = step.outcome == "cut_off"
    usage = running.usage() if cut else reader.usage()
    whole = step.outcome == "completed" and reader.final
    outputs = running.outputs
    if step.outcome == "client_gone" and not running.packed:
        outputs += _lag_allowance(gateway, run, outputs)
    if whole:
        _learn(gateway, run, usage)
    elif (
        step.outcome == "completed"
        and usage == NO_USAGE
        and ask.makes_output
        and not ask.spoken_tokens
        and not runs_on
    ):
        run.flags.add(NO_USAGE_SEEN)
    if whole and not usage.output_tokens and reader.delta_bytes:
        run.flags.add(ZERO_USAGE)
    if ask.images and outputs and usage.images is None and not whole:
        usage = replace(usage, images=ask.images)  # made before the first byte came
    usage = _sane(run, usage)
    by_character = call.meter is not None and call.meter.tariff.unit == "characters_1m"
    if by_character or ask.input_characters is not None:
        usage = _characters(usage, ask, running.characters if by_character else None)
    found = final_counts(
        usage,
        reader.final and not cut,
        input_tokens=running.inputs or _asked(ask, outputs if runs_on else 0),
        output_tokens=outputs,
    )
    if ask.spoken_tokens and step.outcome == "completed":
        found = _spoken(ask, found)
    return _timed(call, ask, found)


def _asked(ask: Ask, outputs: int) -> int:
    """The prompt of a background response: it is not charged before some of its output is seen."""
    return input_tokens_estimate(ask.text_bytes, ask.media_tokens) if outputs else 0


def read_rest(run: Run) -> None:
    """What came of a JSON document, or of a long event, whose end will not come: read if it turns
    out to be whole, else counted by its text."""
    tap, running = run.tap, run.running
    if tap is None or running is None or tap.held is not None:
        return
    size, part = tap.rest()
    text = text_bytes(part) * size // len(part) if part else 0
    text = text or size * running.packed
    if text:
        running.outputs, running.characters = running.unread(text)


def _spoken(ask: Ask, final: Final) -> Final:
    """Speech without usage: sound is not countable, so the text's length says what was made."""
    usage = final.usage
    if usage.output_tokens or final.source == "provider":
        return final
    made = ask.spoken_tokens
    return Final(replace(usage, output_tokens=made, output_audio_tokens=made), final.source)


def _timed(call: Call, ask: Ask, final: Final) -> Final:
    """How long the recording was, by its size, where time is billed and nobody said."""
    usage = final.usage
    if ask.input_ms is None or usage.input_ms is not None:
        return final
    by_time = call.meter is not None and call.meter.tariff.unit == "minutes"
    if final.source != "estimate" and not by_time:
        return final
    usage = replace(usage, input_ms=ask.input_ms)
    return Final(usage, "estimate" if final.source == "estimate" else "partial")


def _sane(run: Run, usage: Usage) -> Usage:
    """Counts that no answer can have are not believed: ours stand instead, and the row says so."""
    if (usage.input_tokens or 0) <= COUNT_MAX and (usage.output_tokens or 0) <= COUNT_MAX:
        return usage
    run.flags.add(ABSURD)
    return NO_USAGE


def _characters(usage: Usage, ask: Ask, delivered: int | None) -> Usage:
    """Characters, where the meter (it has counted what was `delivered`) or the provider bills them
    and the answer does not state them."""
    if usage.input_characters is None:
        given = ask.text_bytes if ask.input_characters is None else ask.input_characters
        usage = replace(usage, input_characters=given)
    if usage.output_characters is None and delivered is not None:
        usage = replace(usage, output_characters=delivered)
    return usage


def _lag_allowance(gateway: Gateway, run: Run, outputs: int) -> int:
    """Output that the provider makes until it notices that we hung up, at this stream's pace."""
    ms = gateway.settings.lag_allowance_ms
    took_ms = int((gateway.books.clock.boot_s() - run.started_s) * 1000)
    return outputs * ms // took_ms if ms and took_ms > 0 else 0


def _learn(gateway: Gateway, run: Run, usage: Usage) -> None:
    """Note how long an answer may get, and compare our count with the provider's: visible tokens on
    both sides."""
    running, ask, provider = run.running, run.ask, run.provider
    if running is None or ask is None or provider is None or usage.output_tokens is None:
        return
    if ask.output_cap is None and ask.model and ask.makes_output:
        longest = -(-usage.output_tokens // ask.choices)
        gateway.books.learned.answered(provider.id, ask.model, longest)
    if not ask.stream or not ask.model:
        return
    visible = usage.output_tokens
    if provider.hides(ask.model):
        if run.tap is not None and run.tap.reader.thoughts:
            return  # our count has a summary of what theirs has not
        visible -= usage.reasoning_tokens or 0
    estimate = running.estimate()
    gateway.books.learned.learn(provider.id, ask.model, estimate, visible)
    if estimate > 0 and visible > 0:
        gateway.metrics.drift(provider.id, visible * 1000 // estimate)
