"""Prices that the bundled data lack: tools beside the tokens, audio, searches.

Each entry names the provider's page, where it should be looked up again: the figures were written
down without access to those pages (where somebody else's page was read, it is named with the day),
so an operator who depends on one sets a price of his own. An entry for a model adds to what is
bundled, or stands alone where the model is not bundled at all; one for every model (``""``) only
adds. What is bundled wins, so an entry that the data catch up with does no harm; and what stands
alone gives way to an operator's price for all of a provider's models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from lava_proxy.rules.rates import weight
from lava_proxy.rules.tiers import MILLION, MS_PER_MINUTE

ADDED_VERSION = "additions/2026-11-29"
"""The version of a price that stands alone: the day when an entry was last changed."""
MS_PER_HOUR = 60 * MS_PER_MINUTE

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
    # https://docs.voyageai.com/docs/pricing, as https://usagepricing.com/blueprint/voyage-ai (2.5)
    # and https://www.getmaxim.ai/bifrost/model-library/provider/voyage (2) give it, 2026-11-29.
    ("voyageai", "rerank-2.5"): {"input": ("0.05", MILLION)},
    ("voyageai", "rerank-2.5-lite"): {"input": ("0.02", MILLION)},
    ("voyageai", "rerank-2"): {"input": ("0.05", MILLION)},
    ("voyageai", "rerank-2-lite"): {"input": ("0.02", MILLION)},
    # https://elevenlabs.io/pricing/api, as developer.puter.com/tutorials/elevenlabs-api-pricing/
    # gives it (June 2026), read 2026-11-29. Answers state credits, not characters: Flash and Turbo
    # cost half a credit each (help.elevenlabs.io, "How do I find the model ID"), so a credit has
    # one price. Before the answer, and without it, theirs are taken for twice what they cost.
    **{
        ("elevenlabs", f"eleven_{model}"): {"input_characters": ("0.10", 1000)}
        for model in (
            "multilingual_v2", "v3", "flash_v2", "flash_v2_5", "turbo_v2", "turbo_v2_5",
        )
    },
    ("elevenlabs", "scribe_v1"): {"input_ms": ("0.22", MS_PER_HOUR)},
    ("elevenlabs", "scribe_v2"): {"input_ms": ("0.22", MS_PER_HOUR)},
    # https://deepgram.com/pricing, pay as you go, what is not streamed, in one language (`multi`
    # costs 0.0092), as github.com/D3velop-llc/open-gauntlet-leaderboard (data/asr.json) checked it
    # on 2026-08-01; read 2026-11-29.
    ("deepgram", "nova-3"): {"input_ms": ("0.0077", MS_PER_MINUTE)},
    # https://fireworks.ai/models/fireworks/whisper-v3-turbo, by a copy read on 2026-11-29.
    ("fireworks", "whisper-v3-turbo"): {"input_ms": ("0.0009", MS_PER_MINUTE)},
}  # fmt: skip


def added(provider: str, model: str, *, alone: bool = False) -> dict[str, int]:
    """Weights by kind; `alone`: the model is not bundled."""
    weights = _compiled(ADDITIONS.get((provider, model), {}).items())
    return weights if alone else weights | _compiled(ADDITIONS.get((provider, ""), {}).items())


def models_added(provider: str) -> list[str]:
    """Models of a provider that have an entry of their own."""
    return [model for name, model in ADDITIONS if name == provider and model]


def _compiled(prices: Iterable[tuple[str, tuple[str, int]]]) -> dict[str, int]:
    made = {}
    for kind, (usd, per) in prices:
        price = Fraction(usd)
        made[kind] = weight(price.numerator, price.denominator, per)
    return made
