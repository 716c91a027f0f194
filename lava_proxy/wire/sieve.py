"""Dropping the usage chunk that we asked for and the caller did not.

It has no choices, and naive clients read ``choices[0]``. Only that chunk goes; ``"usage": null`` in
the others may stay. An event whose first part is already sent is never dropped.
"""

from __future__ import annotations

from lava_adapters.contract import Ask, Reader

from .event import Event


def sieves(ask: Ask, *, injected: bool) -> bool:
    """Whether an answer must be sieved: the question was ours alone."""
    return injected and not ask.wants_usage


def drops(event: Event, reader: Reader) -> bool:
    """Whether the event that `reader` has just read must not reach the caller."""
    return reader.surplus and not event.torn
