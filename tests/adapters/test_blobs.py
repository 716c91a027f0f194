"""Media in base64 is weighed as media wherever an API has a place for it. Weighed as text, a MiB of
picture would hold a million tokens, and be refused to whoever cannot pay those."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lava_adapters.weigh import DOCUMENT_TOKENS, IMAGE_TOKENS, weigh

DATA = base64.b64encode(bytes(30_000)).decode()
URL = f"data:image/png;base64,{DATA}"


def _weight(request: dict[str, Any]) -> tuple[int, int]:
    body = json.dumps(request).encode()
    weight = weigh(body, request)
    assert weight.text_bytes <= weight.input_bytes + 100
    return weight.input_bytes, weight.media_tokens


def _source(kind: str, form: str) -> dict[str, Any]:
    return {kind: {"format": form, "name": "n", "source": {"bytes": DATA}}}


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        # Bedrock's converse and Nova (openllmetry, pydantic-ai test_bedrock, vercel/ai)
        ({"messages": [{"content": [_source("image", "jpeg")]}]}, IMAGE_TOKENS),
        ({"messages": [{"content": [_source("document", "pdf")]}]}, len(DATA) // 8),
        ({"messages": [{"content": [_source("video", "mp4")]}]}, 1 + len(DATA) // 100),
        ({"singleEmbeddingParams": _source("audio", "mp3")}, 1 + len(DATA) // 100),
        # Bedrock's Titan (openllmetry)
        ({"inputText": "a", "inputImage": DATA}, IMAGE_TOKENS),
        # Ollama (openllmetry) and Cohere's embed
        ({"messages": [{"role": "user", "content": "Hi", "images": [DATA, DATA]}]},
         2 * IMAGE_TOKENS),
        ({"model": "embed-v4.0", "images": [URL]}, IMAGE_TOKENS),
        # Voyage's multimodal embeddings
        ({"inputs": [{"content": [{"type": "image_base64", "image_base64": URL}]}]}, IMAGE_TOKENS),
        # Mistral: sound in a string, documents in chat and OCR (vercel/ai, ruby_llm)
        ({"content": [{"type": "input_audio", "input_audio": DATA}]}, 1 + len(DATA) // 100),
        ({"document": {"type": "document_url",
                       "document_url": f"data:application/pdf;base64,{DATA}"}},
         max(DOCUMENT_TOKENS, len(f"data:application/pdf;base64,{DATA}") // 8)),
        # Imagen's edits (vercel/ai, google-vertex-image-edit)
        ({"instances": [{"prompt": "a", "referenceImages": [
            {"referenceImage": {"bytesBase64Encoded": DATA}}]}]}, IMAGE_TOKENS),
        # Replicate, Hyperbolic, xAI's edits
        ({"input": {"prompt": "a", "image": URL}}, IMAGE_TOKENS),
        ({"prompt": "a", "image": {"url": URL, "type": "image_url"}}, IMAGE_TOKENS),
    ],
)  # fmt: skip
def test_media_is_no_text(request_: dict[str, Any], tokens: int) -> None:
    input_bytes, media_tokens = _weight(request_)
    assert input_bytes < 500
    assert media_tokens == tokens


@pytest.mark.parametrize(
    "request_",
    [
        {"messages": [{"content": [_source("document", "txt")]}]},
        {"messages": [{"content": [_source("document", "csv")]}]},
        {"messages": [{"content": [{"text": URL}]}]},
        {"messages": [{"content": URL}]},
        {"prompt": URL},
        {"input": [URL]},
        {"bytes": DATA},
        {"image": DATA},
        {"image": {"format": 1, "source": {"bytes": DATA}}},
    ],
)
def test_what_a_model_reads_as_text_stays_text(request_: dict[str, Any]) -> None:
    input_bytes, media_tokens = _weight(request_)
    assert input_bytes > len(DATA)
    assert media_tokens == 0


def test_a_document_that_is_only_pointed_to_is_hidden_input() -> None:
    request = {"document": {"type": "document_url", "document_url": "https://example.com/a.pdf"}}
    assert weigh(json.dumps(request).encode(), request).hidden
