"""Speech, transcription and images: characters, time and pictures beside tokens.

Characters come from the header that states them, else from the text that was asked for; time from
the answer (seconds to the millisecond, never a float). What an upload asks for stands in its form;
before the answer a recording is as long as its size allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_plus

from .. import sound
from ..contract import Ask, AskError, Framing, Intake, Reader, Usage
from ..counts import count, exact, member, milliseconds, objects, take, written
from ..fold import Fold, Unread
from ..framings import is_json, json_or_sse, media_type
from ..multipart import Form, boolean, is_form, number, read_form
from ..openai_usage import settle_usage, take_cost, take_usage, with_other
from ..passing import FormIntake, RawIntake
from ..quirks import Quirks
from ..strict import flag, limit, parse, text
from ..weigh import IMAGE_TOKENS, weigh
from .plain import Plain

_MODEL = ("model", "model_id", "model_name")
"""What the model is called: by most, by ElevenLabs, by Hyperbolic."""
_PRICED = frozenset(
    ("document", "pages", "input", "text", "prompt", "n", "stream", "voice", *_MODEL)
)
_PRICED_IN_FORMS = frozenset(("n", "stream", *_MODEL))
PICTURE_TOKENS = 6_500
"""No picture of a documented size and quality has more output tokens (OpenAI: 6,240)."""
UNSEEN_PAGES = 100
"""Held for a document that the request only points to."""
PAGE_BYTES = 4_000
"""Base64 of a page of plain text in a PDF: hardly any is smaller."""
_CHARACTERS = ("dg-char-count", "character-cost", "x-ratelimit-input-characters-query-cost")


class Media(Plain):
    """kind "speech", "transcription", "images", "ocr" or "free"."""

    family = "media"

    def __init__(self, quirks: Quirks, kind: str = "speech") -> None:
        self._kind = kind
        self._model_in_query = quirks.model_in_query

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        if self._kind == "free" or method != "POST":
            return Ask(free=self._kind == "free", makes_output=False)
        return self._at(query, self._read(content_type, body))

    def intake(self, method: str, path: str, query: str, content_type: str) -> Intake | None:
        """Uploads are read while they pass."""
        if self._kind == "free" or method != "POST":
            return None
        if is_form(content_type):
            return FormIntake(
                content_type, _PRICED_IN_FORMS, lambda form: self._at(query, self._of_form(form))
            )
        if self._kind != "transcription" or media_type(content_type) == "application/json":
            return None
        return RawIntake(lambda head, size: self._at(query, self._of_recording(head, size)))

    def _at(self, query: str, ask: Ask) -> Ask:
        return replace(ask, model=_in_query(query)) if self._model_in_query else ask

    def _read(self, content_type: str, body: bytes) -> Ask:
        if is_form(content_type):
            return self._of_form(read_form(content_type, body, _PRICED_IN_FORMS))
        if media_type(content_type) == "application/json" and body:
            return self._of_json(body)
        return self._of_recording(body, len(body))

    def _of_recording(self, head: bytes, size: int) -> Ask:
        ask = Ask(makes_output=False, hidden_input=bool(size))
        return self._heard(ask, [(head, size)]) if size else ask

    def _of_json(self, body: bytes) -> Ask:
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        spoken = request.get("input", request.get("text")) if self._kind == "speech" else None
        choices = limit(request, "n") or 1
        ask = Ask(
            model=_one_model(text(request, name) for name in _MODEL),
            stream=flag(request, "stream") or request.get("stream_format") == "sse",
            choices=choices,
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden,
            makes_output=False,
            input_characters=len(spoken) if type(spoken) is str else None,
        )
        if self._kind == "images":
            return _pictured(ask)
        if self._kind == "ocr":
            return replace(ask, pages=_pages(request))
        if ask.input_characters:
            return _spoken(ask, ask.input_characters)
        return self._heard(ask, [])

    def _of_form(self, form: Form) -> Ask:
        ask = Ask(
            model=_one_model(form.fields.get(name) for name in _MODEL),
            stream=boolean(form, "stream"),
            choices=number(form, "n") or 1,
            input_bytes=form.text_bytes,
            text_bytes=form.text_bytes,
            makes_output=False,
        )
        if self._kind == "images":
            return _pictured(replace(ask, media_tokens=IMAGE_TOKENS * len(form.files)))
        return self._heard(ask, [(file.head, file.size) for file in form.files])

    def _heard(self, ask: Ask, recordings: list[tuple[bytes, int]]) -> Ask:
        """A recording is held by its longest possible length, and so is what is said in it."""
        if self._kind != "transcription":
            return ask
        likely = sum(sound.likely_ms(head, size) for head, size in recordings)
        most = sum(sound.longest_ms(head, size) for head, size in recordings)
        if not recordings:
            likely = most = sound.UNSEEN_MS
        tokens = sound.tokens(likely)
        return replace(
            ask,
            media_tokens=tokens,
            input_bytes=ask.input_bytes + max(0, sound.tokens(most) - tokens),
            hidden_input=False,
            makes_output=True,
            output_cap=max(1, sound.tokens(most, sound.SPOKEN_TOKENS_PER_S)),
            input_ms=likely,
            input_ms_most=max(most, likely),
        )

    def framing(self, ask: Ask, content_type: str) -> Framing:
        framing = json_or_sse(ask, content_type)
        if framing is Framing.JSON and not is_json(media_type(content_type)):
            return Framing.OPAQUE  # sound, a picture, a transcript in plain text
        return framing

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask) if ask.free else MediaReader(ask, self._kind)


def _spoken(ask: Ask, characters: int) -> Ask:
    """Held is twice what is likely: slow voices, and instructions that make them slow."""
    likely = sound.spoken_tokens(characters)
    return replace(ask, makes_output=True, output_cap=2 * likely, spoken_tokens=likely)


def _pictured(ask: Ask) -> Ask:
    return replace(ask, makes_output=True, output_cap=PICTURE_TOKENS, images=ask.choices)


class MediaReader(Fold):
    """Headers, whole answers, and the typed events of streamed images and transcripts."""

    reads_headers = True

    __slots__ = ("_kind", "_svg", "_svg_model")

    def __init__(self, ask: Ask, kind: str) -> None:
        super().__init__(ask)
        self._kind = kind
        self._svg: dict[str, int] = {}
        """What another model took that wrote the picture as SVG."""
        self._svg_model: str | None = None
        self.model = ask.model

    def headers(self, status: int, headers: Mapping[str, str]) -> None:
        for name in _CHARACTERS:
            value = headers.get(name, "")
            if status < 400 and value.isascii() and value.isdigit() and len(value) < 17:
                self._counts["characters"] = int(value)
                self.final = self.ended = True

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        self._name(body)
        if body.get("error") is not None or name == "error":
            self.failed = True
        kind = body.get("type")
        says = "text" if kind == "transcription.text.delta" else "delta"  # Mistral, OpenAI
        if type(delta := body.get(says)) is str and delta:
            self.more(delta)
        usage = body.get("usage")
        take_usage(usage, self._counts)
        take_cost(usage, data, self._counts)
        if take_usage(body.get("svg_usage"), self._svg):
            model = member(body, "svg_usage", "model")
            self._svg_model = model if type(model) is str else None
        take(body.get("usage_info"), {"pages_processed": "pages"}, self._counts)
        document = exact(data) if self._kind != "images" else None
        self._seconds(document)
        pictures = [*objects(body.get("data")), *objects(body.get("images"))]
        if self._kind == "images" and pictures:
            self._counts["images"] = len(pictures)
        self._usage = None
        done = type(kind) is str and kind.endswith((".done", ".completed"))
        if done or not self._ask.stream:
            self.final = self.ended = bool(self._counts)

    def _seconds(self, document: object) -> None:
        channels = count(member(document, "metadata", "channels")) or 1
        for value, times in (
            (member(document, "usage", "seconds"), 1),
            (member(document, "metadata", "duration"), channels),
            (written(member(document, "duration")), 1),
            (member(document, "audio_duration_secs"), 1),
        ):
            if (ms := milliseconds(value)) is not None:
                self._counts["ms"] = ms * times
                return
        take(document, {"durationMilliseconds": "ms"}, self._counts)  # Azure's speech to text

    def _settle(self) -> Usage:
        counts = dict(self._counts)
        ms, characters = counts.pop("ms", None), counts.pop("characters", None)
        pictures, pages = counts.pop("images", None), counts.pop("pages", None)
        usage = settle_usage(counts, self.model) if counts else Usage(model=self.model)
        usage = replace(
            usage,
            input_characters=characters,
            input_ms=usage.input_ms if ms is None else ms,
            images=pictures,
            pages=pages,
        )
        return with_other(usage, settle_usage(self._svg, self._svg_model)) if self._svg else usage


def _pages(request: dict[str, Any]) -> int:
    """Pages of a document to be read: those asked for, or as many as its bytes may hold."""
    wanted, document = request.get("pages"), request.get("document")
    if type(wanted) is list and wanted:
        return len(wanted)
    if member(document, "type") == "image_url":
        return 1
    url = member(document, "document_url")
    if type(url) is str and url.startswith("data:"):
        return 1 + len(url) // PAGE_BYTES
    return UNSEEN_PAGES


def _one_model(given: Iterable[str | None]) -> str | None:
    """Providers read one of the names, and not all of them the same."""
    names = {name for name in given if name}
    if len(names) > 1:
        raise AskError("model, model_id and model_name differ; send one", "model")
    return names.pop() if names else None


def _in_query(query: str) -> str | None:
    """None where it is given twice: which one counts is unknown, so the price is."""
    pairs = [piece.partition("=") for piece in query.split("&")]
    found = {value for name, _, value in pairs if name == "model"}
    return unquote_plus(found.pop()) if len(found) == 1 else None
