"""What differs between hosts that speak the same wire format: facts from the provider's row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quirks:
    """The part of a provider's row that its adapters need."""

    usage_opt_in: bool = False
    """Streams carry usage only when ``stream_options.include_usage`` asks for it."""
    cap_member: str = "max_tokens"
    """The chat member that limits output, where the caller set none."""
    named_errors: bool = False
    """Its SDK raises an in-stream error only under ``event: error`` (Perplexity)."""
    model_in_query: bool = False
    """The model is a parameter of the URL, and what a body says does not count (Deepgram)."""
