"""Prices that the bundled data lack: tools beside the tokens, audio, searches.

Each entry names where its figure stands and when that was read; *litellm* is the price table in
litellm 1.110.2 (November 2026), which names the providers' own pages. The pages themselves could
not be opened here, so an operator who depends on one looks it up and sets a price of his own. What
is bundled wins, so an entry that the data catch up with does no harm; and what stands alone gives
way to an operator's price for all of a provider's models.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from lava_proxy.rules.rates import weight
from lava_proxy.rules.tiers import MILLION, MS_PER_MINUTE

ADDED_VERSION = "additions/2026-11-29"
"""The version of a price that stands alone: the day when an entry was last changed."""
MS_PER_HOUR = 60 * MS_PER_MINUTE

_Prices = Mapping[str, tuple[str, int]]
"""Kind -> (USD, for how many units)."""

BESIDE: Mapping[tuple[str, str], _Prices] = {
    # https://developers.openai.com/api/docs/pricing: 0.03 for 1 GB, 0.12 for 4, 0.48 for 16, 1.92
    # for 64, each for 20 minutes: litellm (the first), a note that quotes the page on 2026-09-13
    # (all four), community.openai.com/t/1364328 (the first). Read 2026-11-29.
    ("openai", ""): {"container": ("0.03", 1)},
    # https://azure.microsoft.com/pricing/details/cognitive-services/openai-service/, by litellm,
    # read 2026-11-29.
    ("azure", ""): {"container": ("0.033", 1)},
    # https://aws.amazon.com/bedrock/pricing/ (Guardrails): 1,000 text units of 1,000 characters;
    # word filters and patterns of one's own are free. Both figures: hivebook.wiki (AWS Bedrock
    # Guardrails); the first: techjacksolutions.com (verified there on 2026-05-14). Read 2026-11-29.
    # What else there is has no price here.
    ("aws", ""): {"guardrail_filter": ("0.15", 1000), "guardrail_check": ("0.10", 1000)},
    # Claude's web search on Vertex AI: https://cloud.google.com/vertex-ai/generative-ai/pricing by
    # litellm (every model that searches), and what Anthropic takes itself. Read 2026-11-29.
    ("google", "claude-"): {"web_search": ("10", 1000)},
    # https://developers.openai.com/api/docs/pricing, by litellm, read 2026-11-29: bundled with text
    # prices only, a sixteenth of what audio costs.
    ("openai", "gpt-4o-audio-preview"): {
        "input_audio": ("40", MILLION),
        "output_audio": ("80", MILLION),
    },
    ("openai", "gpt-4o-mini-audio-preview"): {
        "input_audio": ("10", MILLION),
        "output_audio": ("20", MILLION),
    },
    # The same, read on the same day: models that search before they answer.
    ("openai", "gpt-4o-search-preview"): {"web_search": ("25", 1000)},
    ("openai", "gpt-4o-mini-search-preview"): {"web_search": ("25", 1000)},
    ("openai", "gpt-5-search-api"): {"web_search": ("10", 1000)},
}
"""(Provider, how its models' names begin) -> what is charged beside the bundled price."""

ALONE: Mapping[tuple[str, str], _Prices] = {
    # https://cohere.com/pricing, by litellm, read 2026-11-29: a search unit is one query over up to
    # 100 documents.
    ("cohere", "rerank-v4.0-pro"): {"search_unit": ("2.50", 1000)},
    ("cohere", "rerank-v4.0-fast"): {"search_unit": ("2", 1000)},
    ("cohere", "rerank-v3.5"): {"search_unit": ("2", 1000)},
    ("cohere", "rerank-english-v3.0"): {"search_unit": ("2", 1000)},
    ("cohere", "rerank-multilingual-v3.0"): {"search_unit": ("2", 1000)},
    # https://docs.voyageai.com/docs/pricing: litellm (all), usagepricing.com/blueprint/voyage-ai
    # (2.5), getmaxim.ai/bifrost/model-library/provider/voyage (2). Read 2026-11-29.
    ("voyageai", "rerank-3"): {"input": ("0.05", MILLION)},
    ("voyageai", "rerank-3-lite"): {"input": ("0.02", MILLION)},
    ("voyageai", "rerank-2.5"): {"input": ("0.05", MILLION)},
    ("voyageai", "rerank-2.5-lite"): {"input": ("0.02", MILLION)},
    ("voyageai", "rerank-2"): {"input": ("0.05", MILLION)},
    ("voyageai", "rerank-2-lite"): {"input": ("0.02", MILLION)},
    # https://elevenlabs.io/pricing/api, by litellm, read 2026-11-29 (0.10 in June 2026, says
    # developer.puter.com/tutorials/elevenlabs-api-pricing/). Answers state credits, not characters:
    # Flash, Turbo and v3 conversational cost half a credit each (the same page;
    # help.elevenlabs.io, "How do I find the model ID"), so a credit has one price. Before the
    # answer, and without it, theirs are taken for twice what they cost.
    **{
        ("elevenlabs", f"eleven_{model}"): {"input_characters": ("0.08", 1000)}
        for model in (
            "multilingual_v2", "v3", "v3_conversational", "v4", "v4_turbo", "flash_v2",
            "flash_v2_5", "turbo_v2", "turbo_v2_5",
        )
    },
    # The same page: litellm and developer.puter.com agree.
    ("elevenlabs", "scribe_v1"): {"input_ms": ("0.22", MS_PER_HOUR)},
    ("elevenlabs", "scribe_v2"): {"input_ms": ("0.22", MS_PER_HOUR)},
    # https://deepgram.com/pricing, pay as you go, what is not streamed, in one language (`multi`
    # costs 0.0092), as github.com/D3velop-llc/open-gauntlet-leaderboard (data/asr.json) checked it
    # on 2026-08-01; litellm still has 0.0043 for it. Read 2026-11-29.
    ("deepgram", "nova-3"): {"input_ms": ("0.0077", MS_PER_MINUTE)},
    # The same page: litellm, theneuralbase.com (Per-minute pricing). Read 2026-11-29. Its models
    # are named for what they hear: nova-2-phonecall.
    ("deepgram", "nova-2"): {"input_ms": ("0.0043", MS_PER_MINUTE)},
    ("deepgram", "nova-2-"): {"input_ms": ("0.0043", MS_PER_MINUTE)},
    # The same page: litellm (both), developers.cloudflare.com/workers-ai/models/aura-1 (the
    # second). Read 2026-11-29. Models are named for their voice: aura-2-thalia-en.
    ("deepgram", "aura-2-"): {"input_characters": ("0.030", 1000)},
    ("deepgram", "aura-"): {"input_characters": ("0.015", 1000)},
    # https://fireworks.ai/models/fireworks/whisper-v3-turbo, by a copy read on 2026-11-29.
    ("fireworks", "whisper-v3-turbo"): {"input_ms": ("0.0009", MS_PER_MINUTE)},
}  # fmt: skip
"""(Provider, model) -> all that is known of a model that is not bundled. A name that ends in a
hyphen is how names begin; the longest wins."""


def beside(provider: str, model: str) -> dict[str, int]:
    """Weights by kind of what a bundled model costs beside its bundled price."""
    weights: dict[str, int] = {}
    for (theirs, beginning), prices in BESIDE.items():
        if theirs == provider and model.startswith(beginning):
            weights |= _compiled(prices)
    return weights


def models_added(provider: str) -> list[str]:
    """Models of a provider that are not bundled; not what names begin with, which is none."""
    return [name for theirs, name in ALONE if theirs == provider and not name.endswith("-")]


def alone(provider: str, model: str) -> dict[str, int]:
    """Weights by kind of a model that is not bundled; empty where it is not here either."""
    found = ALONE.get((provider, model))
    if found is None:
        names = [name for theirs, name in ALONE if theirs == provider and name.endswith("-")]
        longest = max((n for n in names if f"{model}-".startswith(n)), key=len, default="")
        found = ALONE.get((provider, longest), {})
    return _compiled(found)


def _compiled(prices: _Prices) -> dict[str, int]:
    made = {}
    for kind, (usd, per) in prices.items():
        price = Fraction(usd)
        made[kind] = weight(price.numerator, price.denominator, per)
    return made
