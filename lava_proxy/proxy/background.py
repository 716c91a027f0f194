"""Stored responses that run on or are read: named in the journal before their client can name them.

Whoever knows the id can have the response read, and the rest of it charged, by a later call. So a
crash must tell to which response belongs what was delivered until then (`books/replay.py`), and
whose it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import Run

Gate = Callable[[], bool]


def name(gateway: Gateway, run: Run, response_id: str | None) -> None:
    """Write down which response the call is about."""
    if run.call is not None and response_id:
        run.call = replace(run.call, background_id=response_id)
        gateway.books.amend(run.seq, run.call)


def gate(gateway: Gateway, run: Run, then: Gate) -> Gate:
    """What is asked before an event goes out: `then`, after the response is named."""

    def named() -> bool:
        if run.call is not None and run.call.background_id is None and run.tap is not None:
            name(gateway, run, run.tap.reader.response_id)
        return then()

    return named
