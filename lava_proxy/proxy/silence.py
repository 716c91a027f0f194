"""A provider that is silent for long may be reasoning: output that is billed and not shown.

A silence that is over is counted by the piece that ends it (`relay.count`). One that lasts is
counted here: at every sweep for the journal, so that a crash does not lose it, and when the call
ends in it. It is an assumption, so it costs no more than the output cap, and no more than can be
held.
"""

from __future__ import annotations

from lava_proxy.proxy.exchange import State
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import Run


def journal(gateway: Gateway, now_s: float) -> None:
    """PROGRESS of the calls whose provider is silent."""
    for run in gateway.open_runs.runs:
        running = run.running
        if running is None or not running.hidden_rate or run.exchange.state is not State.BODY:
            continue
        ms = _lasting_ms(run, now_s)
        if ms:
            gateway.books.journal.progress(
                run.seq,
                running.inputs,
                running.assumed(ms),
                running.input_characters,
                running.characters,
            )


def count_last(run: Run, now_s: float) -> None:
    """The call ends: count the silence that it ends in as delivered."""
    running = run.running
    if running is not None and running.hidden_rate:
        running.outputs = running.assumed(_lasting_ms(run, now_s))


def _lasting_ms(run: Run, now_s: float) -> int:
    """How long nothing has come; 0 where it is the client, or credit, that we wait for."""
    waiting, tap = run.waiting, run.tap
    if waiting is None or tap is None or tap.held is not None or run.sending_since_s is not None:
        return 0
    return max(0, int((now_s - waiting.since_s) * 1000))
