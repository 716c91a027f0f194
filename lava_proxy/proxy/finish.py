"""The end of a call: usage -> cost -> one settlement, by the rules of docs/metering.md.

provider said its last word     its counts, its price
it said something before        per field the larger of that and our count ("partial")
it said nothing                 our count ("estimate"), never nothing on a priced model
the call came to nothing        a row with charge 0 that says so
"""

from __future__ import annotations

import logging
from dataclasses import replace
from urllib.parse import unquote

from lava_proxy.books.holds import CREDIT
from lava_proxy.core.errors import LavaError
from lava_proxy.core.invariant import invariant
from lava_proxy.proxy import background
from lava_proxy.proxy.costing import cost_of_call
from lava_proxy.proxy.exchange import Books, Step
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import MAKING_KINDS, READING_KINDS, Run
from lava_proxy.proxy.tally import tally
from lava_proxy.rules.charge import Counts, counts_of, highest_rate, units_of
from lava_proxy.rules.estimate import Final
from lava_proxy.rules.gauge import FREE
from lava_proxy.rules.limits import drawn
from lava_proxy.rules.settlement import Call, Keeps, Metered, Outcome, Settlement, calendar_cycle

log = logging.getLogger(__name__)

METERING_FAULT = "metering_fault"

RECORDED = frozenset({402, 403, 429})
"""Refusals that `LAVA_RECORD_REFUSALS` keeps."""
UNKNOWN = "unknown"
"""The provider of a call that was refused before its model was looked up."""


def close(gateway: Gateway, run: Run, step: Step) -> Settlement | None:
    """Book what the step says. Called exactly once per call; no await."""
    call = run.call
    if step.books is Books.NOTHING or call is None:
        return None
    invariant(step.outcome is not None, "a call that closes has an outcome")
    if step.books is Books.VOID:
        row, estimate_e10 = _void(gateway, run, call, step.outcome or "void"), 0
    else:
        try:
            row, estimate_e10 = _settled(gateway, run, call, step)
        except Exception:
            log.exception("call %s: settled by our own count", run.request_id)
            row = _counted(gateway, run, call, step)
            credit = run.holds.credit if run.holds else None
            estimate_e10 = credit.amount_e10 if credit else 0
    gateway.books.settle(run.seq, row, run.holds, estimate_e10)
    run.holds = None
    return row


def observe(
    gateway: Gateway, run: Run, row: Settlement | None, error: BaseException | None
) -> None:
    """Tell the metrics how it went."""
    metrics = gateway.metrics
    if row is None:
        if isinstance(error, LavaError):
            metrics.refused(error.code)
        return
    if row.outcome == "cut_off":
        metrics.cut_off(row.call.provider)
    for flag in row.flags:
        metrics.anomaly(flag)
    duration_s = gateway.books.clock.boot_s() - run.started_s
    metrics.call_ended(
        provider=row.call.provider,
        outcome=row.outcome,
        input_tokens=row.counts.input_tokens,
        output_tokens=row.counts.output_tokens,
        added_s=max(0.0, duration_s - run.waited_s),
        first_byte_s=None if run.first_byte_s is None else run.first_byte_s - run.started_s,
        duration_s=duration_s,
    )


def record_refusal(gateway: Gateway, run: Run, error: BaseException | None) -> None:
    """Keep a row of a call that was refused for money or rights, where the operator wants it and
    it is known whose call it was."""
    if not isinstance(error, LavaError) or error.status not in RECORDED:
        return
    call = run.call or _as_far_as_known(gateway, run)
    if call is not None:
        gateway.books.record(_void(gateway, run, call, "refused"))


def _as_far_as_known(gateway: Gateway, run: Run) -> Call | None:
    """A call that was refused before all of it was looked at."""
    caller, target, now = run.caller, run.target, gateway.books.now()
    if caller is None or target is None:
        return None
    return Call(
        request_id=run.request_id,
        merchant_id=caller.merchant.merchant_id,
        holder_id=gateway.books.journal.holder_id,
        owner_id=caller.owner_id,
        customer_id=caller.customer.customer_id if caller.customer else None,
        meter=caller.meter,
        cycle=calendar_cycle(now),
        billable=False,
        provider=run.provider.id if run.provider else UNKNOWN,
        provider_key_type="managed" if caller.token.provider_key is None else "unmanaged",
        model=run.ask.model if run.ask else None,
        endpoint=f"https://{run.host}{target.path}" if run.host else target.path,
        stream=run.ask.stream if run.ask else False,
        created_at=now,
        metadata=run.metadata or None,
    )


def _void(gateway: Gateway, run: Run, call: Call, outcome: Outcome) -> Settlement:
    return Settlement(
        call=call,
        outcome=outcome,
        usage_source="estimate",
        counts=Counts(),
        cost=None,
        model=call.model,
        status="error",
        flags=tuple(sorted(run.flags)),
        completed_at=gateway.books.now(),
        duration_ms=_since_start_ms(run, gateway.books.clock.boot_s()),
        first_byte_ms=_since_start_ms(run, run.first_byte_s),
    )


def _settled(gateway: Gateway, run: Run, call: Call, step: Step) -> tuple[Settlement, int]:
    final = tally(gateway, run, step)
    usage, tap = final.usage, run.tap
    cost, version = cost_of_call(gateway, run, call, usage)
    if tap is not None and tap.faulty:
        run.flags.add(METERING_FAULT)
    reader = tap.reader if tap else None
    row = Settlement(
        call=call,
        outcome=step.outcome or "completed",
        usage_source=final.source,
        counts=counts_of(usage),
        cost=cost,
        model=(reader.model if reader else None) or call.model,
        cache_read_tokens=usage.cache_read_tokens or 0,
        cache_write_tokens=usage.cache_write_tokens or 0,
        reasoning_tokens=usage.reasoning_tokens or 0,
        price_version=version,
        response_id=reader.response_id if reader else None,
        flags=tuple(sorted(run.flags)) if run.flags else (),
        completed_at=gateway.books.now(),
        object_ids=_objects_made(run),
        metered_object=_metered_object(run, final),
        metered=_metered(run, final),
        object_over=final.source == "provider" or (reader is not None and reader.ended),
        reads_object=run.reads_object,
        duration_ms=_since_start_ms(run, gateway.books.clock.boot_s()),
        first_byte_ms=_since_start_ms(run, run.first_byte_s),
    )
    bound_e10 = _charge_bound(row, run)
    keeps = _keeps(gateway, run, row, bound_e10)
    if keeps:
        row = replace(row, keeps=keeps, keeps_s=int(gateway.settings.background_hold_s))
    return row, bound_e10 + dict(keeps).get(call.owner_id, 0)


def _counted(gateway: Gateway, run: Run, call: Call, step: Step) -> Settlement:
    """When pricing or reading fails, which is a defect: what was used is booked all the same."""
    running = run.running
    run.flags.add(METERING_FAULT)
    counts = Counts(
        input_tokens=running.inputs if running else call.input_tokens,
        output_tokens=running.outputs if running else 0,
        input_characters=call.input_characters,
        output_characters=running.characters if running else 0,
        input_ms=call.input_ms,
    )
    return replace(
        _void(gateway, run, call, step.outcome or "void"),
        counts=counts,
        outcome=step.outcome or "completed",
        status="completed",
        flags=tuple(sorted(run.flags)),
    )


def _charge_bound(row: Settlement, run: Run) -> int:
    """No charge that the writer computes for this row is above this."""
    meter = row.call.meter
    if meter is None or run.holds is None or not row.call.billable:
        return 0
    if meter.tariff.rate_type == "percentage":
        total_e10 = row.cost.total_e10 if row.cost else 0
        highest = max(tier.rate_e12 for tier in meter.tariff.tiers)
        return -(-total_e10 * highest // (100 * 10**12))
    gauge = run.gauge or FREE
    counts = row.counts
    if gauge.kind == "tokens":
        return gauge.bound_e10(counts.input_tokens, counts.output_tokens)
    if gauge.kind == "characters":
        return gauge.bound_e10(counts.input_characters, counts.output_characters)
    units = units_of(meter.tariff.unit, counts)
    return -(-highest_rate(meter.tariff, 0) * units // (100 * meter.tariff.per))


def _objects_made(run: Run) -> tuple[str, ...]:
    """Objects that now exist at the provider under the managed key, so that they have an owner."""
    if not run.managed or run.tap is None or run.route is None:
        return ()
    reader = run.tap.reader
    stored = reader.response_id if run.route.kind in OBJECT_KINDS else None
    return ((stored,) if stored else ()) + reader.made


def _metered_object(run: Run, final: Final) -> str | None:
    """The stored response that is counted here, as a whole or in part: it can be read again by its
    id. A row without counts says nothing of it."""
    ask, tap, route = run.ask, run.tap, run.route
    if ask is None or tap is None or route is None or route.kind not in STORED_KINDS:
        return None
    made = final.source == "provider" or counts_of(final.usage) != NO_COUNTS
    if not (made or ask.background or tap.reader.ended):
        return None
    return tap.reader.response_id or (ask.object_ids[0] if run.reads_object else None)


def _metered(run: Run, final: Final) -> Metered:
    """How much of it."""
    if final.source == "provider":
        return "whole"
    query = run.target.query if run.target else ""
    return "stretch" if run.reads_object and "starting_after=" in unquote(query) else "part"


def _keeps(gateway: Gateway, run: Run, row: Settlement, charged_e10: int) -> Keeps:
    """What a response in the background may still come to: the rest of its ceilings."""
    if row.object_over or row.metered_object is None:
        return ()
    used = {kind: drawn(kind, row) for kind, _ in row.call.budgets} | {CREDIT: charged_e10}
    held = background.keeps(gateway, run, used)
    return tuple((owner_id, amount) for owner_id, amount in held if amount > 0)


OBJECT_KINDS = MAKING_KINDS | {"conversations", "caches"}
STORED_KINDS = READING_KINDS | MAKING_KINDS
NO_COUNTS = Counts()


def _since_start_ms(run: Run, at_s: float | None) -> int | None:
    return None if at_s is None else int((at_s - run.started_s) * 1000)
