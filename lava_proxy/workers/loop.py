"""Runs a job again and again: with a pause, with jitter, and without ever dying of an error."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


async def every(seconds: float, name: str, run_once: Callable[[], Awaitable[object]]) -> None:
    """Call `run_once` about every `seconds`, until cancelled. The pause varies by a tenth, so that
    many workers do not march in step."""
    failing = False
    while True:
        await asyncio.sleep(seconds * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
        try:
            await run_once()
            failing = False
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not failing:  # once per outage, not once per round
                log.warning("%s: %s: %s", name, type(error).__name__, error)
            failing = True
