"""Stored responses: named in the journal before their client can name them.

Whoever knows the id can have the response read, and the rest of it charged, by a later call. So a
crash must tell to which response belongs what was delivered until then (`books/replay.py`), and
whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from lava_proxy.books.holds import CREDIT
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import MAKING_KINDS, Run
from lava_proxy.rules.limits import COST
from lava_proxy.rules.settlement import Keeps
from lava_proxy.wire.tap import Tap

Gate = Callable[[], bool]
NOTHING: Mapping[str, int] = {}


def name(gateway: Gateway, run: Run, response_id: str | None) -> None:
    """Write down which response the call is about."""
    if run.call is not None and response_id:
        run.call = replace(
            run.call,
            object_id=response_id,
            runs_on=run.reads_object or (run.ask is not None and run.ask.background),
            keeps=keeps(gateway, run),
            keeps_s=int(gateway.settings.background_hold_s),
        )
        gateway.books.amend(run.seq, run.call)


def keeps(gateway: Gateway, run: Run, used: Mapping[str, int] = NOTHING) -> Keeps:
    """What a response in the background holds, of credit and of every budget that counts money,
    less what was `used` of it, by kind. It waits until the response is found over."""
    if run.ask is None or not run.ask.background or run.holds is None:
        return ()
    if not gateway.settings.background_hold_s:
        return ()
    return tuple(
        (part.hold.account.owner_id, part.hold.amount_e10 - used.get(part.kind, 0))
        for part in run.holds.parts
        if part.kind == CREDIT or part.kind in COST
    )


def gate(gateway: Gateway, run: Run, tap: Tap, then: Gate) -> Gate:
    """What is asked before an event goes out: `then`, and at first whether the response has a name
    to be written down. A whole answer needs that only where it runs on: else its end says it."""
    ask, route = run.ask, run.route
    if ask is None or route is None:
        return then
    if not ask.background and not (ask.stream and route.kind in MAKING_KINDS):
        return then
    if run.reads_object:
        return then

    def named() -> bool:
        if tap.reader.response_id is not None and tap.gate is named:
            tap.gate = then  # from the next piece on: those of this one still ask here
            name(gateway, run, tap.reader.response_id)
        return then()

    return named
