"""The settings of what a process looks after beside its calls: those that died near it, and
itself; `settings.py` has all others."""

from __future__ import annotations

from pydantic import Field

from lava_proxy.core.webhook_settings import WebhookSettings


class GuardSettings(WebhookSettings):
    """A part of `Settings`."""

    journal_takeover_s: float = Field(
        15.0,
        ge=0,
        description="How often a process looks for journals that a dead one left in the data "
        "directory, and books them; 0: only at start.",
    )
    loop_stall_s: float = Field(
        5.0,
        ge=0,
        description="An event loop that has not turned for so long is logged with its stack, "
        "counted, and not ready; 0: nobody looks.",
    )
    loop_stall_max_s: float = Field(
        30.0,
        ge=0,
        description="After so long `serve` ends the process, and its journal is booked by another; "
        "0: never. A host app's process is never ended.",
    )
