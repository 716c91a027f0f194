"""How an answer is cut, by family, request and content type."""

from __future__ import annotations

import pytest

from lava_adapters import Ask, Quirks
from lava_adapters.contract import Framing
from lava_adapters.families import BUILTIN

WHOLE, STREAM, FREE = Ask(model="m"), Ask(model="m", stream=True), Ask(free=True)
DIALECTS = ("openai_chat", "openai_responses", "anthropic_messages", "gemini", "cohere",
            "interactions")  # fmt: skip
ODD = ("", "text/plain; charset=utf-8", "text/json", "application/octet-stream")


def framing(family: str, ask: Ask, content_type: str, kind: str = "") -> Framing:
    adapter = BUILTIN[family](Quirks(), kind) if kind else BUILTIN[family](Quirks())
    return adapter.framing(ask, content_type)


@pytest.mark.parametrize("content_type", ODD)
def test_an_odd_type_leaves_no_answer_unread(content_type: str) -> None:
    for family in DIALECTS:
        assert framing(family, WHOLE, content_type) is Framing.JSON, family
        assert framing(family, STREAM, content_type) is Framing.SSE, family
        assert framing(family, FREE, content_type) is Framing.OPAQUE, family
    assert framing("openai_embeddings", WHOLE, content_type) is Framing.JSON
    assert framing("openai_embeddings", FREE, content_type) is Framing.OPAQUE
    assert framing("bedrock", WHOLE, content_type, "converse") is Framing.JSON
    assert framing("bedrock", STREAM, content_type, "converse") is Framing.EVENT_STREAM
    assert framing("bedrock", FREE, content_type, "free") is Framing.OPAQUE


@pytest.mark.parametrize("content_type", [*ODD, "audio/mpeg", "image/png"])
def test_sound_pictures_and_plain_transcripts_are_no_documents(content_type: str) -> None:
    for kind in ("speech", "transcription", "images"):
        assert framing("media", WHOLE, content_type, kind) is Framing.OPAQUE
    assert framing("media", WHOLE, "application/json", "transcription") is Framing.JSON
    assert framing("media", STREAM, "", "transcription") is Framing.SSE
