"""How heavy a prompt is, and whose objects it names: one walk over a request's JSON.

A byte-level tokenizer makes at most one token of a byte, and JSON text is never shorter than the
UTF-8 it stands for, so the body's length bounds the tokens of its text. Media is different: its
base64 is taken off, and a per-item constant put in its place. What the body only points to (URLs,
files, stored conversations) makes the prompt larger than it looks: `hidden`.

Arguments and schemas of the caller's own tools are not searched: a ``file_id`` there is data, not a
file at the provider.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

IMAGE_TOKENS = 3_000
"""Tokens held for one image: above what large images cost at the usual detail settings."""

DOCUMENT_TOKENS = 3_000
"""Least number of tokens held for one document: about a page."""

DOCUMENT_BYTES_PER_TOKEN = 8
"""Base64 bytes of a document per token held: dense PDF files hold a page in few bytes."""

MEDIA_BYTES_PER_TOKEN = 100
"""Base64 bytes of audio or video per token held: 32 tokens per second at 32 kbit/s."""

_OWN_DATA = frozenset(
    ("args", "response", "input_schema", "parameters", "properties", "schema", "metadata")
)
_IDS = frozenset(("file_id", "cachedContent", "cached_content"))
_ID_LISTS = frozenset(("vector_store_ids", "file_ids"))
_URLS = frozenset(
    (
        "image_url",
        "file_url",
        "video_url",
        "audio_url",
        "document_url",
        "fileUri",
        "file_uri",
        "uri",
    )
)
_DATA = frozenset(("data", "file_data"))
_SHOWN = frozenset(("image", "audio", "video", "image_base64", "video_base64"))
"""A string here may be a data URL (Replicate, Voyage), an object a link or a source."""
_BLOBS = {"inputImage": "image/", "bytesBase64Encoded": "image/", "input_audio": "audio/"}
"""Base64 without a word on what it is: Titan's, Imagen's and Mistral's."""
_PICTURES = frozenset(("images", "reference_images"))
"""Lists of base64 (Ollama), data URLs (Cohere) or links (Together)."""
_SOURCED = frozenset(("image", "audio", "video", "document"))
_TEXT_FORMATS = frozenset(("txt", "md", "csv", "html"))
"""Bedrock's documents that are nothing but text."""
_MARKED = frozenset(
    (
        *(*_OWN_DATA, *_IDS, *_ID_LISTS, *_URLS, *_DATA, *_SHOWN, *_BLOBS, *_PICTURES, *_SOURCED),
        *("input", "container", "environment", "url"),
    )
)
"""All names that mean something here: what stands under another is text, or holds more."""


@dataclass(slots=True)
class Weight:
    """What a walk found."""

    input_bytes: int = 0
    text_bytes: int = 0
    media_tokens: int = 0
    hidden: bool = False
    object_ids: list[str] = field(default_factory=list)

    def _point(self, object_id: str) -> None:
        self.hidden = True
        if object_id not in self.object_ids:
            self.object_ids.append(object_id)

    def _media(self, mime: str, size: int) -> None:
        self.input_bytes -= size
        self.text_bytes -= size
        if mime.startswith("image/"):
            self.media_tokens += IMAGE_TOKENS
        elif mime.startswith(("audio/", "video/")):
            self.media_tokens += 1 + size // MEDIA_BYTES_PER_TOKEN
        else:
            self.media_tokens += max(DOCUMENT_TOKENS, size // DOCUMENT_BYTES_PER_TOKEN)

    def _link(self, url: str) -> None:
        if url.startswith("data:"):
            mime = url[5 : url.find(";", 0, 128)]
            if ";base64," in url[:128] and not mime.startswith("text/"):
                self._media(mime, len(url))
            return
        self.hidden = True
        self.media_tokens += IMAGE_TOKENS
        if "/files/" in url or url.startswith("files/"):
            self._point(url)


def weigh(body: bytes, request: dict[str, Any]) -> Weight:
    """Walk `request`, which is what `body` holds. Every string of every prompt is met here, so the
    usual one costs no call."""
    weight = Weight(input_bytes=len(body))
    text_bytes = 0
    stack: list[Any] = [request]
    while stack:
        node = stack.pop()
        if type(node) is list:
            for item in node:
                if type(item) is str:
                    text_bytes += len(item) if item.isascii() else _utf8(item)
                elif type(item) is dict or type(item) is list:
                    stack.append(item)
            continue
        kind = node.get("type")
        if kind == "item_reference" and type(node.get("id")) is str:
            weight._point(node["id"])
        for key, value in node.items():
            if key in _OWN_DATA or (key == "input" and kind == "tool_use"):
                text_bytes += len(orjson.dumps(value))
            elif type(value) is str:
                text_bytes += len(value) if value.isascii() else _utf8(value)
                if key in _MARKED:
                    _string(weight, node, key, value)
            elif type(value) is dict or type(value) is list:
                if key in _MARKED:
                    _nested(weight, key, value)
                stack.append(value)
    weight.text_bytes += text_bytes
    return weight


def _utf8(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _string(weight: Weight, node: dict[str, Any], key: str, value: str) -> None:
    if key in _IDS or (key == "container" and value):
        weight._point(value)
    elif key in _URLS or (key == "url" and node.get("type") == "url"):
        weight._link(value)
    elif key in _DATA:
        if value.startswith("data:"):
            weight._link(value)
        elif mime := _mime(node, key):
            weight._media(mime, len(value))
    elif key in _SHOWN:
        if value.startswith("data:"):
            weight._link(value)
    elif key in _BLOBS:
        weight._media(_BLOBS[key], len(value))


def _nested(weight: Weight, key: str, value: Any) -> None:
    linked = (key in _URLS or key in _SHOWN) and type(value) is dict
    if linked and type(value.get("url")) is str:
        weight._link(value["url"])
    elif key in _SOURCED and type(value) is dict:
        _sourced(weight, key, value)
    elif key in _PICTURES and type(value) is list:
        for item in value:
            if type(item) is str and ":" in item[:8]:
                weight._link(item)
            elif type(item) is str:
                weight._media("image/", len(item))
    elif key == "container" and type(value) is dict and type(value.get("id")) is str:
        weight._point(value["id"])
    elif key == "environment" and type(value) is dict and type(value.get("container_id")) is str:
        weight._point(value["container_id"])
    elif key in _ID_LISTS and type(value) is list:
        for item in value:
            if type(item) is str:
                weight._point(item)


def _sourced(weight: Weight, kind: str, block: dict[str, Any]) -> None:
    """Bedrock's blocks: ``{"image": {"format": "png", "source": {"bytes": ...}}}``."""
    source, form = block.get("source"), block.get("format")
    data = source.get("bytes") if type(source) is dict else None
    if type(data) is str and type(form) is str and form not in _TEXT_FORMATS:
        weight._media(f"{kind}/{form}", len(data))


def _mime(node: dict[str, Any], key: str) -> str:
    """The media type of base64 data, or "" for data that is text."""
    for name in ("mimeType", "mime_type", "media_type"):
        mime = node.get(name)
        if type(mime) is str:
            plain = mime.startswith("text/") or node.get("type") == "text"
            return "" if plain else mime
    sound = node.get("format")
    if type(sound) is str:
        return f"audio/{sound}"
    return "application/octet-stream" if key == "file_data" else ""
