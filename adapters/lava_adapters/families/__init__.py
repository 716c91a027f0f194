"""One file per wire format family; `BUILTIN` is how the registry finds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..contract import Adapter
from ..quirks import Quirks
from .anthropic_messages import AnthropicMessages
from .bedrock import Bedrock
from .cohere import Cohere
from .gemini import Gemini
from .interactions import Interactions
from .media import Media
from .ollama import Ollama
from .opaque import Opaque
from .openai_chat import OpenAIChat
from .openai_embeddings import OpenAIEmbeddings
from .openai_responses import OpenAIResponses
from .predictions import Predictions
from .watsonx import Watsonx


class Family(Protocol):
    """What makes an adapter for one provider's quirks and one kind of route."""

    def __call__(self, quirks: Quirks, kind: str) -> Adapter: ...


BUILTIN: Mapping[str, Family] = {
    "anthropic_messages": AnthropicMessages,
    "bedrock": Bedrock,
    "cohere": Cohere,
    "gemini": Gemini,
    "interactions": Interactions,
    "media": Media,
    "ollama": Ollama,
    "opaque": Opaque,
    "openai_chat": OpenAIChat,
    "openai_embeddings": OpenAIEmbeddings,
    "openai_responses": OpenAIResponses,
    "predictions": Predictions,
    "watsonx": Watsonx,
}
