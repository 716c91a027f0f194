"""Embeddings in OpenAI's shape (OpenAI, Mistral, Voyage, Perplexity ...): input tokens only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..contract import Ask, Framing, Reader, Usage
from ..fold import Fold, Unread
from ..framings import whole
from ..openai_usage import settle_usage, take_cost, take_usage
from ..quirks import Quirks
from ..replies import openai_refusal
from ..strict import parse, text, tier
from ..weigh import weigh

_PRICED = frozenset(("model", "input", "inputs", "service_tier"))


class OpenAIEmbeddings:
    """kind "embeddings" or "rerank"."""

    family = "openai_embeddings"

    def __init__(self, quirks: Quirks, kind: str = "embeddings") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        return Ask(
            model=text(request, "model"),
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden,
            makes_output=False,
            object_ids=tuple(weight.object_ids),
            service_tier=tier(request, "service_tier"),
        )

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        return body

    def framing(self, ask: Ask, content_type: str) -> Framing:
        return whole(ask)

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask) if ask.free else EmbeddingsReader(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        return b""

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return openai_refusal(status, code, message, facts)


class EmbeddingsReader(Fold):
    """Reads the one usage object of the answer."""

    __slots__ = ()

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        self._name(body)
        usage = body.get("usage")
        if take_usage(usage, self._counts):
            take_cost(usage, data, self._counts)
            self._usage = None
            self.final = self.ended = True
        self.failed = self.failed or body.get("error") is not None

    def _settle(self) -> Usage:
        return settle_usage(self._counts, self.model, makes_output=False)
