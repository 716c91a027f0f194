"""Prices that the bundled data lack: tools beside the tokens, audio, searches.

Each entry names the provider's page, where it should be looked up again: the figures were written
down without access to those pages, so an operator who depends on one sets a price of his own. An
entry for a model adds to what is bundled, or stands alone where the model is not bundled at all;
one for every model (``""``) only adds. What is bundled wins, so an entry that the data catch up
with does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from lava_proxy.rules.rates import weight
from lava_proxy.rules.tiers import MILLION

_Prices = Mapping[str, tuple[str, int]]
"""Kind -> (USD, for how many units)."""

ADDITIONS: Mapping[tuple[str, str], _Prices] = {
    # https://platform.openai.com/docs/pricing: a container of one GB, for 20 minutes.
    ("openai", ""): {"container": ("0.03", 1)},
    # https://azure.microsoft.com/pricing/details/cognitive-services/openai-service/
    ("azure", ""): {"container": ("0.03", 1)},
    # https://aws.amazon.com/bedrock/pricing/ (Guardrails): 1,000 text units of 1,000 characters;
    # word filters and patterns of one's own are free. What else there is has no price here.
    ("aws", ""): {"guardrail_filter": ("0.15", 1000), "guardrail_check": ("0.10", 1000)},
    # The first page: bundled with text prices only, a sixteenth of what audio costs.
    ("openai", "gpt-4o-audio-preview"): {
        "input_audio": ("40", MILLION),
        "output_audio": ("80", MILLION),
    },
    ("openai", "gpt-4o-mini-audio-preview"): {
        "input_audio": ("10", MILLION),
        "output_audio": ("20", MILLION),
    },
    # The same page: models that search before they answer.
    ("openai", "gpt-4o-search-preview"): {"web_search": ("25", 1000)},
    ("openai", "gpt-4o-mini-search-preview"): {"web_search": ("25", 1000)},
    ("openai", "gpt-5-search-api"): {"web_search": ("10", 1000)},
    # https://cohere.com/pricing: a search unit is one query over up to 100 documents.
    ("cohere", "rerank-v3.5"): {"search_unit": ("2", 1000)},
    ("cohere", "rerank-english-v3.0"): {"search_unit": ("2", 1000)},
    ("cohere", "rerank-multilingual-v3.0"): {"search_unit": ("2", 1000)},
}


def added(provider: str, model: str, *, alone: bool = False) -> dict[str, int]:
    """Weights by kind; `alone`: the model is not bundled."""
    weights = _compiled(ADDITIONS.get((provider, model), {}).items())
    return weights if alone else weights | _compiled(ADDITIONS.get((provider, ""), {}).items())


def _compiled(prices: Iterable[tuple[str, tuple[str, int]]]) -> dict[str, int]:
    made = {}
    for kind, (usd, per) in prices:
        price = Fraction(usd)
        made[kind] = weight(price.numerator, price.denominator, per)
    return made
