"""Responses that run on in the background: named in the journal before their client can name them.

Whoever knows the id can have the response read, and charged, by a later call. So a crash must not
charge what was streamed until then (`books/replay.py`), and must know whose response it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import Run

Gate = Callable[[], bool]


def gate(gateway: Gateway, run: Run, then: Gate) -> Gate:
    """What is asked before an event goes out: `then`, after the id is journaled where need be."""
    begun = run.ask is not None and run.ask.background and run.ask.stream
    if not begun and not run.reads_object:
        return then

    def named() -> bool:
        call, tap = run.call, run.tap
        if call is not None and tap is not None and call.background_id is None:
            response_id = tap.reader.response_id
            if response_id:
                run.call = replace(call, background_id=response_id)
                gateway.books.amend(run.seq, run.call)
        return then()

    return named
