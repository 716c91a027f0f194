"""How long a model's answer can be, and how much it reads, by its name: facts of others, dated.

A call that says no output cap is bounded by its model alone. The price data know windows, but not
outputs; those stand in ``model_limits.toml``.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources

from .values import dataclass

_BEFORE = re.compile(
    r"(?:us|us-gov|eu|apac|jp|au|ca|sa|global|regional|"
    r"ai21|amazon|anthropic|cohere|deepseek|google|meta|mistral|openai|qwen|writer)\."
)
"""Bedrock's regions and makers stand before the name."""


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """In tokens; None where nobody knows."""

    output: int | None = None
    window: int | None = None


NO_LIMITS = ModelLimits()


@cache
def _table() -> dict[str, ModelLimits]:
    text = resources.files(__package__).joinpath("model_limits.toml").read_text("utf-8")
    return {
        name: ModelLimits(row["output"], row.get("window"))
        for row in tomllib.loads(text)["models"]
        for name in row["names"]
    }


def bare_name(model: str) -> str:
    """``us.anthropic.claude-opus-4-1-v1:0`` -> ``claude-opus-4-1-v1:0``; makers before a slash and
    the mark of a fine-tuned model go too."""
    name = model.lower().rpartition("/")[2].removeprefix("ft:")
    while (found := _BEFORE.match(name)) is not None:
        name = name[found.end() :]
    # Routers write claude-3.7-sonnet, which Anthropic calls claude-3-7-sonnet.
    return name.replace(".", "-") if name.startswith("claude-") else name


def model_limits(model: str, provider: str = "") -> ModelLimits:
    """What is known of a model by the longest beginning of its bare name, at this provider before
    anywhere. Callers invent names: nothing is kept of one."""
    name, table = bare_name(model), _table()
    for place in (f"{provider}:", ""):
        for end in range(min(len(name), 64), 0, -1):
            if (found := table.get(place + name[:end])) is not None:
                return found
    return NO_LIMITS
